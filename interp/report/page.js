// Draws the figures of this page. Everything is in the page: nothing is requested.
"use strict";
const scheme = matchMedia("(prefers-color-scheme: dark)");
const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]] };
let figures = null, library = null;

async function inflate(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), c => c.charCodeAt(0));
  const gzip = new DecompressionStream("gzip");
  const writer = gzip.writable.getWriter();
  writer.write(bytes);
  writer.close();
  return new Response(gzip.readable).text();
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
const pause = () => new Promise(resolve => setTimeout(resolve));

// From the top down, with a breath between two, so that the page stays responsive; hidden panels when they are opened.
async function drawVisible() {
  for (const plot of plots) {
    if (plot.offsetParent === null || plot.dataset.drawn === String(scheme.matches)) continue;
    await draw(plot);
    await pause();
  }
}

drawVisible();
document.addEventListener("change", drawVisible);
scheme.addEventListener("change", drawVisible);
addEventListener("beforeprint", () => plots.forEach(draw));
