// @ts-check
/** Outbox: words that have no receipt yet. A word is repeated with its `ref` until the server says what became of it. */

import { MAX_WORD, wellFormed } from "./wire.js";

/** @typedef {import("./wire.js").Receipt} Receipt */
/** @typedef {import("./shelf.js").Shelf} Shelf */

/** Words under way at a time; halved each time the server says that it is being flooded. */
const WINDOW = 32;
/** A word that an earlier page left behind is said only while it still means what its writer saw (ms). */
const STALE = 10 * 60_000;

export class Outbox {
  /** @type {Map<string, {body: string, sent: boolean, done: (receipt: Receipt) => void}>} */ #words = new Map();
  /** What an earlier page left behind, until it is known which log this is. @type {{ref: string, at: number, log?: string, body: string}[]} */
  #left;
  #window = WINDOW;
  #shelf;
  #now;

  /** @param {Shelf} shelf @param {() => number} now wall-clock time in ms */
  constructor(shelf, now) {
    this.#shelf = shelf;
    this.#now = now;
    const left = shelf.names("word:").map((name) => ({ ref: name.slice("word:".length), ...JSON.parse(shelf.get(name) ?? "{}") }));
    for (const { ref, at } of left) if (now() - at >= STALE) shelf.remove(`word:${ref}`);
    this.#left = left.filter(({ at }) => now() - at < STALE).sort((a, b) => a.at - b.at);
  }

  /** The log is known: take up what an earlier page wrote for it. Two kernels may both have a session of this name, and share the
   * storage: what was said to one is not said to the other. And a claim is its page's: one that arrived stands in the log, one that did
   * not is made anew, and both together would be one too many. @param {string | null} log */
  join(log) {
    const ours = this.#left.filter((word) => (!word.log || word.log === log) && JSON.parse(word.body).type !== "claim");
    this.#words = new Map([...ours.map(({ ref, body }) => /** @type {const} */ ([ref, { body, sent: false, done: () => {} }])), ...this.#words]);
    this.#left = [];
  }

  /** How many words wait for their receipt. */
  get size() {
    return this.#words.size + this.#left.length;
  }

  /** Keep a word until its receipt, which the promise brings. A word that is too large is refused here: the server would answer
   * it with an `error`, which names no word. @param {string} ref @param {object} fields
   * @param {string | null} log for which it is meant, if that is known @returns {Promise<Receipt>} */
  add(ref, fields, log) {
    const body = JSON.stringify({ ...fields, ref }, (_, value) => (typeof value === "string" ? wellFormed(value) : value));
    const size = new TextEncoder().encode(body).length;
    if (size > MAX_WORD) {
      return Promise.resolve({ ref, status: "refused", reason: `a word has at most ${MAX_WORD} bytes, this one ${size}: make it shorter` });
    }
    this.#shelf.set(`word:${ref}`, JSON.stringify({ at: this.#now(), log, body }));
    return new Promise((done) => this.#words.set(ref, { body, sent: false, done }));
  }

  /** Send what the window allows, in the order in which it was said. @param {(body: string) => void} send */
  pump(send) {
    let underway = this.#underway().length;
    for (const word of this.#words.values()) {
      if (word.sent) continue;
      if (++underway > this.#window) return;
      word.sent = true;
      send(word.body);
    }
  }

  /** @param {Receipt} receipt */
  settle(receipt) {
    this.#words.get(receipt.ref)?.done(receipt);
    this.#words.delete(receipt.ref);
    this.#shelf.remove(`word:${receipt.ref}`);
  }

  /** An `error` came. It names no word: the oldest that is under way has it, as frames are answered in order. @param {string} reason */
  refuse(reason) {
    const [oldest] = this.#underway();
    if (oldest) this.settle({ ref: oldest[0], status: "refused", reason });
  }

  /** The connection is gone: whatever was sent on it may have been lost. @param {boolean} flooding fewer at a time from now on */
  unsend(flooding) {
    for (const word of this.#words.values()) word.sent = false;
    if (flooding) this.#window = Math.max(1, this.#window >> 1);
  }

  #underway() {
    return [...this.#words].filter(([, word]) => word.sent);
  }
}
