// The three pictures of a run as SVG in the page's own colours: loss, spectrum, old skills.
(() => {
const NS = "http://www.w3.org/2000/svg";

// An element of the page or, for the names of shapes, of an SVG.
const SHAPES = new Set(["svg", "g", "line", "rect", "circle", "polyline", "text"]);
function make(name, attributes = {}, ...children) {
  const made = SHAPES.has(name) ? document.createElementNS(NS, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function ticks(high, about) {
  const rough = high / about, size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((value) => value >= rough);
  return [...Array(Math.floor(high / step + 1e-9) + 1).keys()].map((i) => Number((i * step).toPrecision(6)));
}

// A plane with axes: `across` and `down` turn values into places.
function plane(width, { high, x, y, alt, xTicks, from, to }) {
  const height = 220, left = 46, right = 12, top = 26, bottom = 40, base = height - bottom;
  const svg = make("svg", { class: "ft-chart", width, height, role: "img", "aria-label": alt });
  const across = (value) => left + ((value - from) / (to - from)) * (width - left - right);
  const down = (value) => base - (Math.min(value, high) / high) * (base - top);
  svg.append(make("text", { x: 2, y: 13 }, y), make("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, x));
  for (const value of ticks(high, 4)) {
    svg.append(make("line", { class: "ft-grid", x1: left, x2: width - right, y1: down(value), y2: down(value) }));
    svg.append(make("text", { x: left - 6, y: down(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (const value of xTicks) svg.append(make("text", { x: across(value), y: base + 16, "text-anchor": "middle" }, String(value)));
  svg.append(make("line", { class: "ft-axis", x1: left, x2: width - right, y1: base, y2: base }));
  return { svg, across, down, base };
}

const DASHES = ["6 4", "2 3", "8 3 2 3"];

// The losses of this run, and of up to three earlier ones, dashed.
function lossChart(width, losses, steps, earlier) {
  const all = [...losses, ...earlier.flatMap((run) => run.losses)], high = Math.max(1, ...all) * 1.03;
  const last = losses.at(-1), to = Math.max(steps, ...earlier.map((run) => run.losses.length));
  const alt = losses.length ? `Loss of ${losses.length} steps: from ${losses[0].toFixed(2)} to ${last.toFixed(2)} nats per answer token` : "Loss of each step: nothing has run yet";
  const marks = ticks(to, 5).filter((value) => value > 0);
  const { svg, across, down } = plane(width, { high, x: "step", y: "nats per answer token", alt, xTicks: [1, ...marks.filter((value) => value > to / 12)], from: 1, to });
  const curve = (values, attributes) => svg.append(make("polyline", { points: values.map((value, i) => `${across(i + 1).toFixed(1)},${down(value).toFixed(1)}`).join(" "), ...attributes }));
  earlier.forEach((run, i) => curve(run.losses, { class: "ft-line ft-old", "stroke-dasharray": DASHES[i] }));
  if (losses.length) curve(losses, { class: "ft-line ft-s0" });
  if (losses.length) svg.append(make("circle", { class: "ft-dot", cx: across(losses.length), cy: down(last), r: 3.5 }));
  const named = [...(losses.length ? [{ name: "this run" }] : []), ...earlier];
  named.forEach(({ name }, i) => {
    const old = i > 0 || !losses.length, y = 38 + 16 * i, dash = old ? DASHES[i - (losses.length ? 1 : 0)] : undefined;
    svg.append(make("text", { x: width - 44, y: y + 4, "text-anchor": "end" }, name));
    svg.append(make("line", { class: `ft-line ${old ? "ft-old" : "ft-s0"}`, x1: width - 38, x2: width - 12, y1: y, y2: y, "stroke-dasharray": dash }));
  });
  return svg;
}

// A bar for each singular value.
function spectrumChart(width, values, layer) {
  const most = Math.max(...values, 0), high = most > 0 ? most * 1.1 : 1, count = values.length;
  const alt = most > 0 ? `Singular values of the update of ${layer}, largest first: ${values.slice(0, 8).map((value) => value.toPrecision(2)).join(", ")}` : "Singular values of the update: all are 0";
  const shown = count <= 8 ? values.map((_, i) => i + 1) : ticks(count, 4).map((value) => value || 1);
  const { svg, across, down, base } = plane(width, { high, x: "number of the singular value", y: "singular value", alt, xTicks: shown, from: 0.4, to: Math.max(count, 4) + 0.6 });
  const wide = Math.max(3, 0.7 * (across(2) - across(1)));
  values.forEach((value, i) => svg.append(make("rect", { class: "ft-bar", x: across(i + 1) - wide / 2, width: wide, y: down(value), height: Math.max(0, base - down(value)) })));
  return svg;
}

// For each skill a hollow dot before and a full one after.
function skillChart(width, rows) {
  const left = 84, right = 96, line = 21, top = 30, height = top + line * rows.length + 8;
  const said = rows.map(({ name, before, after }) => `${name} ${before.toFixed(2)}${after === undefined ? "" : ` to ${after.toFixed(2)}`}`);
  const svg = make("svg", { class: "ft-chart", width, height, role: "img", "aria-label": `Accuracy before and after: ${said.join("; ")}` });
  const across = (share) => left + share * (width - left - right);
  for (const share of [0, 0.5, 1]) {
    svg.append(make("line", { class: "ft-grid", x1: across(share), x2: across(share), y1: top - 8, y2: height - 8 }));
    svg.append(make("text", { x: across(share), y: 15, "text-anchor": "middle" }, String(share)));
  }
  rows.forEach(({ name, before, after, task }, i) => {
    const y = top + line * i + 4;
    svg.append(make("text", { x: left - 10, y: y + 4, "text-anchor": "end", class: task ? "ft-strong" : "" }, name));
    if (after !== undefined) svg.append(make("line", { class: `ft-line ${task ? "ft-s0" : "ft-s1"}`, x1: across(before), x2: across(after), y1: y, y2: y }));
    svg.append(make("circle", { class: "ft-before", cx: across(before), cy: y, r: 5 }));
    if (after !== undefined) svg.append(make("circle", { class: task ? "ft-dot" : "ft-dot ft-rust", cx: across(after), cy: y, r: 4.5 }));
    svg.append(make("text", { x: width - right + 12, y: y + 4 }, after === undefined ? before.toFixed(2) : `${before.toFixed(2)} → ${after.toFixed(2)}`));
  });
  return svg;
}

window.finetuneCharts = { make, lossChart, spectrumChart, skillChart };
})();
