// The page "Fine-tune in the tab": controls, what the worker says, and the pictures of it. The worker holds the model.
(() => {
const { make, lossChart, spectrumChart, skillChart } = window.finetuneCharts;
const LAYERS = ["q", "k", "v", "o", "gate", "up", "down"];
const DEFAULTS = { task: "flip", rank: 4, alpha: 8, rate: 0.001, steps: 60, targets: LAYERS };
const PRESETS = {
  "Default": {}, "Rank 1": { rank: 1, alpha: 2 }, "Rank 32": { rank: 32, alpha: 64 }, "Only q and v": { targets: ["q", "v"], rate: 0.003 },
  "Rate 0 (control)": { rate: 0 }, "Rate 0.03 (too high)": { rate: 0.03 },
};
const RATES = [0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03];
const TAIL = 10; // steps whose mean loss a run is judged by

const root = document.getElementById("finetune");
const parts = window.finetuneParts;
const state = { phase: "loading", before: {}, baseLooks: {}, runs: [], layer: "", line: 0 };
let worker, fields;

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const tail = (losses) => mean(losses.slice(-TAIL));
const kept = (measured) => mean(Object.keys(parts.tables.skills).map((name) => measured[name].accuracy));
const character = (id) => (id === 3 ? "end" : id === 32 ? "space" : id < 32 ? `special ${id}` : String.fromCharCode(id));

// ------------------------------------------------------------------------------------------------------------ controls

function field(label, control) {
  return make("label", { class: "ft-field" }, make("span", {}, label), control);
}

function select(name, options, chosen) {
  return make("select", { name }, ...options.map(([value, words]) => make("option", { value, selected: String(value) === String(chosen) }, words)));
}

const numbers = (values) => values.map((value) => [value, String(value)]);

function controls() {
  const { tasks } = parts.tables;
  const targets = LAYERS.map((name) => make("label", {}, make("input", { type: "checkbox", name: "targets", value: name, checked: true }), ` ${name}`));
  const form = make("form", { class: "ft-controls", onsubmit: (event) => event.preventDefault(), onchange: settingsChanged, oninput: settingsChanged });
  fields = make("fieldset", { class: "ft-all", disabled: true }, make("legend", { class: "ft-hidden" }, "Settings of the run"),
    make("div", { class: "ft-row" },
      field("task", select("task", Object.entries(tasks).map(([name, { says }]) => [name, `${name}: ${says}`]), "flip")),
      field("rank r", select("rank", numbers([1, 2, 4, 8, 16, 32]), 4)),
      field(make("output", { name: "scale" }), make("input", { name: "alpha", "aria-label": "alpha", type: "number", min: 0.5, max: 256, step: 0.5, value: 8 })),
      field("learning rate", select("rate", numbers(RATES), 0.001)),
      field("steps", select("steps", numbers([20, 60, 120]), 60))),
    make("fieldset", { class: "ft-targets" }, make("legend", {}, "matrices that get an adapter"), ...targets),
    make("div", { class: "ft-row", role: "group", "aria-label": "Settings to try" }, ...Object.entries(PRESETS).map(([name, more]) => make("button", { type: "button", class: "ft-small", onclick: () => preset(more) }, name))),
    field("your prediction: mean loss of the last ten steps (nats)", make("input", { name: "guess", type: "number", min: 0, max: 20, step: "any", placeholder: "optional" })));
  const buttons = make("div", { class: "ft-row" },
    make("button", { type: "button", name: "start", class: "ft-main", onclick: start }, "Start"),
    make("button", { type: "button", name: "pause", onclick: pause }, "Pause"),
    make("button", { type: "button", name: "reset", onclick: reset }, "Reset"),
    make("progress", { max: 1, value: 0, "aria-label": "Progress" }), make("span", { class: "ft-status" }));
  form.append(fields, buttons);
  return form;
}

function settings() {
  const form = root.querySelector("form"), number = (name) => Number(form.elements[name].value);
  const targets = [...form.querySelectorAll("[name=targets]:checked")].map((box) => box.value);
  return { task: form.elements.task.value, rank: number("rank"), alpha: number("alpha"), rate: number("rate"), steps: number("steps"), targets, seed: 0 };
}

function preset(more) {
  const form = root.querySelector("form"), asked = { ...DEFAULTS, task: settings().task, ...more };
  for (const name of ["rank", "alpha", "rate", "steps"]) form.elements[name].value = String(asked[name]);
  for (const box of form.querySelectorAll("[name=targets]")) box.checked = asked.targets.includes(box.value);
  settingsChanged();
}

function settingsChanged() {
  const { alpha, rank, targets, task } = settings(), form = root.querySelector("form");
  form.elements.scale.textContent = `alpha (α / r = ${Number((alpha / rank).toPrecision(3))})`;
  const fits = targets.length > 0 && alpha >= 0.5 && alpha <= 256;
  form.elements.start.disabled = !fits || !["idle", "done"].includes(state.phase);
  if (["idle", "done"].includes(state.phase)) status(fits ? state.words : targets.length ? "alpha must be from 0.5 to 256" : "choose at least one matrix");
  if (state.phase === "idle" && state.shownTask !== task) draw();
}

const status = (words) => { root.querySelector(".ft-status").textContent = words; };

// ----------------------------------------------------------------------------------------------------------------- run

function enter(phase, words) {
  const form = root.querySelector("form"), running = phase === "running";
  Object.assign(state, { phase, words });
  fields.disabled = !["idle", "done"].includes(phase);
  form.elements.pause.disabled = !running;
  form.elements.pause.textContent = "Pause";
  form.elements.reset.disabled = phase === "loading";
  settingsChanged();
  status(words);
}

function start() {
  const asked = settings(), guess = root.querySelector("form").elements.guess.value;
  Object.assign(state, { settings: asked, losses: [], spectra: {}, looks: null, after: null, paused: false, guess: guess === "" ? null : Number(guess) });
  root.querySelector(".ft-summary").textContent = "";
  enter("running", "starting");
  root.querySelector("form").elements.pause.focus();
  draw();
  worker.postMessage({ kind: "start", settings: asked });
}

function pause(event) {
  state.paused = !state.paused;
  event.target.textContent = state.paused ? "Go on" : "Pause";
  status(`${state.paused ? "paused at" : "at"} step ${state.losses.length} of ${state.settings.steps}`);
  worker.postMessage({ kind: "pause", paused: state.paused });
}

function reset() {
  worker.postMessage({ kind: "stop" });
  Object.assign(state, { settings: null, losses: [], spectra: {}, looks: null, after: null, runs: [] });
  root.querySelector("progress").value = 0;
  root.querySelector(".ft-summary").textContent = "";
  preset({});
  enter("idle", `ready: ${state.engine}`);
  draw();
  drawRuns();
}

const hear = {
  measured({ done, of }) {
    root.querySelector("progress").value = done / of;
    if (state.phase === "loading") status(`measuring the base model: ${done} of ${of} skills`);
    else if (state.phase === "measuring") status(`measuring: ${done} of ${of}`);
  },
  ready({ engine, before, looks }) {
    Object.assign(state, { engine, before, baseLooks: looks });
    root.querySelector("progress").value = 0;
    enter("idle", `ready: ${engine}`);
    draw();
  },
  started({ trained }) { state.trained = trained; },
  step({ step, loss, seconds }) {
    if (state.phase !== "running") return;
    state.losses.push(loss);
    root.querySelector("progress").value = step / state.settings.steps;
    status(`step ${step} of ${state.settings.steps}, loss ${loss.toFixed(3)}, ${seconds.toFixed(1)} s`);
    if (step === state.settings.steps) enter("measuring", "measuring the old skills");
    drawSoon();
  },
  look({ predictions, spectra }) {
    if (!state.settings) return;
    Object.assign(state, { looks: predictions, spectra });
    drawSoon();
  },
  done({ after, seconds }) {
    if (state.phase !== "measuring") return;
    state.after = after;
    state.finished = { ...state.settings, losses: state.losses, seconds, trained: state.trained, quality: after[state.settings.task].accuracy, kept: kept(after) };
    root.querySelector("progress").value = 1;
    enter("done", `${state.losses.length} steps in ${seconds.toFixed(1)} s, ${state.engine}`);
    root.querySelector(".ft-summary").textContent = summary(state.finished, after);
    state.runs.push(state.finished);
    draw();
    drawRuns();
    root.querySelector("form").elements.start.focus();
  },
  error({ words }) {
    enter("done", "stopped");
    root.querySelector(".ft-summary").textContent = `The run stopped: ${words}.`;
  },
};

function summary(run, after) {
  const { task, rank, losses, quality } = run, lost = Object.keys(parts.tables.skills).map((name) => [after[name].accuracy, name]).sort((a, b) => a[0] - b[0])[0];
  const was = state.before[task].accuracy.toFixed(2);
  const guessed = state.guess === null ? "" : ` You predicted ${state.guess}.`;
  const worst = lost[0] < 0.95 ? ` The skill that suffers most is ${lost[1]}: ${lost[0].toFixed(2)}.` : "";
  return `Rank ${rank} on ${task}: the mean loss of the last ten steps is ${tail(losses).toFixed(3)} nats per answer token.${guessed} ` +
    `Right answers on ${task}: ${was} before, ${quality.toFixed(2)} after. Old skills kept: ${kept(state.before).toFixed(2)} before, ${run.kept.toFixed(2)} after.${worst}`;
}

// -------------------------------------------------------------------------------------------------------------- panels

const runName = ({ task, rank, rate }) => `${task}, rank ${rank}, rate ${rate}`;

function panel(title, name, ...more) {
  return make("section", { class: "ft-panel", "aria-label": title }, make("h3", {}, title), ...more, make("div", { class: name }));
}

function put(name, made) {
  root.querySelector(`.${name}`).replaceChildren(made);
}

const room = (name) => Math.max(250, Math.floor(root.querySelector(`.${name}`).clientWidth));

function draw() {
  const task = (state.settings ?? settings()).task, losses = state.losses ?? [];
  state.shownTask = task;
  put("ft-loss", lossChart(room("ft-loss"), losses, (state.settings ?? settings()).steps, state.runs.filter((run) => run.losses !== losses).slice(-3).map((run) => ({ ...run, name: runName(run) }))));
  drawSpectrum();
  const at = (name) => ({ name, before: state.before[name]?.accuracy ?? 0, after: state.after?.[name]?.accuracy, task: name === task });
  if (state.before[task]) put("ft-skills", skillChart(room("ft-skills"), [task, ...Object.keys(parts.tables.skills)].map(at)));
  drawAnswer(task);
}

let waiting = false;
function drawSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

const length = (values) => Math.hypot(...values);

function drawSpectrum() {
  const names = Object.keys(state.spectra ?? {}), chooser = root.querySelector("[name=layer]");
  const longest = names.reduce((best, name) => (length(state.spectra[name]) > length(state.spectra[best]) ? name : best), names[0]);
  const said = (name) => `block ${name.replace(".", ", ")}`;
  if (chooser.dataset.names !== names.join()) {
    chooser.dataset.names = names.join();
    chooser.replaceChildren(make("option", { value: "" }, "the largest"), ...names.map((name) => make("option", { value: name }, said(name))));
  }
  const name = names.includes(chooser.value) ? chooser.value : longest, values = name ? state.spectra[name] : [];
  put("ft-spectrum", spectrumChart(room("ft-spectrum"), values, name ? said(name) : ""));
  const size = length(values);
  root.querySelector(".ft-spectrum-note").textContent = size > 0
    ? `${said(name)}: norm ${size.toPrecision(3)}, stable rank ${((size / values[0]) ** 2).toFixed(2)} (sum of squares over the largest square)`
    : names.length ? "The update is exactly 0." : "No update yet.";
}

function drawAnswer(task) {
  const chooser = root.querySelector("[name=line]"), lines = parts.tables.tasks[task].held, looks = state.baseLooks[task];
  if (!looks) return;
  if (chooser.dataset.task !== task) {
    chooser.dataset.task = task;
    chooser.replaceChildren(...looks.map((_, i) => make("option", { value: i }, `${lines[i][0]} → ${lines[i][1]}`)));
  }
  const base = looks[chooser.value], now = state.looks?.[chooser.value];
  const cell = (seen) => (seen ? `${seen.guess === seen.right ? "✓" : "✗"} ${character(seen.guess)} (${seen.pGuess.toFixed(2)})` : "");
  const rows = base.map((seen, i) => make("tr", {}, make("th", { scope: "row" }, character(seen.right)), make("td", {}, cell(seen)), make("td", {}, cell(now?.[i])), make("td", {}, now ? now[i].pRight.toFixed(2) : "")));
  const head = ["right token", "base says (p)", "tuned says (p)", "p(right), tuned"].map((words) => make("th", { scope: "col" }, words));
  put("ft-answer", make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
}

function drawRuns() {
  const head = ["task", "rank", "α", "rate", "matrices", "steps", "trained", "loss, last ten", "task right", "old skills kept", "seconds"];
  const cells = (run) => [run.task, run.rank, run.alpha, run.rate, run.targets.length === 7 ? "all" : run.targets.join(" "), run.steps, run.trained.toLocaleString("en"),
    tail(run.losses).toFixed(3), run.quality.toFixed(2), run.kept.toFixed(2), run.seconds.toFixed(1)];
  const rows = state.runs.map((run) => make("tr", {}, ...cells(run).map((value) => make("td", {}, String(value)))));
  const table = make("table", {}, make("caption", {}, "Your runs on this page"), make("thead", {}, make("tr", {}, ...head.map((words) => make("th", { scope: "col" }, words)))), make("tbody", {}, ...rows));
  put("ft-runs", rows.length ? make("div", { class: "ft-wide", tabindex: 0, role: "region", "aria-label": "Your runs" }, table) : "");
}

// --------------------------------------------------------------------------------------------------------------- begin

function build() {
  const recorded = root.querySelector(".ft-twin");
  const layer = field("matrix", make("select", { name: "layer", onchange: () => draw() }));
  const line = field("new line", make("select", { name: "line", onchange: () => draw() }));
  root.replaceChildren(controls(), make("p", { class: "ft-summary", role: "status", "aria-live": "polite" }),
    make("div", { class: "ft-panels" },
      panel("Loss of each step", "ft-loss"),
      panel("Spectrum of the update", "ft-spectrum", layer, make("p", { class: "ft-note ft-spectrum-note" })),
      panel("Accuracy: before (hollow) and after (full)", "ft-skills"),
      panel("An answer, token by token", "ft-answer", line, make("p", { class: "ft-note" }, "Each token is read after the right ones before it."))),
    make("div", { class: "ft-runs" }));
  if (recorded) root.append(make("details", {}, make("summary", {}, "Recorded runs of the library"), recorded));
}

function begin() {
  build();
  enter("loading", "loading the model");
  worker = new Worker(URL.createObjectURL(new Blob([parts.code], { type: "text/javascript" })));
  worker.onmessage = ({ data: { kind, ...said } }) => hear[kind](said);
  worker.onerror = (event) => hear.error({ words: event.message });
  const weights = Uint8Array.from(atob(parts.weights), (letter) => letter.charCodeAt(0)).buffer;
  const plain = new URLSearchParams(location.search).has("plain"); // to see the page without WebAssembly
  worker.postMessage({ kind: "load", weights, data: parts.tables, simd: !plain }, [weights]);
  draw();
  new ResizeObserver(drawSoon).observe(root);
}

begin();
})();
