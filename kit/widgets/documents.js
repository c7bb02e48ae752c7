// @ts-check
/** Documents: what a room works on together, each in a box of its own beside what is said. */

import { draw } from "./diagram.js";
import { documentSession } from "./document.js";
import { element, inert } from "./text.js";
import { bind, said } from "./textarea.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** Connects to the session of a document. @typedef {(name: string) => import("./session.js").Session} Connect */

/** ms without a change after which a diagram is drawn. */
const STILL = 150;

export class Documents {
  /** By name: what takes the box away. @type {Map<string, () => void>} */ #open = new Map();
  #host;
  #session;
  #connect;

  /** @param {HTMLElement} host @param {string} session whose documents they are @param {Connect} connect */
  constructor(host, session, connect) {
    this.#host = host;
    this.#session = session;
    this.#connect = connect;
  }

  /** An agent opened a document, or writes into one that was opened before what is kept. @param {Frame} frame */
  see(frame) {
    if (["document", "write"].includes(frame.type) && !this.#open.has(frame.name)) this.#open.set(frame.name, this.#show(frame));
  }

  clear() {
    for (const close of this.#open.values()) close();
    this.#open.clear();
  }

  /** @param {Frame} frame */
  #show({ name, kind = "text" }) {
    const area = /** @type {HTMLTextAreaElement} */ (
      element("textarea", { "aria-label": `Document ${inert(name)}`, spellcheck: "false", autocapitalize: "off", rows: kind === "mermaid" ? "6" : "12", wrap: "off" }));
    const picture = element("figure", { class: "kit-diagram" });
    const note = element("p", { class: "kit-note", role: "status" });
    const box = element("details", { class: "kit-sheet", open: "" },
      element("summary", {}, element("bdi", {}, inert(name)), " ", element("span", { class: "kit-id" }, inert(kind))),
      ...(kind === "mermaid" ? [picture] : []), area, note);
    this.#host.append(box);
    const session = this.#connect(documentSession(this.#session, name));
    const diagram = kind === "mermaid" ? keepDrawn(picture, area) : null;
    const unbind = bind(session, area, {
      changed: () => diagram?.later(),
      lost: (text) => { note.textContent = inert(`What you had typed has no place in this text any more: ${text}`); },
      problem: (reason) => { note.textContent = inert(reason ?? ""); },
    });
    return () => { unbind(); diagram?.stop(); session.close(); box.remove(); };
  }
}

/** Draw what the textarea holds when it has not changed for a moment. @param {HTMLElement} picture @param {HTMLTextAreaElement} area */
function keepDrawn(picture, area) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */ let pause;
  const show = () => {
    try {
      picture.replaceChildren(draw(said(area.value)));
    } catch (error) {
      picture.replaceChildren(element("p", { class: "kit-failed" }, inert(`Not drawn: ${/** @type {Error} */ (error).message}`)));
    }
  };
  const stop = () => clearTimeout(pause);
  const later = () => {
    stop();
    pause = setTimeout(show, STILL);
  };
  return { later, stop };
}
