// Draws data.html and reports the data-pick of what is clicked, or activated with Enter or Space.

// WCAG relative luminance of a CSS colour, through the canvas that understands every notation.
function isDark(color) {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
}

export default function ({ parentElement, data, setTriggerValue }) {
  const drawing = parentElement.querySelector(".drawing");
  const background = getComputedStyle(drawing).getPropertyValue("--st-background-color").trim();
  drawing.classList.toggle("dark", isDark(background || "#fff"));
  if (drawing.shownHtml !== data.html) {
    const focused = drawing.getRootNode().activeElement?.dataset?.pick;
    drawing.innerHTML = data.html;
    drawing.shownHtml = data.html;
    if (focused !== undefined) {
      const again = [...drawing.querySelectorAll("[data-pick]")].find((element) => element.dataset.pick === focused);
      again?.focus({ preventScroll: true });
    }
    for (const element of drawing.querySelectorAll("[data-into-view]")) {
      const scroll = element.closest(".scroll");
      if (scroll) scroll.scrollLeft = element.offsetLeft - scroll.clientWidth / 2;
    }
  }
  const report = (event) => {
    const target = event.target.closest?.("[data-pick]");
    if (!target || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    setTriggerValue("picked", target.dataset.pick);
  };
  drawing.onclick = report;
  drawing.onkeydown = report;
}
