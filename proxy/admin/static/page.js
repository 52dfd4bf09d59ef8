// What the page does beyond forms and links: dialogs, copying, the live tail. All of it may fail.
"use strict";

(() => {
  const dialog = document.getElementById("dialog");

  // Dialogs: what a link would lead to is shown above the page; Escape and Cancel end it.

  document.addEventListener("htmx:after:swap", () => {
    const body = document.getElementById("dialog-body");
    if (dialog && body && body.firstElementChild && !dialog.open) {
      dialog.showModal();
      (body.querySelector("[autofocus]") || body.querySelector("input:not([type=hidden]), select"))?.focus();
    }
    showCopies(document);
  });

  document.addEventListener("click", (event) => {
    const closing = event.target.closest("[data-close]");
    if (closing && dialog && dialog.open) {
      event.preventDefault();
      dialog.close();
    }
    const copying = event.target.closest("[data-copy]");
    if (copying) copy(copying);
  });

  dialog?.addEventListener("close", () => document.getElementById("dialog-body").replaceChildren());

  // A form is sent once: a double click must not lose the answer that alone shows a token.

  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => {
    for (const form of document.forms) delete form.dataset.sent;
  });

  // The overview renews itself: what fails is said, and what is over asks for a sign-in.

  document.addEventListener("htmx:before:response", (event) => {
    const context = event.detail.ctx;
    const stale = document.getElementById("stale");
    if (context.sourceElement?.id !== "overview" || !stale) return;
    const status = context.response?.status ?? 0;
    if (status === 401) return; // the answer leads to the sign-in
    stale.hidden = status === 200;
    if (status !== 200) event.preventDefault();
  });
  document.addEventListener("htmx:error", (event) => {
    const stale = document.getElementById("stale");
    const source = event.detail.ctx?.sourceElement;
    if (stale && source?.id === "overview") stale.hidden = false;
    if (source?.href) location.assign(source.href); // without an answer, the browser says why
  });

  // Copying.

  function showCopies(root) {
    if (!navigator.clipboard) return;
    for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
  }

  async function copy(button) {
    const words = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it instead";
    }
    setTimeout(() => (button.textContent = words), 2000);
  }

  // The live tail.

  function cell(text, kind) {
    const made = document.createElement("td");
    if (kind) made.className = kind;
    if (text instanceof Node) made.append(text);
    else made.textContent = text;
    return made;
  }

  function tag(text, kind) {
    const made = document.createElement("span");
    made.className = kind;
    made.textContent = text;
    return made;
  }

  function row(line) {
    const made = document.createElement("tr");
    const status = document.createElement("td");
    status.append(tag(line.status || "gone", `status s${String(line.status)[0]}${line.cut ? " cut" : ""}`));
    if (line.code) status.append(" ", tag(line.code, "help"));
    made.append(
      cell(line.ended), status, cell(line.service), cell(line.token), cell(line.method),
      cell(line.host), cell(tag(line.verdict, `verdict ${line.verdict}`)),
      cell(line.time, "n"), cell(line.sent, "n"),
    );
    made.classList.add("fresh");
    return made;
  }

  function watch(table) {
    const body = table.tBodies[0];
    const live = document.getElementById("live");
    const pause = document.getElementById("pause");
    const empty = document.getElementById("tail-empty");
    const told = document.getElementById("tail-told");
    const most = Number(table.dataset.most);
    let paused = false;
    let held = [];
    let untold = 0;

    function say(state, words) {
      live.hidden = false;
      live.firstElementChild.className = `dot ${state}`;
      live.lastElementChild.textContent = words;
    }

    function show(lines) {
      for (const line of lines) body.prepend(row(line));
      while (body.rows.length > most) body.lastElementChild.remove();
      if (lines.length) empty.hidden = true;
      untold += lines.length;
    }

    const source = new EventSource(table.dataset.stream);
    source.addEventListener("open", () => say("healthy", paused ? "paused" : "live"));
    source.addEventListener("calls", (event) => {
      const lines = JSON.parse(event.data);
      if (paused) held = held.concat(lines).slice(-most);
      else show(lines);
    });
    source.addEventListener("over", () => {
      source.close();
      say("unhealthy", "signed out: load the page again");
    });
    source.addEventListener("error", () => say("unhealthy", source.readyState === EventSource.CLOSED ? "ended: load the page again" : "reconnecting …"));

    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      pause.textContent = paused ? "Go on" : "Pause";
      say(paused ? "unknown" : "healthy", paused ? "paused" : "live");
      if (!paused) show(held.splice(0));
    });

    // Spoken now and then as a number: each row aloud would drown everything else.
    setInterval(() => {
      if (untold) told.textContent = untold === 1 ? "one call more" : `${untold} calls more`;
      untold = 0;
    }, 10000);
    addEventListener("pagehide", () => source.close());
  }

  showCopies(document);
  const table = document.getElementById("tail");
  if (table && window.EventSource) watch(table);
})();
