// @ts-check
/** Text: what an agent says is shown as text, whatever it holds. */

const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z^-~\\])|\x9b[0-?]*[ -/]*[@-~]/g;
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,200}\x1b?|[ -/]*)$/;
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

/**
 * Without ANSI escapes; control characters and bidi overrides (which reorder what stands around them) become visible marks.
 * @param {string} text
 */
export function inert(text) {
  return text.replace(ESCAPES, "").replace(/\r\n?|[\u2028\u2029]/g, "\n").replace(HIDDEN, mark);
}

/** @param {string} character */
function mark(character) {
  const code = character.charCodeAt(0);
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
}

/** An escape may be cut in two by the edge of a packet: hold its beginning back. @param {string} text @returns {[string, string]} */
export function holdBack(text) {
  const held = UNFINISHED.exec(text)?.[0] ?? (text.endsWith("\r") ? "\r" : "");
  return [text.slice(0, text.length - held.length), held];
}

/** An element with attributes and children; strings become text nodes, so markup in them stays text.
 * @param {string} name @param {Record<string, string>} [attributes] @param {...(Node | string)} children @returns {HTMLElement} */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  // JupyterLab sees keys first: without this on the focused element itself, `dd` on a button would delete the notebook's cell.
  if (made.matches("button, input, textarea, select, summary, [tabindex]")) made.setAttribute("data-lm-suppress-shortcuts", "");
  made.append(...children);
  return made;
}

/** The same of a drawing (SVG).
 * @param {string} name @param {Record<string, string | number>} attributes @param {...(Node | string)} children */
export function shape(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}
