// @ts-check
/** Documents: what a room works on together, each in a box of its own beside what is said. */

import { bind, documentSession } from "./document.js";
import { element, inert } from "./text.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** Connects to the session of a document. @typedef {(name: string) => import("./session.js").Session} Connect */

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

  /** An agent opened a document. @param {Frame} frame */
  see(frame) {
    if (frame.type === "document" && !this.#open.has(frame.name)) this.#open.set(frame.name, this.#show(frame));
  }

  clear() {
    for (const close of this.#open.values()) close();
    this.#open.clear();
  }

  /** @param {Frame} frame */
  #show({ name, kind }) {
    const area = /** @type {HTMLTextAreaElement} */ (
      element("textarea", { "aria-label": `Document ${inert(name)}`, spellcheck: "false", autocapitalize: "off", rows: "12", wrap: "off" }));
    const note = element("p", { class: "kit-note", role: "status" });
    const box = element("details", { class: "kit-document", open: "" },
      element("summary", {}, element("bdi", {}, inert(name)), " ", element("span", { class: "kit-id" }, inert(kind))),
      area, note);
    this.#host.append(box);
    const session = this.#connect(documentSession(this.#session, name));
    const unbind = bind(session, area, {
      lost: (text) => { note.textContent = inert(`This log is a new one. What you had typed: ${text}`); },
      problem: (reason) => { note.textContent = inert(reason ?? ""); },
    });
    return () => { unbind(); session.close(); box.remove(); };
  }
}
