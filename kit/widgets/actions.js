// @ts-check
/** Actions: what an agent may have run in this page. Each is claimed first, so that of several pages one runs it. */

import { Shelf } from "./shelf.js";
import { compare, randomRef } from "./wire.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** What an action runs: takes its arguments and the panel's element, returns its result. @typedef {(given: any, root: HTMLElement) => any} Run */

export class Actions {
  /** By name: only these can be run. @type {Map<string, Run>} */ functions = new Map([["set_theme", setTheme]]);
  /** Calls that this page has taken up, each with its log: another one may have the same. @type {Set<string>} */ #taken = new Set();
  #session;
  #turns;
  #root;
  #shelf;

  /**
   * @param {import("./session.js").Session} session @param {import("./turns.js").Turns} turns
   * @param {HTMLElement} root @param {string} name of the session
   */
  constructor(session, turns, root, name) {
    this.#session = session;
    this.#turns = turns;
    this.#root = root;
    this.#shelf = new Shelf(name, () => sessionStorage); // of this tab, and it survives a reload
    const theme = this.#shelf.get("theme");
    if (theme) root.dataset.theme = theme;
  }

  /** Take up what waits for a page; not before the whole log is read, for the rest of it may say that it is done. */
  look() {
    const { cursor, head, log } = this.#session;
    if (!cursor || !head || compare(cursor, head) < 0) return;
    for (const [name, { frame, claim, result }] of this.#turns.calls) {
      const [run, once] = [this.#function(frame), `${log} ${name}`];
      if (!run || result || this.#taken.has(once)) continue;
      // Claimed by this tab before it was reloaded: run it again under the same call id, as an instance does after a crash.
      if (claim && this.#shelf.get(`claim:${name}`) !== claim.ref) continue;
      this.#taken.add(once);
      void (claim ? this.#run(frame, run) : this.#claim(frame, run));
    }
  }

  /** @param {Frame} frame */
  #function(frame) {
    return frame.type === "action" && frame.on === "client" ? this.functions.get(frame.name) : undefined;
  }

  /** @param {Frame} frame @param {Run} run */
  async #claim(frame, run) {
    const ref = randomRef();
    this.#shelf.set(`claim:${frame.call}`, ref);
    const receipt = await this.#session.claim(frame.call, ref);
    if (receipt.status === "applied" || receipt.was === "applied") await this.#run(frame, run);
  }

  /** @param {Frame} frame @param {Run} run */
  async #run(frame, run) {
    const receipt = await this.#session.result(frame.call, await outcome(frame, run, this.#root));
    if (receipt.status === "refused") await this.#session.result(frame.call, { error: receipt.reason ?? "the result was refused" });
    this.#shelf.remove(`claim:${frame.call}`);
    if (this.#root.dataset.theme) this.#shelf.set("theme", this.#root.dataset.theme);
  }
}

/** @param {Frame} frame @param {Run} run @param {HTMLElement} root @returns {Promise<{value: any} | {error: string}>} */
async function outcome(frame, run, root) {
  try {
    const value = await run(frame.arguments, root);
    return { value: JSON.parse(JSON.stringify(value ?? null)) }; // what is no JSON fails here, not in the outbox
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

/** @param {{theme: string}} given `dark`, `light`, or `auto` for the page's own @param {HTMLElement} root */
function setTheme({ theme }, root) {
  if (!["dark", "light", "auto"].includes(theme)) throw new Error(`the theme is dark, light or auto, not ${JSON.stringify(theme)}`);
  root.dataset.theme = theme;
  return { theme };
}
