// A bench under an exercise: an editor, Check, Hint, Solution, Reset and Stop. Python runs in a worker that can be ended.
// No module, since a browser loads none from disk, where this file still says how to serve the pages.
(() => {
"use strict";
const LIMIT_SECONDS = 10, START_SECONDS = 120;
const GLYPHS = { right: "✓", wrong: "✗", "not started": "–" };
const SAYS = { right: "right", wrong: "not right yet", "not started": "not started" };
const here = new URL(".", document.currentScript.src);

// ---------------------------------------------------------------------------------------------------- what is kept

function kept(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`ftmath:${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`ftmath:${name}`, JSON.stringify(value));
  } catch {
    // A browser that keeps nothing loses the note, not the lesson.
  }
}

// -------------------------------------------------------------------------------------------------------- Python

class Python {
  start() {
    if (this.ready) return this.ready;
    this.worker = new Worker(new URL("workbench-worker.js", here), { type: "module" });
    this.ready = this.next(START_SECONDS, "Python didn't start");
    this.ready.catch(() => this.end());
    return this.ready;
  }

  next(seconds, late) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.end(late), seconds * 1000);
      const done = (settle, value) => {
        clearTimeout(timer);
        this.fail = undefined;
        settle(value);
      };
      this.fail = (words) => done(reject, new Error(words));
      this.worker.onmessage = ({ data }) => {
        if (data.broken) this.end(`Python broke down (${data.broken.slice(0, 200)}); the next check starts it anew.`);
        else done(resolve, data.reply);
      };
      this.worker.onerror = () => this.end("Python couldn't be loaded from this site.");
    });
  }

  async ask(request) {
    await this.start();
    this.worker.postMessage(request);
    return this.next(LIMIT_SECONDS, `Stopped: no answer after ${LIMIT_SECONDS} seconds. Does a loop never end?`);
  }

  end(words) {
    this.worker?.terminate();
    this.worker = this.ready = undefined;
    this.fail?.(words);
  }
}

const python = new Python();
let busy = false;

// ------------------------------------------------------------------------------------------------------- the editor

function insert(editor, text) {
  // The browser's own command keeps the way back (undo); it's all that some browsers offer for that.
  if (!document.execCommand("insertText", false, text)) editor.setRangeText(text, editor.selectionStart, editor.selectionEnd, "end");
}

function indent(editor, back) {
  const { value, selectionStart: from, selectionEnd: to } = editor;
  const start = value.lastIndexOf("\n", from - 1) + 1;
  if (!back && from === to) return insert(editor, " ".repeat(4 - ((from - start) % 4)));
  const lines = value.slice(start, to).split("\n");
  const moved = lines.map((line) => (back ? line.replace(/^ {1,4}/, "") : `    ${line}`)).join("\n");
  editor.setSelectionRange(start, to);
  insert(editor, moved);
  editor.setSelectionRange(from === to ? start + moved.length : start, start + moved.length);
}

function newLine(editor) {
  const before = editor.value.slice(0, editor.selectionStart);
  const line = before.slice(before.lastIndexOf("\n") + 1);
  insert(editor, `\n${line.match(/^ */)[0]}${/:\s*$/.test(line) ? "    " : ""}`);
}

function typed(editor, check) {
  let leaving = false;
  return (event) => {
    if (event.key === "Escape") leaving = true;
    else if (event.key === "Tab" && leaving) leaving = false;
    else if (event.key === "Tab") event.preventDefault(), indent(editor, event.shiftKey);
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.preventDefault(), check();
    else if (event.key === "Enter" && !event.shiftKey) event.preventDefault(), newLine(editor);
    else if (event.key !== "Shift") leaving = false;
  };
}

// --------------------------------------------------------------------------------------------------------- a bench

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function built(place, mark, stub) {
  const id = `bench-${mark.number.replace(/\W/g, "-")}`;
  const editor = element("textarea", {
    id, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", "aria-describedby": `${id}-keys`,
  });
  editor.value = kept("answers", {})[mark.number] ?? stub;
  editor.rows = Math.min(30, Math.max(6, stub.split("\n").length + 3));
  const buttons = element("div", { class: "workbench-buttons" });
  const state = element("span", { class: "workbench-state" });
  const said = element("div", { class: "workbench-said", role: "status", "aria-live": "polite" });
  place.append(
    element("label", { for: id }, `Your answer: ${mark.title}`, state), editor,
    element("p", { class: "workbench-keys", id: `${id}-keys` }, "Tab indents; Esc, then Tab, leaves the editor. Ctrl+Enter checks."),
    buttons, said,
  );
  place.setAttribute("role", "group");
  place.setAttribute("aria-label", `Try ${mark.title}`);
  return { mark, stub, editor, buttons, said, state };
}

function statusOf({ mark }) {
  return mark.kind === "check" ? kept("progress", {})[mark.number]?.status : kept("functions", {})[mark.number];
}

function showState(bench) {
  const status = statusOf(bench);
  bench.state.textContent = status ? `${GLYPHS[status]} ${SAYS[status]}` : "";
  bench.state.dataset.status = status ?? "";
}

function say(bench, status, title, ...more) {
  bench.said.dataset.status = status;
  bench.said.replaceChildren(element("strong", {}, title), ...more);
}

function show(bench, asked, reply) {
  const { mark } = bench;
  if (mark.kind === "check") keep("progress", reply.progress);
  else if (asked === mark.kind && reply.status !== "not started" && kept("functions", {})[mark.number] !== "right") {
    keep("functions", { ...kept("functions", {}), [mark.number]: reply.status });
  }
  const title = reply.title ?? `${GLYPHS[reply.status]} ${mark.title}: ${SAYS[reply.status]}`;
  const more = reply.words ? [element(reply.code || reply.listed ? "pre" : "p", { tabindex: "0" }, reply.words)] : [];
  if (more[0]?.tagName === "P") more[0].removeAttribute("tabindex");
  if (reply.printed) more.push(element("p", {}, "Your answer printed:"), element("pre", { tabindex: "0" }, reply.printed));
  say(bench, reply.status ?? "help", title, ...more);
  showState(bench);
}

async function ask(bench, kind) {
  if (busy) return;
  busy = true;
  bench.buttons.dataset.busy = "";
  const { mark, editor } = bench;
  say(bench, "busy", python.ready ? "Checking …" : "Starting Python (13 MB, from this site) …");
  try {
    show(bench, kind, await python.ask({ ...mark, kind, text: editor.value, progress: kept("progress", {}) }));
  } catch (error) {
    say(bench, "wrong", error.message);
  }
  delete bench.buttons.dataset.busy;
  busy = false;
}

function reset(bench) {
  bench.editor.focus();
  bench.editor.select();
  insert(bench.editor, bench.stub);
  say(bench, "help", "The beginning is back. Undo brings your answer back.");
}

function button(text, action) {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", action);
  return made;
}

function equip(place, mark, cell) {
  const bench = built(place, mark, cell.querySelector(".cell_input pre").textContent.replace(/\n+$/, ""));
  const check = () => ask(bench, mark.kind);
  bench.buttons.append(button("Check", check));
  if (mark.kind === "check") {
    bench.buttons.append(button("Hint", () => ask(bench, "hint")), button("Solution", () => ask(bench, "solution")));
  }
  bench.buttons.append(button("Reset", () => reset(bench)));
  const stop = button("Stop", () => python.end("Stopped. The next check starts Python anew."));
  stop.className = "workbench-stop";
  bench.buttons.append(stop);
  bench.editor.addEventListener("keydown", typed(bench.editor, check));
  bench.editor.addEventListener("focus", () => python.start().catch(() => {}), { once: true });
  bench.editor.addEventListener("input", () => {
    keep("answers", { ...kept("answers", {}), [mark.number]: bench.editor.value });
  });
  showState(bench);
}

function cellsAfter(place, count) {
  const found = [];
  for (let next = place.nextElementSibling; next && found.length < count; next = next.nextElementSibling) {
    if (!next.classList.contains("cell")) break;
    found.push(next);
  }
  return found;
}

const HOW = "Exercises run in the page once it is served: run “python -m http.server” in the site's folder and open http://localhost:8000.";

function main() {
  const places = [...document.querySelectorAll(".workbench")];
  if (location.protocol === "file:") {
    places.slice(0, 1).forEach((place) => {
      place.append(element("p", {}, HOW));
      place.hidden = false;
    });
    return;
  }
  for (const place of places) {
    const mark = JSON.parse(place.dataset.bench);
    const cell = place.previousElementSibling;
    equip(place, mark, cell);
    [cell, ...cellsAfter(place, mark.hides)].forEach((one) => { one.hidden = true; });
    place.hidden = false;
  }
}

main();
})();
