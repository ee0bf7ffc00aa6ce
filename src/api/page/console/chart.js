// A line chart of the last minutes, which can be read with the pointer and with the arrow keys.

import { h, setText, svg } from "./dom.js";
import { compact, duration, second } from "./format.js";

const WINDOW_MS = 5 * 60_000;
const SHORTEST_MS = 60_000; // what a chart shows that has just begun
const HEIGHT = 150;
const MARGIN = { top: 8, right: 8, bottom: 20, left: 52 };

/** The least of 1, 2 and 5 times a power of ten that is not below `value`. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** Points of the chart that outlive its page: `{ at, values: { name: number | null } }`. */
export class Samples {
  points = [];

  push(values, at = Date.now()) {
    this.points.push({ at, values });
    while (this.points[0].at < at - WINDOW_MS - 10_000) this.points.shift();
  }

  /** The names that have values, those seen first in front. */
  names() {
    return [...new Set(this.points.flatMap(({ values }) => Object.keys(values)))];
  }
}

/** A chart of samples. `format` writes a value for people. */
export function chart({ title, samples, format = compact, note }) {
  const legend = h("ul", { class: "legend" });
  const plot = svg("svg", { class: "plot", role: "img", tabindex: 0 });
  const element = h("figure", { class: "card chart" }, h("figcaption", {}, h("h2", {}, title), note && h("p", { class: "hint" }, note)), legend, plot);
  let pointed = null; // the point that is looked at; null: the newest
  const drawing = () => draw(plot, legend, samples, format, title, pointed);

  plot.addEventListener("pointermove", ({ clientX }) => {
    const at = timeAt(plot, clientX, samples);
    pointed = samples.points.reduce((best, point) => (!best || Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best), null);
    drawing();
  });
  const release = () => {
    pointed = null;
    drawing();
  };
  plot.addEventListener("pointerleave", release);
  plot.addEventListener("blur", release);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !samples.points.length) return;
    event.preventDefault();
    const at = pointed ? samples.points.indexOf(pointed) : samples.points.length - 1;
    pointed = samples.points[Math.min(Math.max(at + step, 0), samples.points.length - 1)];
    drawing();
  });
  new ResizeObserver(drawing).observe(plot);
  return { element, draw: drawing };
}

const end = (samples) => samples.points.at(-1)?.at ?? Date.now();

/** How much time the chart shows. */
const span = (samples) => Math.min(Math.max(end(samples) - (samples.points[0]?.at ?? 0), SHORTEST_MS), WINDOW_MS);

function timeAt(plot, clientX, samples) {
  const { left, width } = plot.getBoundingClientRect();
  const share = (clientX - left - MARGIN.left) / (width - MARGIN.left - MARGIN.right);
  return end(samples) - (1 - share) * span(samples);
}

function draw(plot, legend, samples, format, title, pointed) {
  const width = plot.clientWidth;
  if (!width) return;
  const names = samples.names();
  const values = samples.points.flatMap((point) => names.map((name) => point.values[name] ?? 0));
  const most = ceiling(Math.max(...values, 0));
  const x = (at) => MARGIN.left + (1 - (end(samples) - at) / span(samples)) * (width - MARGIN.left - MARGIN.right);
  const y = (value) => HEIGHT - MARGIN.bottom - (value / most) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const lines = names.map((name, number) => line(samples.points, name, number, x, y, names.length === 1));
  plot.replaceChildren(...grid(width, most, y, format, span(samples)), ...lines, ...(pointed ? [rule(x(pointed.at))] : []));
  showLegend(legend, names, pointed ?? samples.points.at(-1), format, pointed);
  plot.setAttribute("aria-label", `${title}: ${[...legend.children].map((item) => item.textContent).join(", ")}`);
}

function grid(width, most, y, format, shown) {
  const rows = [0, most / 2, most].flatMap((value) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
    svg("text", { class: "tick", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, value ? format(value) : "0"),
  ]);
  const label = (x, anchor, words) => svg("text", { class: "tick", x, y: HEIGHT - 4, "text-anchor": anchor }, words);
  return [...rows, label(MARGIN.left, "start", `${duration(shown)} ago`), label(width - MARGIN.right, "end", "now")];
}

/** A line that breaks where a value is missing. */
function line(points, name, number, x, y, filled) {
  let open = false;
  let [path, first, last] = ["", null, null];
  for (const { at, values } of points) {
    const value = values[name];
    if (typeof value === "number") {
      path += `${open ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      first ??= x(at);
      last = x(at);
    }
    open = typeof value === "number";
  }
  const whole = filled && path && !path.slice(1).includes("M");
  const area = whole && svg("path", { class: "area s0", d: `${path}L${last.toFixed(1)} ${y(0)}L${first.toFixed(1)} ${y(0)}Z` });
  return svg("g", { "clip-path": "none" }, area, svg("path", { class: `line s${number % 6}`, d: path }));
}

const rule = (x) => svg("line", { class: "rule", x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });

function showLegend(legend, names, point, format, pointed) {
  while (legend.childElementCount > names.length + 1) legend.lastElementChild.remove();
  while (legend.childElementCount < names.length + 1) legend.append(h("li", {}, h("span", { class: "swatch" }), h("span", {}), h("b", {})));
  const items = [...legend.children];
  names.forEach((name, number) => {
    const [swatch, label, value] = items[number].children;
    swatch.setAttribute("class", `swatch s${number % 6}`);
    const now = point?.values[name];
    setText(label, name);
    setText(value, typeof now === "number" ? format(now) : "–");
  });
  const [swatch, label, value] = items.at(-1).children;
  swatch.setAttribute("class", "");
  setText(label, pointed ? `at ${second(pointed.at)}` : "");
  setText(value, "");
}
