// Draws the figures of this page when they come into view. Everything is in the page: nothing is requested.
"use strict";
const scheme = matchMedia("(prefers-color-scheme: dark)");
const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]] };
let figures = null, library = null;

async function inflate(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function load() {
  library ??= (async () => {
    const [code, text] = await Promise.all([inflate("plotly"), inflate("figures")]);
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    figures = JSON.parse(text);
  })();
  return library;
}

// The figures name three colours that follow the page: text, quiet text, grid lines.
function themed(text) {
  const style = getComputedStyle(document.documentElement);
  const swap = { "#1F2329": "--ink", "#69707A": "--muted", "#DFE3E8": "--grid" };
  return JSON.parse(text.replace(/#1F2329|#69707A|#DFE3E8/g, hex => style.getPropertyValue(swap[hex]).trim()));
}

async function draw(plot) {
  if (plot.dataset.drawn === String(scheme.matches)) return;
  plot.dataset.drawn = String(scheme.matches);
  try {
    await load();
    const { data, layout } = themed(figures[plot.dataset.figure]);
    plot.querySelector(".waiting")?.remove();
    await Plotly.react(plot, data, layout, config);
  } catch (error) {
    plot.textContent = `This drawing could not be made (${error.message}); its numbers are in the table below it.`;
  }
}

const plots = [...document.querySelectorAll(".plot")];
const watcher = new IntersectionObserver(
  entries => entries.filter(entry => entry.isIntersecting).forEach(entry => draw(entry.target)),
  { rootMargin: "400px" },
);
plots.forEach(plot => watcher.observe(plot));
scheme.addEventListener("change", () => plots.filter(plot => plot.dataset.drawn).forEach(draw));
addEventListener("beforeprint", () => plots.forEach(draw));
