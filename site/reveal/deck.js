// Starts a deck: formulas first, so that every slide has its final height, then the slides. `?print-pdf` prints.
const narrow = window === window.top && window.innerWidth < 600; // not a small preview in the speaker's view
document.body.classList.toggle("narrow", narrow);

// The speaker's view copies the notes but not MathJax's style sheet: there each formula is the MathML that browsers draw.
function plainNotes() {
  for (const formula of document.querySelectorAll("aside.notes mjx-container")) {
    formula.replaceWith(formula.querySelector("math"));
  }
}

function start() {
  return Reveal.initialize({
    width: narrow ? 480 : 1280,
    height: narrow ? 960 : 720,
    margin: narrow ? 0.04 : 0.07,
    center: false,
    hash: true,
    transition: "none",
    slideNumber: "c/t",
    scrollActivationWidth: null,
    pdfMaxPagesPerSlide: 1,
    pdfSeparateFragments: false,
    plugins: [RevealNotes],
  });
}

window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]], processEnvironments: false },
  svg: { fontCache: "local" },
  options: { enableMenu: false, processHtmlClass: "math", ignoreHtmlClass: "slides" },
  startup: {
    pageReady: () => MathJax.startup.defaultPageReady().then(plainNotes).then(start),
  },
};
