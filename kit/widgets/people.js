// @ts-check
/** People: who is in a room and who types, from what is told beside its log (kit/presence.py). */

/** @typedef {import("./wire.js").Frame} Frame */

/** ms after which what was told last is void. */
const VOID = 25_000;

export class People {
  /** By instance, since each tells its own. @type {Map<string, {heard: number, names: string[], agents: string[]}>} */ #lists = new Map();
  /** @type {Map<string, number>} */ #typing = new Map();
  #now;

  /** @param {() => number} now ms */
  constructor(now = () => Date.now()) {
    this.#now = now;
  }

  /** @param {Frame} frame */
  hear(frame) {
    if (frame.type === "who") this.#lists.set(frame.by, { heard: this.#now(), names: frame.names, agents: frame.agents });
    if (frame.type === "typing" && frame.from) this.#typing.set(frame.from, frame.on ? this.#now() : -Infinity);
  }

  clear() {
    this.#lists.clear();
    this.#typing.clear();
  }

  /** Who is here, in order, and whether they type. @returns {{name: string, typing: boolean}[]} */
  get here() {
    const names = [...new Set(this.#recent().flatMap((list) => list.names))].sort();
    return names.map((name) => ({ name, typing: this.#now() - (this.#typing.get(name) ?? -Infinity) < VOID }));
  }

  /** The agents that answer here, the default one first. @returns {string[]} */
  get agents() {
    return [...new Set(this.#recent().flatMap((list) => list.agents))];
  }

  #recent() {
    return [...this.#lists.values()].filter((list) => this.#now() - list.heard < VOID);
  }
}
