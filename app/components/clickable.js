// Draws data.html and reports the data-pick of what is clicked, or activated with Enter or Space.

export default function ({ parentElement, data, setTriggerValue }) {
  const drawing = parentElement.querySelector(".drawing");
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
