// @ts-check
/** Contrast: how well each text of the panel stands out from what is painted behind it (WCAG 2.2, 1.4.3). */

const canvas = /** @type {CanvasRenderingContext2D} */ (
  Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true })
);

/** Relative luminance of colours painted over each other. @param {string[]} colours */
function luminance(colours) {
  for (const colour of ["white", ...colours]) {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
  }
  const [r, g, b] = Array.from(canvas.getImageData(0, 0, 1, 1).data, (c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Each element with text of its own, and its contrast ratio, once no colour is on its way to another. @returns {Promise<[string, number][]>} */
export async function contrasts() {
  // A button that is enabled or meets another theme takes 0.12 s to its new background. A transition that is replaced rejects: look again.
  while (document.getAnimations().length) await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
  const texts = [...document.querySelectorAll(".kit *")].filter((e) => [...e.childNodes].some((n) => n instanceof Text && n.data.trim()));
  return texts.map((element) => {
    const behind = [];
    for (let e = /** @type {Element | null} */ (element); e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
    const [back, ink] = [luminance(behind), luminance([...behind, getComputedStyle(element).color])];
    const ratio = (Math.max(back, ink) + 0.05) / (Math.min(back, ink) + 0.05);
    return [`${element.className}: ${element.textContent?.slice(0, 20)}`, ratio];
  });
}
