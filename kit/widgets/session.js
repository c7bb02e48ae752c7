// @ts-check
/**
 * Session: one transcript, seen from a page. It hands on each entry exactly once, comes back where it was, and repeats words until
 * they have a receipt.
 *
 * Nothing here knows Jupyter or draws anything. Events: `entry` (detail: the frame), `clear` (detail: why; forget what was drawn),
 * `state`, `aside` (detail: a frame beside the log, such as `typing`).
 */

import { Connection } from "./connection.js";
import { Outbox } from "./outbox.js";
import { Shelf } from "./shelf.js";
import { direct } from "./transports.js";
import { CloseCode, compare, follows, randomRef } from "./wire.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** @typedef {import("./wire.js").Receipt} Receipt */
/** @typedef {import("./connection.js").Phase} Phase */
/**
 * The session's `name`, where it is, and what a test replaces. Without `resume` the whole log is read: a new page has nothing drawn.
 * @typedef {{session: string, url?: string, ways?: import("./transports.js").Way[], resume?: boolean, storage?: () => Storage,
 *   WebSocket?: typeof WebSocket} & Partial<import("./connection.js").Options>} Options
 */

/** ms between two writes of the cursor to storage. */
const SAVE = 250;

/** @param {Options} options @returns {Session} */
export function connect(options) {
  return new Session(options);
}

export class Session extends EventTarget {
  /** Where the connection stands, and the words for a person. @type {{phase: Phase, words: string}} */
  state = { phase: "connecting", words: "connecting" };
  /** The id of the last entry handed on; null before the first hello. @type {string | null} */ cursor = null;
  /** The last id in the log when this connection began. @type {string | null} */ head = null;
  /** @type {string | null} */ log = null;
  /** What this session keeps in storage. */ shelf;

  #gap = false;
  /** @type {any} */ #saving;
  #outbox;
  #connection;
  #options;

