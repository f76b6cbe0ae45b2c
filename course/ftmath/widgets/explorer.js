// An explorer is a function of its sliders, tabulated by Python: this file only looks a frame up and draws it.
const NS = "http://www.w3.org/2000/svg";
const DASHES = ["", "6 4", "2 3", "8 3 2 3"];

// Classes have a prefix of their own: a page may carry another style sheet's `row` and `dl`.
function pair(name, words) {
  const made = element("div", { class: "ftm-pair" });
  made.append(element("span", { class: "ftm-name" }, name), element("span", { class: "ftm-value" }, words));
  return made;
}

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

const short = (value) => {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(3)));
};

function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 3 || 1));
  const wide = (high - low) / step > 8 ? 5 * step : (high - low) / step > 4 ? 2 * step : step;
  const found = [];
  for (let at = Math.ceil(low / wide) * wide; at <= high + 1e-9 * wide; at += wide) found.push(Math.abs(at) < wide / 1e6 ? 0 : at);
  return found;
}

// An interval on a bar: a vertical line with a cap at each end.
function whisker(x, low, high) {
  const d = `M${x} ${low}L${x} ${high}M${x - 4} ${low}L${x + 4} ${low}M${x - 4} ${high}L${x + 4} ${high}`;
  return shape("path", { d, class: "whisker" });
}

