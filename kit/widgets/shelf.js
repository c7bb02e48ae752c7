// @ts-check
/** Shelf: the few strings that a page keeps for one session, so that a reload loses nothing. */

/** Keys are `kit:<session>:<name>`. Where the browser gives no storage (blocked, full), the page's own memory has to do. */
export class Shelf {
  /** @type {Map<string, string>} */ #memory = new Map();
  #prefix;
  #storage;

  /** @param {string} session @param {() => Storage} storage a function, because only touching `localStorage` can throw */
  constructor(session, storage) {
    this.#prefix = `kit:${session}:`;
    try {
      this.#storage = storage();
    } catch {
      this.#storage = null;
    }
  }

  /** @param {string} name @returns {string | null} */
  get(name) {
    return this.#memory.get(name) ?? this.#storage?.getItem(this.#prefix + name) ?? null;
  }

  /** @param {string} name @param {string} value */
  set(name, value) {
    this.#memory.delete(name);
    try {
      if (!this.#storage) throw new Error("no storage");
      this.#storage.setItem(this.#prefix + name, value);
    } catch {
      this.#memory.set(name, value);
    }
  }

  /** @param {string} name */
  remove(name) {
    this.#memory.delete(name);
    this.#storage?.removeItem(this.#prefix + name);
  }

  /** The names that begin so. @param {string} beginning @returns {string[]} */
  names(beginning) {
    const kept = this.#storage ? Array.from({ length: this.#storage.length }, (_, i) => this.#storage?.key(i) ?? "") : [];
    const names = kept.filter((key) => key.startsWith(this.#prefix)).map((key) => key.slice(this.#prefix.length));
    return [...names, ...this.#memory.keys()].filter((name) => name.startsWith(beginning));
  }
}
