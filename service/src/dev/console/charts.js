// Small live charts: one canvas each, its key in the caption, colours from the style sheet.

import { $, el, podColor, say } from "./dom.js";

/** Samples kept: a minute of two a second. */
const SAMPLES = 120;

const color = (value) => {
  const name = /^var\((--[\w-]+)\)$/.exec(value)?.[1];
  return name ? getComputedStyle(document.documentElement).getPropertyValue(name).trim() : value;
};

class Chart {
  #series = new Map();
  #unit;
  #least;

  constructor(id, title, unit, least) {
    this.#unit = unit;
    this.#least = least;
    this.caption = el("figcaption", {}, el("b", {}, title));
    this.canvas = el("canvas", { role: "img", "aria-label": title });
    this.node = el("figure", { class: "chart", id }, this.caption, this.canvas);
  }

  add(name, paint, value) {
    let series = this.#series.get(name);
    if (!series) {
      series = { paint, values: [], key: el("span", { class: "key" }) };
      series.key.style.setProperty("--key", paint);
      this.#series.set(name, series);
      this.caption.append(series.key);
    }
    series.values.push(value);
    if (series.values.length > SAMPLES) series.values.shift();
    say(series.key, `${name} ${value === null ? "–" : this.#format(value)}`);
  }

  #format(value) {
    const text = value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
    return this.#unit ? `${text} ${this.#unit}` : text;
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const highest = Math.max(this.#least, ...[...this.#series.values()].flatMap((series) => series.values.filter((v) => v !== null)));
    const y = (value) => height - 3 - (value / highest) * (height - 18);
    pen.strokeStyle = color("var(--line)");
    pen.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      const line = Math.round(y(highest * part)) + 0.5;
      pen.beginPath();
      pen.moveTo(0, line);
      pen.lineTo(width, line);
      pen.stroke();
    }
    pen.fillStyle = color("var(--muted)");
    pen.font = "11px system-ui, sans-serif";
    pen.fillText(this.#format(highest), 2, 11);
    for (const { paint, values } of this.#series.values()) {
      pen.strokeStyle = color(paint);
      pen.lineWidth = 2;
      pen.lineJoin = "round";
      pen.beginPath();
      let drawing = false;
      values.forEach((value, index) => {
        const x = width - 2 - ((values.length - 1 - index) / (SAMPLES - 1)) * (width - 4);
        if (value !== null) pen[drawing ? "lineTo" : "moveTo"](x, y(value));
        drawing = value !== null;
      });
      pen.stroke();
    }
  }
}

const charts = {
  sockets: new Chart("chart-sockets", "Sockets per pod", "", 4),
  events: new Chart("chart-events", "Events a second", "", 5),
  latency: new Chart("chart-latency", "Stream to page, ms", "", 5),
  gaps: new Chart("chart-gaps", "Gaps and closes", "", 4),
};
$("#charts").append(...Object.values(charts).map((chart) => chart.node));

const percentile = (sorted, share) => (sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] : null);
let before = null;

/** Adds a sample: the status, and what the page's own sockets saw (latencies of the last ten seconds, totals). */
export function sample(fleet, seen) {
  const now = performance.now();
  const total = fleet.pods.reduce((sum, pod) => sum + pod.sent, 0);
  const taken = fleet.pods.reduce((sum, pod) => sum + pod.taken, 0);
  for (const pod of fleet.pods) charts.sockets.add(pod.id, podColor(pod.id), pod.sockets);
  if (before) {
    const seconds = (now - before.now) / 1000;
    // A pod that starts again counts from nothing.
    charts.events.add("delivered", "var(--pod-1)", Math.max(0, total - before.total) / seconds);
    charts.events.add("taken", "var(--pod-3)", Math.max(0, taken - before.taken) / seconds);
  }
  before = { now, total, taken };
  const sorted = [...seen.latencies].sort((a, b) => a - b);
  charts.latency.add("p50", "var(--pod-2)", percentile(sorted, 0.5));
  charts.latency.add("p95", "var(--pod-3)", percentile(sorted, 0.95));
  charts.latency.add("p99", "var(--pod-5)", percentile(sorted, 0.99));
  charts.gaps.add("gaps", "var(--pod-5)", seen.gaps);
  charts.gaps.add("closes", "var(--pod-4)", seen.closes);
  Object.values(charts).forEach((chart) => chart.draw());
}
