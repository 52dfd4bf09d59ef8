// Draws what stands in data-chart with uPlot; the same numbers stand beside it as a table.
"use strict";

(() => {
  const drawn = new Map();

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function faint(name) {
    return colour(`${name}-faint`);
  }

  // Bars stand on each other: each one is drawn from zero to the sum up to it, the highest first;
  // what adds nothing is not drawn, or its colour would show at the edges of thin bars.
  function stacked(chart) {
    const sums = chart.x.map(() => 0);
    return chart.lines.map((line) => line.values.map((value, place) => {
      sums[place] += value ?? 0;
      return value ? sums[place] : null;
    }));
  }

  function words(value, unit) {
    if (value == null) return "–";
    if (value === 0) return "0";
    if (unit === "seconds") {
      return value < 1 ? `${Number((value * 1000).toPrecision(3))} ms` : `${Number(value.toPrecision(3))} s`;
    }
    if (unit === "share") return `${Number((100 * value).toPrecision(3))}%`;
    if (unit === "money") return value.toLocaleString("en", { maximumFractionDigits: value < 1 ? 4 : 2 });
    return value >= 10000 ? `${Number((value / 1000).toPrecision(3))}k` : value.toLocaleString("en");
  }

  function two(number) {
    return String(number).padStart(2, "0");
  }

  function time(at, step) {
    const date = new Date(at * 1000);
    const day = `${date.toLocaleString("en", { month: "short", timeZone: "UTC" })} ${date.getUTCDate()}`;
    const hour = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
    return step >= 86400 ? day : step >= 3600 ? `${day}, ${hour}` : hour;
  }

  function ticks(chart) {
    return (_, splits) => splits.map((at) => {
      const text = time(at, chart.step);
      return chart.span > 2 * 86400 ? text.split(",")[0] : text.split(", ").pop();
    });
  }

  function options(chart, width, tip) {
    const axis = { stroke: colour("muted"), font: "12px system-ui, sans-serif", grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    const thin = width < 5 * chart.x.length;
    const bars = uPlot.paths.bars({ size: [thin ? 1 : 0.72, 22], gap: thin ? 0 : 1, radius: 0 });
    const smooth = uPlot.paths.linear();
    const lines = chart.lines.map((line) => chart.stacked
      ? { label: line.name, fill: colour(line.colour), width: 0, paths: bars, points: { show: false } }
      : { label: line.name, stroke: colour(line.colour), width: 2, paths: smooth, fill: chart.lines.length === 1 ? faint(line.colour) : undefined, points: { show: false }, spanGaps: true });
    return {
      width, height: chart.height, tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: !chart.stacked, size: 7 } },
      scales: {
        x: { time: true, range: () => chart.stacked ? [chart.x[0] - chart.step / 2, chart.x[chart.x.length - 1] + chart.step / 2] : [chart.x[0], chart.x[chart.x.length - 1]] },
        y: { range: (_, low, high) => [0, chart.unit === "share" ? 1 : high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 64, values: ticks(chart), size: 28 },
        { ...axis, size: 58, space: 34, values: (_, splits) => splits.map((at) => words(at, chart.unit)) },
      ],
      series: [{}, ...(chart.stacked ? lines.slice().reverse() : lines)],
      hooks: { setCursor: [(plot) => point(plot, chart, tip)] },
    };
  }

  // What stands under the pointer, in words.
  function point(plot, chart, tip) {
    const place = plot.cursor.idx;
    tip.hidden = place == null || plot.cursor.left < 0;
    if (tip.hidden) return;
    const parts = chart.lines.map((line) => `${line.name} ${words(line.values[place], chart.unit)}`);
    tip.textContent = `${time(chart.x[place], chart.step)}: ${parts.join(", ")}`;
  }

  function draw(holder) {
    const chart = JSON.parse(holder.dataset.chart);
    holder.hidden = false;
    holder.replaceChildren();
    const tip = document.createElement("p");
    tip.className = "tip";
    tip.hidden = true;
    const values = chart.stacked ? stacked(chart).reverse() : chart.lines.map((line) => line.values);
    const plot = new uPlot(options(chart, holder.clientWidth, tip), [chart.x, ...values], holder);
    plot.root.setAttribute("aria-hidden", "true");
    holder.append(tip);
    drawn.set(holder, plot);
  }

  function drawAll() {
    for (const [holder, plot] of drawn) {
      if (!holder.isConnected) {
        plot.destroy();
        drawn.delete(holder);
      }
    }
    for (const holder of document.querySelectorAll("[data-chart]")) {
      if (!drawn.has(holder)) draw(holder);
    }
  }

  function again() {
    for (const [holder, plot] of drawn) plot.destroy();
    drawn.clear();
    drawAll();
  }

  function fit() {
    for (const [holder, plot] of drawn) {
      if (holder.clientWidth !== plot.width) plot.setSize({ width: holder.clientWidth, height: plot.height });
    }
  }

  if (!window.uPlot) return;
  drawAll();
  document.addEventListener("htmx:after:swap", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("resize", fit);
})();