// The words of a title in lines that fit a width.
function wrapped(words, room) {
  const lines = [""];
  for (const word of words.split(" ")) {
    const longer = `${lines[lines.length - 1]} ${word}`.trim();
    if (7.2 * longer.length <= room) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.filter(Boolean);
}

// A panel: bars over named places, lines over numbers, or points with names; `mark` is a dot that follows the slider.
export function drawPanel(panel, width) {
  const left = 56, right = 20, inside = width - left - right, title = wrapped(panel.title, width - left);
  // Names that are wider than their place stand in rows, one below the other.
  const named = panel.kind === "bars" && panel.x.some((name) => typeof name === "string");
  const widest = named ? 6.4 * Math.max(...panel.x.map((name) => name.length)) : 0;
  const rows = Math.max(1, Math.min(5, Math.ceil((widest * panel.x.length) / inside)));
  const top = 16 + 14 * title.length, bottom = 32 + 12 * rows, height = 156 + top + bottom;
  const svg = shape("svg", { width, height, role: "img", "aria-label": panel.alt });
  const tall = height - top - bottom;
  const values = panel.series.flatMap((series) => series.y).concat(panel.mark ? [panel.mark.y] : []);
  const low = panel.low ?? Math.min(0, ...values), high = panel.high ?? Math.max(...values, low + 1e-9);
  const down = (value) => top + tall * (1 - (Math.min(Math.max(value, low), high) - low) / (high - low));
  title.forEach((line, number) => svg.append(shape("text", { x: left, y: 16 + 14 * number, class: "title" }, line)));
  for (const at of ticks(low, high)) {
    svg.append(shape("line", { x1: left, x2: width - right, y1: down(at), y2: down(at), class: "grid" }));
    svg.append(shape("text", { x: left - 6, y: down(at) + 4, "text-anchor": "end" }, short(at)));
  }
  svg.append(shape("text", { x: left + inside / 2, y: height - 6, "text-anchor": "middle" }, panel.x_label));
  svg.append(shape("text", { x: 12, y: top + tall / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${top + tall / 2})` }, panel.y_label));
  if (panel.kind === "bars") {
    const slot = inside / panel.x.length, each = (slot * 0.8) / panel.series.length;
    panel.series.forEach((series, number) => {
      series.y.forEach((value, place) => {
        const x = left + slot * (place + 0.1) + each * number;
        const kept = !series.on || series.on[place];
        const y = Math.min(down(value), down(Math.max(0, low)));
        svg.append(shape("rect", { x, y, width: Math.max(1, each - 1), height: Math.max(0.5, Math.abs(down(value) - down(Math.max(0, low)))), class: `s${number} ${kept ? "" : "hollow"}` }));
        if (series.ends) svg.append(whisker(x + (each - 1) / 2, ...series.ends[place].map(down)));
      });
    });
    const every = named ? 1 : Math.ceil((panel.x.length * 34) / inside);
    panel.x.forEach((name, place) => {
      const half = 3.6 * String(name).length, y = height - bottom + 13 + 12 * (place % rows);
      const x = Math.max(half, Math.min(width - half, left + slot * (place + 0.5)));
      if (place % every === 0) svg.append(shape("text", { x, y, "text-anchor": "middle" }, String(name)));
    });
  } else if (panel.kind === "points") {
    const scale = panel.log_x ? Math.log10 : (value) => value;
    const least = Math.min(...panel.x), most = Math.max(...panel.x);
    const along = (value) => left + 8 + ((inside - 16) * (scale(value) - scale(least))) / (scale(most) - scale(least) || 1);
    const written = [];
    panel.series.forEach((series, number) => {
      series.y.forEach((value, place) => {
        const kept = !series.on || series.on[place];
        const dot = shape("circle", { cx: along(panel.x[place]), cy: down(value), r: kept ? 5.5 : 4, class: `s${number} ${kept ? "" : "hollow"}` });
        dot.append(shape("title", {}, panel.names[place]));
        svg.append(dot);
        if (!kept) return;
        const end = along(panel.x[place]) > left + inside / 2, wide = 6 * panel.names[place].length;
        const x = along(panel.x[place]) + (end ? -8 : 8), from = end ? x - wide : x;
        let y = down(value) + 4;
        // A name that would lie on another one moves down.
        while (written.some((other) => Math.abs(other.y - y) < 11 && other.from < from + wide && from < other.from + other.wide)) y += 3;
        written.push({ from, wide, y });
        svg.append(shape("text", { x, y, "text-anchor": end ? "end" : "start" }, panel.names[place]));
      });
    });
    const shown = panel.log_x ? [least, Math.sqrt(least * most), most] : ticks(least, most);
    for (const at of shown) svg.append(shape("text", { x: along(at), y: height - bottom + 15, "text-anchor": "middle" }, short(at)));
  } else {
    const scale = panel.log_x ? Math.log10 : (value) => value;
    const first = scale(panel.x[0]), last = scale(panel.x[panel.x.length - 1]);
    const along = (value) => left + (inside * (scale(value) - first)) / (last - first || 1);
    panel.series.forEach((series, number) => {
      const path = series.y.map((value, place) => `${place ? "L" : "M"}${along(panel.x[place]).toFixed(1)} ${down(value).toFixed(1)}`).join("");
      svg.append(shape("path", { d: path, class: `line s${number}`, "stroke-dasharray": DASHES[number % 4] }));
    });
    const shown = panel.log_x ? [panel.x[0], panel.x[Math.floor(panel.x.length / 2)], panel.x[panel.x.length - 1]] : ticks(panel.x[0], panel.x[panel.x.length - 1]);
    for (const at of shown) svg.append(shape("text", { x: along(at), y: height - bottom + 15, "text-anchor": "middle" }, short(at)));
    if (panel.mark) {
      svg.append(shape("line", { x1: along(panel.mark.x), x2: along(panel.mark.x), y1: top, y2: top + tall, class: "mark" }));
      svg.append(shape("circle", { cx: along(panel.mark.x), cy: down(panel.mark.y), r: 5, class: "dot" }));
    }
  }
  return svg;
}

function legend(panel) {
  const list = element("ul", { class: "ftm-legend" });
  panel.series.forEach((series, number) => {
    const item = element("li");
    const key = shape("svg", { width: 26, height: 10, "aria-hidden": "true" });
    if (panel.kind === "bars") key.append(shape("rect", { x: 8, y: 0, width: 10, height: 10, class: `s${number}` }));
    else key.append(shape("path", { d: "M1 5L25 5", class: `line s${number}`, "stroke-dasharray": DASHES[number % 4] }));
    item.append(key, document.createTextNode(series.name));
    list.append(item);
  });
  return list;
}

function render({ model, el }) {
  const table = model.get("table");
  const root = element("div", { class: "ftmath-explorer", role: "group", "aria-label": table.title });
  root.append(element("div", { class: "ftm-heading", role: "heading", "aria-level": "4" }, table.title));
  const controls = element("div", { class: "ftm-controls" });
  const said = element("div", { class: "ftm-readouts", "aria-live": "polite" });
  const panels = element("div", { class: "ftm-panels" });
  const state = [...model.get("state")];
  const readers = table.sliders.map((slider, number) => {
    const id = `ftmath-${Math.random().toString(36).slice(2)}`;
    const label = element("label", { for: id }, slider.label);
    const input = element("input", { id, type: "range", min: 0, max: slider.values.length - 1, step: 1, "data-lm-suppress-shortcuts": "true" });
    const output = element("output", { for: id });
    input.value = state[number];
    input.addEventListener("input", () => {
      state[number] = Number(input.value);
      draw();
    });
    input.addEventListener("change", () => {
      model.set("state", [...state]);
      model.save_changes();
    });
    const row = element("div", { class: "ftm-row" });
    row.append(label, input, output);
    controls.append(row);
    return { input, output, slider };
  });
  function frame() {
    return table.frames[state.reduce((place, at, number) => place * table.sliders[number].values.length + at, 0)];
  }
  function draw() {
    const now = frame();
    readers.forEach(({ input, output, slider }, number) => {
      const words = slider.names[state[number]];
      output.textContent = words;
      input.setAttribute("aria-valuetext", words);
    });
    const width = Math.max(260, Math.min(520, Math.floor((root.clientWidth || 640) / (root.clientWidth > 700 ? now.panels.length : 1)) - 18));
    panels.replaceChildren(...now.panels.map((panel) => {
      const box = element("div", { class: "ftm-panel" });
      box.append(drawPanel(panel, width));
      if (panel.series.length > 1) box.append(legend(panel));
      return box;
    }));
    said.replaceChildren(...now.readouts.map(([name, words]) => pair(name, words)));
  }
  model.on("change:state", () => {
    model.get("state").forEach((at, number) => {
      state[number] = at;
      readers[number].input.value = at;
    });
    draw();
  });
  root.append(controls, said, panels);
  el.append(root);
  const watcher = new ResizeObserver(draw);
  watcher.observe(root);
  draw();
  return () => watcher.disconnect();
}

export default { render };
