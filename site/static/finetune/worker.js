// The worker of the page "Fine-tune in the tab": it holds the model, trains in small bites, and says what it sees.

const LOOK_EVERY = 5; // steps between two looks at an example and at the spectra
const EXAMPLES = 6; // lines whose answers the page shows
let trainer, tables, run = null;

const say = (kind, more = {}) => self.postMessage({ kind, ...more });
const breathe = () => new Promise((done) => setTimeout(done)); // lets a message in

// Accuracy and loss on each old skill and on the task; the page hears of each as it's found.
async function measureAll(task, mine = () => true) {
  const found = {}, sets = { ...tables.skills, ...(task ? { [task]: tables.tasks[task].held } : {}) };
  for (const [name, lines] of Object.entries(sets)) {
    found[name] = trainer.measure(lines);
    say("measured", { name, of: Object.keys(sets).length, done: Object.keys(found).length });
    await breathe();
    if (!mine()) return null;
  }
  return found;
}

async function load({ weights, data, simd }) {
  tables = data;
  trainer = new Trainer(readWeights(new Uint8Array(weights)), simd);
  const before = await measureAll(null);
  for (const [task, { held }] of Object.entries(tables.tasks)) before[task] = trainer.measure(held);
  const looks = Object.fromEntries(Object.keys(tables.tasks).map((task) => [task, predictions(task)]));
  say("ready", { engine: trainer.heap.simd ? "WebAssembly with SIMD" : "plain JavaScript", before, looks });
}

const predictions = (task) => tables.tasks[task].held.slice(0, EXAMPLES).map((line) => trainer.predict(line));

function look() {
  say("look", { predictions: predictions(run.settings.task), spectra: trainer.spectra() });
}

async function start(settings) {
  const mine = (run = { settings, paused: false, seconds: 0 });
  const { batches } = tables.tasks[settings.task];
  trainer.reset(settings);
  say("started", { trained: trainer.trained });
  while (run === mine && trainer.steps < settings.steps) {
    if (!mine.paused) bite(mine, batches);
    await (mine.paused ? new Promise((done) => setTimeout(done, 50)) : breathe());
  }
  if (run !== mine) return;
  look();
  const after = await measureAll(settings.task, () => run === mine);
  if (after) say("done", { after, seconds: mine.seconds });
}

function bite(mine, batches) {
  const begun = performance.now();
  const loss = trainer.step(batches[trainer.steps]);
  mine.seconds += (performance.now() - begun) / 1000;
  say("step", { step: trainer.steps, loss, seconds: mine.seconds });
  if (trainer.steps % LOOK_EVERY === 0) look();
}

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "load") await load(data);
    if (data.kind === "start") await start(data.settings);
    if (data.kind === "pause") run.paused = data.paused;
    if (data.kind === "stop") run = null;
  } catch (error) {
    run = null;
    say("error", { words: error.message });
  }
};
