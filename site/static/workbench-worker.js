// Python in a worker: the page may end it at any time. It asks the site for Python and the checks, and nobody else.
import { loadPyodide } from "./pyodide/pyodide.mjs";

const home = new URL("./pyodide/", import.meta.url).href;

async function start() {
  const python = await loadPyodide({ indexURL: home, stdin: () => null });
  const archive = await fetch(`${home}ftmath.zip`);
  if (!archive.ok) throw new Error(`${archive.url} answers ${archive.status}`);
  python.unpackArchive(await archive.arrayBuffer(), "zip", { extractDir: "/home/pyodide" });
  return python.runPython(`
import os, sys
os.environ["FTMATH_PROGRESS"] = "/tmp/progress.json"
sys.path.insert(0, "/home/pyodide")
import bench
bench.kinds()
bench.answered
`);
}

const answered = start();
answered.then(() => postMessage({ ready: true }), (error) => postMessage({ broken: String(error) }));

onmessage = async ({ data }) => {
  const ask = await answered;
  try {
    postMessage({ reply: JSON.parse(ask(JSON.stringify(data))) });
  } catch (error) {
    postMessage({ broken: String(error) });
  }
};
