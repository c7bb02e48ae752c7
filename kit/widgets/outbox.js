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
  #window = WINDOW;
  #shelf;
  #now;

  /** @param {Shelf} shelf @param {() => number} now wall-clock time in ms */
  constructor(shelf, now) {
    this.#shelf = shelf;
    this.#now = now;
    const left = shelf.names("word:").map((name) => ({ ref: name.slice("word:".length), ...JSON.parse(shelf.get(name) ?? "{}") }));
    for (const { ref, at, body } of left.sort((a, b) => a.at - b.at)) {
      if (now() - at < STALE) this.#words.set(ref, { body, sent: false, done: () => {} });
      else shelf.remove(`word:${ref}`);
    }
  }

  /** How many words wait for their receipt. */
  get size() {
    return this.#words.size;
  }

  /** Keep a word until its receipt, which the promise brings. A word that is too large is refused here: the server would answer
   * it with an `error`, which names no word. @param {string} ref @param {object} fields @returns {Promise<Receipt>} */
  add(ref, fields) {
    const body = JSON.stringify({ ...fields, ref }, (_, value) => (typeof value === "string" ? wellFormed(value) : value));
    const size = new TextEncoder().encode(body).length;
    if (size > MAX_WORD) {
      return Promise.resolve({ ref, status: "refused", reason: `a word has at most ${MAX_WORD} bytes, this one ${size}: make it shorter` });
    }
    this.#shelf.set(`word:${ref}`, JSON.stringify({ at: this.#now(), body }));
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

  /** An `error` came: it names no word, so it is taken for the answer only where one alone is under way. @param {string} reason */
  refuse(reason) {
    const underway = this.#underway();
    if (underway.length === 1) this.settle({ ref: underway[0][0], status: "refused", reason });
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
