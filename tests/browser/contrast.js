// @ts-check
/** Contrast: how well each text of a page stands out from what is painted behind it (WCAG 2.2, 1.4.3). */

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

/** The texts that an element paints itself, each with its colour: its own, a field's value or placeholder, a sign that only CSS knows.
 * @param {Element} element @returns {[string, string][]} */
function texts(element) {
  const style = getComputedStyle(element);
  const ink = element instanceof SVGElement ? style.fill : style.color;
  /** @type {[string, string][]} */ const found = [];
  if ([...element.childNodes].some((n) => n instanceof Text && n.data.trim())) found.push([element.textContent ?? "", ink]);
  if (element.matches("textarea, input:not([type=range])")) {
    const { value, placeholder } = /** @type {HTMLInputElement} */ (element);
    found.push(value || !placeholder ? [value || "(what is typed)", ink] : [placeholder, getComputedStyle(element, "::placeholder").color]);
  }
  for (const side of ["::before", "::after"]) {
    const { content, color } = getComputedStyle(element, side);
    if (content.startsWith('"') && content.length > 2) found.push([`${side} ${content}`, color]);
  }
  return found;
}

/** Each text that is shown, and its contrast ratio, once no colour is on its way to another. @returns {Promise<[string, number][]>} */
export async function contrasts() {
  // A button that is enabled or meets another theme takes 0.12 s to its new background. A transition that is replaced rejects: look again.
  while (document.getAnimations().length) await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
  const shown = [...document.querySelectorAll("body *:not(script, style, noscript, option)")].filter((e) => e.checkVisibility());
  return shown.flatMap((element) => {
    /** @type {string[]} */ const behind = [];
    for (let e = /** @type {Element | null} */ (element); e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
    const back = luminance(behind);
    return texts(element).map(([text, colour]) => {
      const ink = luminance([...behind, colour]);
      const ratio = (Math.max(back, ink) + 0.05) / (Math.min(back, ink) + 0.05);
      return /** @type {[string, number]} */ ([`${element.getAttribute("class") ?? element.localName}: ${text.slice(0, 20)}`, ratio]);
    });
  });
}
