// Calls keyrelay from the browser and shows what came back: the answer, or what to do about it.
"use strict";

const field = (id) => document.getElementById(id);
const show = (id, text) => { field(id).textContent = text ?? ""; };

/** The call as a URL; URLSearchParams encodes `server`, so that it may have a query of its own. */
function callUrl() {
  const query = new URLSearchParams({ server: field("server").value });
  if (field("service").value) query.set("service", field("service").value);
  const minutes = Number(field("minutes").value);
  if (minutes > 0) query.set("cache", Math.floor(Date.now() / 1000) + minutes * 60);
  if (field("refresh").checked) query.set("invalidate", "true");
  return `${field("relay").value}/proxy?${query}`;
}

let shortLived = { asked: "", token: "", until: 0 };

/**
 * A token of five minutes, for this call from this page and no other. In an application your own server asks for it,
 * so that the platform token never comes near a browser; the request is the same.
 */
async function shortLivedToken(method) {
  const { hostname, pathname } = new URL(field("server").value);
  const asked = {
    seconds: 300, hosts: [hostname], paths: [pathname], methods: [method], origins: [location.origin],
  };
  if (field("service").value) asked.services = [field("service").value];
  const mine = JSON.stringify([field("relay").value, field("token").value, asked]);
  if (shortLived.asked === mine && Date.now() < shortLived.until) return shortLived.token;
  const response = await fetch(`${field("relay").value}/tokens`, {
    method: "POST",
    headers: { "Authorization": `Bearer ${field("token").value}`, "Content-Type": "application/json" },
    body: JSON.stringify(asked),
  });
  if (!response.ok) throw response;
  const { token, seconds } = await response.json();
  shortLived = { asked: mine, token, until: Date.now() + (seconds - 10) * 1000 };
  return token;
}

/** A platform token must not travel with every call; the token of your own login (docs/signing-in.md) is made for that. */
async function bearer(method) {
  const token = field("token").value;
  return token.startsWith("kr_") ? shortLivedToken(method) : token;
}

async function callOptions() {
  const headers = {};
  const method = field("body").value ? "POST" : "GET";
  if (field("token").value) headers.Authorization = `Bearer ${await bearer(method)}`;
  if (!field("body").value) return { headers };
  headers["Content-Type"] = "application/json";
  return { method, headers, body: field("body").value };
}

/** One sentence about a failed answer; keyrelay's own errors carry Proxy-Status and a `detail`. */
async function failure(response) {
  const text = await response.text();
  if (!response.headers.has("Proxy-Status")) return `The upstream says: ${text}`;
  const problem = JSON.parse(text);
  return `${problem.title}. ${problem.detail}`;
}

async function call() {
  for (const id of ["error", "status", "answer"]) show(id);
  let response;
  try {
    response = await fetch(callUrl(), await callOptions()).catch(() => null);
  } catch (refused) {
    response = refused instanceof Response ? refused : null;
  }
  for (const name of ["cache-status", "age", "x-request-id"]) show(name, response?.headers.get(name));
  if (!response) {
    show("error", "No answer for this page. Does keyrelay run, and is this origin "
      + `(${location.origin}) listed in server.cors_origins?`);
    return;
  }
  show("status", response.status);
  if (response.ok) show("answer", await response.text());
  else show("error", await failure(response));
}

field("call").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter;
  button.disabled = true;
  try {
    await call();
  } finally {
    button.disabled = false;
  }
});
