// How Sphinx's search ranks pages: first those whose headings hold the words, and where these are taught before all others.
// Sphinx puts this file before its own script, which asks for all of these numbers; they are its own, but for `score`.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  score([page, , , , score, file]) {
    const asked = new URLSearchParams(location.search).get("q") ?? "";
    const words = asked.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean);
    const at = Search._index.filenames.indexOf(file);
    const headings = Object.entries(Search._index.alltitles)
      .filter(([, places]) => places.some(([place]) => place === at))
      .map(([heading]) => heading.toLowerCase());
    const led = words.filter((word) => headings.some((heading) => heading.includes(word)));
    return score + 20 * led.length + (page.endsWith("/theory") ? 5 : 0);
  },
};

// A page from disk may not fetch others to quote them.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
