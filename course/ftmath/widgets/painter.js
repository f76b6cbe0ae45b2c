// Paint which tokens are learned; the loss is the mean of what is painted: sum(mask * nll) / sum(mask).
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

export function maskedMean(nll, mask) {
  const chosen = nll.filter((_, place) => mask[place]);
  return chosen.length ? chosen.reduce((sum, value) => sum + value, 0) / chosen.length : NaN;
}

function render({ model, el }) {
  const { title, tokens, nll } = model.get("line");
  const root = element("div", { class: "ftmath-painter", role: "group", "aria-label": title });
  root.append(element("div", { class: "ftm-heading", role: "heading", "aria-level": "4" }, title));
  const row = element("div", { class: "ftm-tokens" });
  const said = element("div", { class: "ftm-readouts", "aria-live": "polite" });
  const buttons = tokens.map((token, place) => {
    const button = element("button", { type: "button", "data-lm-suppress-shortcuts": "true" }, token);
    button.append(element("small", {}, place ? nll[place].toFixed(2) : "no target"));
    button.disabled = place === 0;
    button.addEventListener("click", () => {
      const mask = [...model.get("mask")];
      mask[place] = mask[place] ? 0 : 1;
      model.set("mask", mask);
      model.save_changes();
      draw();
    });
    row.append(button);
    return button;
  });
  function draw() {
    const mask = model.get("mask");
    buttons.forEach((button, place) => {
      button.setAttribute("aria-pressed", mask[place] ? "true" : "false");
      button.setAttribute("aria-label", `${tokens[place]}, ${place ? `${nll[place].toFixed(2)} nats, ${mask[place] ? "learned" : "not learned"}` : "never a target"}`);
    });
    const loss = maskedMean(nll, mask);
    const lines = [["targets", String(mask.reduce((sum, value) => sum + value, 0))], ["loss, nats per target", Number.isNaN(loss) ? "undefined: no target" : loss.toFixed(4)], ["perplexity", Number.isNaN(loss) ? "–" : Math.exp(loss).toFixed(2)]];
    said.replaceChildren(...lines.map(([name, words]) => pair(name, words)));
  }
  model.on("change:mask", draw);
  root.append(row, said);
  el.append(root);
  draw();
}

export default { render };
