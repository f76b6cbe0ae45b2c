// Mount each widget in place of its static twin, and tell outputs whether the page is light or dark.
"use strict";

// What a widget asks of its notebook: values by name, and to be called when one changes. Nothing is saved here.
function modelOf(values) {
  const heard = new Map();
  return {
    get: (name) => values[name],
    set(name, value) {
      values[name] = value;
      (heard.get(`change:${name}`) ?? []).forEach((hear) => hear());
    },
    on: (event, hear) => heard.set(event, [...(heard.get(event) ?? []), hear]),
    off: (event) => heard.delete(event),
    save_changes() {},
  };
}

// The twin goes last: a widget that can't be drawn leaves it standing.
function mount(place) {
  const values = JSON.parse(place.querySelector(":scope > script").textContent);
  const made = document.createElement("div");
  place.append(made);
  ftmathWidgets[place.dataset.kind].render({ model: modelOf(values), el: made });
  place.replaceChildren(made);
  place.dataset.mounted = "";
}

// Outputs ask for JupyterLab's word for it; the theme's choice is the reader's, or else the machine's.
const system = matchMedia("(prefers-color-scheme: dark)");
function tellTheme() {
  const chosen = document.body.dataset.theme;
  document.body.dataset.jpThemeLight = String(chosen === "light" || (chosen !== "dark" && !system.matches));
}

document.addEventListener("DOMContentLoaded", () => {
  tellTheme();
  new MutationObserver(tellTheme).observe(document.body, { attributeFilter: ["data-theme"] });
  system.addEventListener("change", tellTheme);
  document.querySelectorAll(".ftmath-live").forEach(mount);
});