  /** @param {Options} options */
  constructor(options) {
    super();
    this.#options = {
      random: Math.random, now: () => Date.now(),
      setTimeout: (/** @type {() => void} */ f, /** @type {number} */ ms) => globalThis.setTimeout(f, ms),
      clearTimeout: (/** @type {any} */ timer) => globalThis.clearTimeout(timer), ...options,
    };
    this.shelf = new Shelf(options.session, options.storage ?? (() => localStorage));
    this.#outbox = new Outbox(this.shelf, this.#options.now);
    if (options.resume) [this.cursor, this.log] = [this.shelf.get("after"), this.shelf.get("log")];
    addEventListener("pagehide", this.#save);
    const ways = options.ways ?? [direct(`${options.url}/s/${options.session}`, options.WebSocket)];
    this.#connection = new Connection(ways, this.shelf, this.#options, {
      query: () => (this.cursor && this.log ? `?${new URLSearchParams({ after: this.cursor, log: this.log })}` : ""),
      heard: (frame) => this.#hear(frame),
      lost: (code) => this.#outbox.unsend(code === CloseCode.FLOODING),
      say: (phase, words) => this.#say(phase, words),
    });
  }

  // ---- words: each returns a promise of its receipt ----

  /** @param {string} text @param {string} [to] */
  prompt(text, to) {
    return this.#word({ type: "prompt", text, to });
  }

  /** Without `turn`: all that are open or queued. @param {string} [turn] */
  stop(turn) {
    return this.#word({ type: "stop", turn });
  }

  /** @param {string} turn @param {string} text */
  edit(turn, text) {
    return this.#word({ type: "edit", turn, text });
  }

  /** @param {string} call @param {string} text */
  answer(call, text) {
    return this.#word({ type: "answer", call, text });
  }

  /** @param {string} call @param {string} [ref] by which the claim is found again in the log */
  claim(call, ref) {
    return this.#word({ type: "claim", call }, ref);
  }

  /** @param {string} call @param {{value: any} | {error: string}} outcome */
  result(call, outcome) {
    return this.#word({ type: "result", call, ...outcome });
  }

  /** Change a document: this session is the document's own. @param {string} base @param {object[]} splices
   * @param {string} ref by which the patch is found again in the log; a page before this one may have said it already */
  patch(base, splices, ref) {
    return this.#word({ type: "patch", base, splices }, ref);
  }

  /** Not a word: it goes around the log and is not repeated. @param {boolean} on */
  typing(on) {
    if (this.#connection.open) this.#connection.send(JSON.stringify({ type: "typing", on }));
  }

  /** How many words have no receipt yet. */
  get unsettled() {
    return this.#outbox.size;
  }

  /** Leave. Words without a receipt stay in storage for the next page. */
  close() {
    this.#save();
    removeEventListener("pagehide", this.#save);
    this.#options.clearTimeout(this.#saving);
    this.#connection.close();
    this.#say("closed", "closed");
  }

  /** @param {object} fields @param {string} [ref] @returns {Promise<Receipt>} */
  #word(fields, ref = randomRef()) {
    const receipt = this.#outbox.add(ref, fields, this.log);
    this.#pump();
    return receipt;
  }

  #pump() {
    if (this.#connection.open) this.#outbox.pump((body) => this.#connection.send(body));
  }

  // ---- listening ----

  /** @param {Frame} frame */
  #hear(frame) {
    if (frame.type === "hello") return this.#hello(frame);
    if (frame.type === "gap") {
      if (frame.log !== this.log) this.head = frame.after; // another log, of which the hello did not know
      return this.#startOver(frame.log, frame.after, frame.reason);
    }
    if (frame.type === "receipt") {
      this.#outbox.settle(/** @type {any} */ (frame));
      return this.#pump();
    }
    if (frame.type === "error") this.#outbox.refuse(frame.text);
    if (frame.id) this.#entry(frame);
    else this.dispatchEvent(new CustomEvent("aside", { detail: frame }));
  }

  /** @param {Frame} hello */
  #hello(hello) {
    const { by } = this.#connection;
    [this.head, this.#gap] = [hello.head, false];
    if (hello.status === "resumed" && hello.after === this.cursor) this.#say("open", `resumed after ${this.cursor}${by}`);
    else if (hello.status === "fresh" && !this.cursor) this.#startOver(hello.log, hello.after);
    else this.#startOver(hello.log, hello.after, hello.reason ?? "other log");
    if (this.state.phase !== "open") this.#say("open", `connected${by}`);
    this.#outbox.join(this.log);
    this.#pump();
  }

  /** Forget what was drawn; the log goes on after `after`. @param {string} log @param {string} after @param {string} [reason] */
  #startOver(log, after, reason) {
    this.#gap = reason !== undefined;
    [this.cursor, this.log] = [after, log];
    this.#save();
    this.dispatchEvent(new CustomEvent("clear", { detail: reason }));
    if (reason !== undefined) this.#say("open", `gap: ${reason}; shown from after ${after}`);
  }

  /** @param {Frame} entry */
  #entry(entry) {
    const cursor = this.cursor ?? "0-0";
    if (compare(entry.id, cursor) <= 0) return; // handed on already
    if (!follows(entry, cursor)) return this.#connection.redial();
    this.cursor = entry.id;
    // A new entry is progress, so the delay begins anew; after a gap the same entries come again, which is none.
    if (!this.#gap) this.#connection.progress();
    this.#saving ??= this.#options.setTimeout(this.#save, SAVE);
    this.dispatchEvent(new CustomEvent("entry", { detail: entry }));
  }

  // ---- small things ----

  #save = () => {
    this.#saving = undefined;
    if (this.cursor) this.shelf.set("after", this.cursor);
    if (this.log) this.shelf.set("log", this.log);
  };

  /** @param {Phase} phase @param {string} words */
  #say(phase, words) {
    this.state = { phase, words };
    this.dispatchEvent(new Event("state"));
  }
}
