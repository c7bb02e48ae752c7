// @ts-check
/** Store view: the store as it is now: the leases of open turns as bars that run down, the newest entries of the log, and the keys. */

import { tell } from "./comm.js";
import { element, inert } from "./text.js";

/** `turns`: turn, who holds its lease ("": nobody), seconds left; `lease`: seconds of a whole one.
 * @typedef {{state: string, lease: number, heads: Record<string, string[]>, keys: string[][], turns: [string, string, number][], entries: string[][]}} Picture */

/** ms between two words to the kernel that the view is shown. */
const SAY = 20_000;
/** @type {Record<string, string>} */
const TITLES = { turns: "Open turns and their leases", entries: "The newest entries of the log", keys: "Keys" };

export class StoreView {
  /** @param {HTMLElement} host @param {string} session */
  constructor(host, session) {
    this.state = element("span", { class: "kit-state", role: "status" });
    /** @type {Record<string, HTMLElement>} */ this.tables = {};
    for (const name of Object.keys(TITLES)) {
      this.tables[name] = element("table", { class: `kit-store-${name}` });
    }
    this.root = element("section", { class: "kit kit-store", "aria-label": `Store, session ${session}` },
      element("header", { class: "kit-bar" }, this.state, element("bdi", { class: "kit-name" }, session)), ...Object.values(this.tables));
    host.append(this.root);
  }

  /** @param {Picture} picture */
  show(picture) {
    const live = picture.state === "live";
    this.state.dataset.phase = live ? "open" : "closed";
    if (this.state.textContent !== picture.state) this.state.textContent = picture.state; // a status speaks up when it is written
    const turns = picture.turns.map(([turn, by, left]) => [turn, by ? by.slice(0, 8) : "nobody", lease(by ? left : -1, picture.lease, live)]);
    const { heads, entries, keys } = picture;
    for (const [name, rows] of Object.entries({ turns, entries, keys })) this.#fill(name, heads[name], rows);
  }

  /** @param {string} name @param {string[]} heads @param {(string | Node)[][]} rows */
  #fill(name, heads, rows) {
    const cells = (/** @type {(string | Node)[]} */ row) => row.map((cell, i) =>
      element(i ? "td" : "th", i ? {} : { scope: "row" }, typeof cell === "string" ? inert(cell) : cell));
    const none = element("tr", {}, element("td", { colspan: String(heads.length) }, "none"));
    this.tables[name].replaceChildren(element("caption", {}, TITLES[name]),
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...(rows.length ? rows.map((row) => element("tr", {}, ...cells(row))) : [none])));
  }
}

/** A lease as a bar that runs down by itself until the next picture, and in words. @param {number} left seconds @param {number} whole @param {boolean} live */
function lease(left, whole, live) {
  const bar = element("span", { class: "kit-lease", "aria-hidden": "true" }, element("i"));
  const part = Math.max(0, Math.min(1, left / whole));
  const fill = /** @type {HTMLElement} */ (bar.firstChild);
  fill.style.transform = `scaleX(${part})`;
  if (part && live && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
    fill.animate([{ transform: `scaleX(${part})` }, { transform: "scaleX(0)" }], { duration: left * 1000 });
  }
  return element("span", {}, bar, left < 0 ? "free: any instance may take it" : `${left.toFixed(1)} s left`);
}

/** For anywidget. @param {{model: import("./transports.js").Model, el: HTMLElement}} widget */
function render({ model, el }) {
  const view = new StoreView(el, model.get("session"));
  const draw = () => view.show(model.get("picture"));
  const say = () => {
    if (!document.hidden) tell(model, { kit: "shown" });
  };
  const saying = setInterval(say, SAY);
  document.addEventListener("visibilitychange", say);
  model.on("change:picture", draw);
  say();
  draw();
  return () => {
    clearInterval(saying);
    document.removeEventListener("visibilitychange", say);
    model.off("change:picture", draw);
    view.root.remove();
  };
}

export default { render };
