"use strict";
// Sort and filter the tables of students. The page reads the same without it.
const tables = [...document.querySelectorAll("table.people")];
const rowsOf = (table) => [...table.tBodies[0].rows];

function key(cell) {
  const text = cell ? cell.textContent.trim() : "";
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
}

function compare(one, other) {
  if (typeof one === typeof other) return typeof one === "number" ? one - other : one.localeCompare(other);
  return typeof one === "number" ? 1 : -1; // what is no number counts less
}

function sort(table, place, header) {
  const rising = header.getAttribute("aria-sort") === "descending" || (place === 0 && !header.hasAttribute("aria-sort"));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const sorted = rowsOf(table).map((row) => [key(row.cells[place]), row]);
  sorted.sort((one, other) => (rising ? 1 : -1) * compare(one[0], other[0]));
  table.tBodies[0].append(...sorted.map((pair) => pair[1]));
}

for (const table of tables) {
  [...table.tHead.rows[0].cells].forEach((header, place) => {
    if (header.classList.contains("drawn")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "\u2195";
    button.setAttribute("aria-label", `sort by ${header.textContent.trim()}`);
    button.addEventListener("click", () => sort(table, place, header));
    header.append(button);
  });
}

const tools = document.getElementById("tools");
const all = tables.flatMap(rowsOf);
const sections = [...new Set(all.map((row) => row.dataset.section || ""))].sort();
const search = document.createElement("input");
const choice = document.createElement("select");

function filter() {
  const words = search.value.trim().toLowerCase();
  for (const row of all) {
    const named = row.cells[0].textContent.toLowerCase().includes(words);
    row.hidden = !named || (choice.value !== "" && row.dataset.section !== choice.value);
  }
}

function label(words, field) {
  const made = document.createElement("label");
  made.append(words, field);
  field.addEventListener("input", filter);
  tools.append(made);
}

if (tools) {
  search.type = "search";
  label("Find a student", search);
  choice.append(new Option("all", ""), ...sections.filter(Boolean).map((name) => new Option(name, name)));
  if (choice.length > 1) label("Section", choice);
}
