// Starts a deck: formulas first, so that every slide has its final height, then the slides. `?print-pdf` prints.
const narrow = window.innerWidth < 600;
document.body.classList.toggle("narrow", narrow);

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
    pageReady: () => MathJax.startup.defaultPageReady().then(start),
  },
};
