// @ts-check
/**
 * Session: one transcript, seen from a page. It connects, comes back by itself, hands on each entry exactly once and repeats words
 * until they have a receipt.
 *
 * Nothing here knows Jupyter or draws anything. Events: `entry` (detail: the frame), `clear` (detail: why; forget what was drawn),
 * `state`, `aside` (detail: a frame beside the log, such as `typing`).
 */

import { Outbox } from "./outbox.js";
import { Shelf } from "./shelf.js";
import { direct } from "./transports.js";
import { CloseCode, SUBPROTOCOL, compare, follows, randomRef } from "./wire.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** @typedef {import("./wire.js").Receipt} Receipt */
/** @typedef {import("./transports.js").Way} Way */
/** @typedef {import("./transports.js").Socket} Socket */
/**
 * Where the connection stands, and the words for a person.
 * @typedef {{phase: "connecting" | "open" | "waiting" | "closed", words: string}} State
 */
/**
 * @typedef {object} Options
 * @property {string} session name of the session
 * @property {string} [url] the instance, such as `ws://127.0.0.1:8123`; or give `ways`
 * @property {Way[]} [ways] ways to reach it, best first
 * @property {string} [ticket] a single-use ticket to begin with
 * @property {() => Promise<string> | string} [getTicket] where a new one comes from when none is left
 * @property {boolean} [resume] begin after the cursor of an earlier page instead of reading the whole log again
 * @property {() => Storage} [storage]
 * @property {() => number} [random] in [0, 1)
 * @property {() => number} [now] ms
 * @property {(f: () => void, ms: number) => any} [setTimeout]
 * @property {(timer: any) => void} [clearTimeout]
 * @property {typeof WebSocket} [WebSocket]
 */

/** All in ms. */
const BASE = 500;
const CAP = 30_000;
const CALM = 5_000;
const SILENCE = 25_000;
const OPENING = 10_000;
const BEAT = 10_000;
const ANSWER = 20_000;

/** @param {Options} options @returns {Session} */
export function connect(options) {
  return new Session(options);
}

export class Session extends EventTarget {
  /** @type {State} */ state = { phase: "connecting", words: "connecting" };
  /** The id of the last entry handed on; null before the first hello. @type {string | null} */ cursor = null;
  /** The last id in the log when this connection began. @type {string | null} */ head = null;
  /** @type {string | null} */ log = null;

  /** @type {Way[]} */ #ways;
  /** Ways left in this round of tries. @type {Way[]} */ #round = [];
  /** The way that worked last. @type {Way | undefined} */ #good;
  /** @type {Socket | null} */ #socket = null;
  /** @type {string | null} */ #ticket;
  /** The ticket was never tried. */ #fresh = false;
  /** Rounds that ended without a hello since the ticket came. */ #refused = 0;
  /** Tries since the last sign of life; the delay grows with it. */ #tries = 0;
  #greeted = false;
  #gap = false;
  #asking = false;
  #heardAt = 0;
  /** @type {Map<string, any>} */ #timers = new Map();
  #shelf;
  #outbox;
  #options;

  /** @param {Options} options */
  constructor(options) {
    super();
    this.#options = {
      storage: () => localStorage, random: Math.random, now: () => Date.now(),
      setTimeout: (/** @type {() => void} */ f, /** @type {number} */ ms) => globalThis.setTimeout(f, ms),
      clearTimeout: (/** @type {any} */ timer) => globalThis.clearTimeout(timer), ...options,
    };
    this.#shelf = new Shelf(options.session, this.#options.storage);
    this.#outbox = new Outbox(this.#shelf, this.#options.now);
    this.#ways = options.ways ?? [direct(`${options.url}/s/${options.session}`, options.WebSocket)];
    this.#good = this.#ways.find((way) => way.name === this.#shelf.get("way"));
    this.#ticket = options.ticket ?? this.#shelf.get("ticket");
    // A page begins with nothing drawn, so it reads the whole log again; only one that kept its entries asks for the rest.
    if (options.resume) [this.cursor, this.log] = [this.#shelf.get("after"), this.#shelf.get("log")];
    for (const name of ["online", "pageshow"]) addEventListener(name, this.#wake);
    document.addEventListener("visibilitychange", this.#wake);
    addEventListener("pagehide", this.#save);
    this.#after("dial", 0, () => this.#dial());
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

  /** @param {string} call @param {(ref: string) => void} [known] is told the word's ref, by which the claim is found again in the log */
  claim(call, known) {
    return this.#word({ type: "claim", call }, known);
  }

  /** @param {string} call @param {{value: any} | {error: string}} outcome */
  result(call, outcome) {
    return this.#word({ type: "result", call, ...outcome });
  }

  /** Not a word: it goes around the log and is not repeated. @param {boolean} on */
  typing(on) {
    if (this.#greeted) this.#socket?.send(JSON.stringify({ type: "typing", on }));
  }

  /** How many words have no receipt yet. */
  get unsettled() {
    return this.#outbox.size;
  }

  /** Leave. Words without a receipt stay in storage for the next page. */
  close() {
    this.#save();
    for (const name of ["online", "pageshow"]) removeEventListener(name, this.#wake);
    document.removeEventListener("visibilitychange", this.#wake);
    removeEventListener("pagehide", this.#save);
    this.#hangUp();
    for (const name of [...this.#timers.keys()]) this.#cancel(name);
    this.#say("closed", "closed");
  }

  /** @param {object} fields @param {(ref: string) => void} [known] @returns {Promise<Receipt>} */
  #word(fields, known) {
    const ref = randomRef();
    known?.(ref);
    const receipt = this.#outbox.add(ref, fields);
    this.#pump();
    return receipt;
  }

  #pump() {
    if (this.#greeted) this.#outbox.pump((body) => this.#socket?.send(body));
  }

  // ---- connecting ----

  #dial() {
    if (this.state.phase === "closed" || this.#socket) return;
    if (!this.#ticket && this.#options.getTicket) return this.#ask();
    if (!this.#round.length) this.#round = this.#newRound();
    const way = /** @type {Way} */ (this.#round.shift());
    this.#say("connecting", way === this.#ways[0] ? "connecting" : `connecting ${way.name}`);
    const query = this.cursor && this.log ? `?${new URLSearchParams({ after: this.cursor, log: this.log })}` : "";
    const protocols = this.#ticket ? [SUBPROTOCOL, `ticket.${this.#ticket}`] : [SUBPROTOCOL];
    try {
      this.#attend(way.open(query, protocols), way);
    } catch {
      this.#lost(1006, ""); // a https page may not open ws:// in every browser
    }
  }

  /** What worked before comes first, and alone until it has failed twice; the kernel only with a ticket that cannot be stale. */
  #newRound() {
    if (this.#good && this.#refused < 2) return [this.#good];
    const ways = this.#ways.filter((way) => this.#fresh || !way.kernel);
    this.#fresh = false;
    return ways.length ? ways : [...this.#ways];
  }

  /** @param {Socket} socket @param {Way} way */
  #attend(socket, way) {
    this.#socket = socket;
    this.#heardAt = this.#options.now();
    this.#after("silence", OPENING, () => this.#redial());
    const mine = (/** @type {Function} */ f) => (/** @type {any} */ event) => socket === this.#socket && f(event);
    socket.onmessage = mine((/** @type {MessageEvent} */ event) => this.#hear(JSON.parse(event.data), way));
    socket.onclose = mine((/** @type {CloseEvent} */ event) => this.#lost(event.code, event.reason));
  }

  /** The connection ended, or never began: decide when to try again. @param {number} code @param {string} reason */
  #lost(code, reason) {
    const greeted = this.#greeted;
    this.#hangUp();
    if (!greeted && this.#round.length) return this.#dial();
    if (!greeted) this.#refused += 1;
    if (code === CloseCode.EXPIRED) this.#forgetTicket();
    if (code === CloseCode.FLOODING) {
      this.#outbox.slowDown();
      this.#tries = Math.max(this.#tries, 3);
    }
    // Page script sees any refusal before 101 as 1006: after the second, the ticket may well be spent, so another is asked for.
    if (this.#refused >= 2 && this.#options.getTicket) this.#ask();
    this.#wait(Math.max(this.#backoff(), code === CloseCode.RESTART ? Number(/\d+/.exec(reason)?.[0] ?? 0) : 0), code);
  }

  /** The first try at once, then full jitter: pages that lost the same instance must not come back together. */
  #backoff() {
    const tries = this.#tries++;
    return tries === 0 ? 0 : this.#options.random() * Math.min(CAP, BASE * 2 ** (tries - 1));
  }

  /** @param {number} ms @param {number} [code] */
  #wait(ms, code) {
    const why = code === CloseCode.FLOODING ? "told to slow down: " : code === CloseCode.RESTART ? "the instance restarts: " : "";
    this.#say("waiting", `${why}reconnecting${ms < 100 ? "" : ` in ${(ms / 1000).toFixed(1)} s`}`);
    this.#after("dial", ms, () => this.#dial());
  }

  /** The other side is silent or contradicts itself: dial anew, with the cursor. */
  #redial() {
    const socket = this.#socket;
    this.#socket = null; // first, so that its own close event finds nothing to do
    socket?.close();
    this.#lost(1006, "");
  }

  #hangUp() {
    const socket = this.#socket;
    this.#socket = null;
    this.#greeted = false;
    this.#cancel("silence");
    this.#cancel("calm");
    this.#outbox.unsend();
    socket?.close();
  }

  /** The page is back, or the network: do not sit out a delay or wait for a silence to be long enough. */
  #wake = () => {
    if (document.visibilityState === "hidden") return;
    if (this.#timers.has("dial")) this.#after("dial", 0, () => this.#dial());
    else if (this.#greeted && this.#options.now() - this.#heardAt > BEAT + 2_000) this.#redial();
  };

  // ---- tickets ----

  /** Ask for a new ticket; meanwhile the old one goes on being tried, for a kernel that is busy answers late. */
  #ask() {
    if (!this.#ticket) this.#say("waiting", "waiting for a ticket: the kernel is busy or gone");
    if (this.#asking) return;
    this.#asking = true;
    this.#after("ask", ANSWER, () => this.#answered(null));
    const ticket = async () => this.#options.getTicket?.();
    ticket().then((ticket) => this.#answered(ticket ?? null), () => this.#answered(null));
  }

  /** @param {string | null} ticket */
  #answered(ticket) {
    if (this.state.phase === "closed" || (!ticket && !this.#asking)) return;
    this.#asking = false;
    this.#cancel("ask");
    if (ticket) [this.#ticket, this.#fresh, this.#refused, this.#round] = [ticket, true, 0, []];
    if (this.#socket || this.#timers.has("dial")) return;
    if (ticket) this.#dial();
    else this.#wait(this.#backoff());
  }

  #forgetTicket() {
    if (this.#shelf.get("ticket") === this.#ticket) this.#shelf.remove("ticket"); // another page of this session may have put its own
    this.#ticket = null;
  }

  // ---- listening ----

  /** @param {Frame} frame @param {Way} way */
  #hear(frame, way) {
    this.#heardAt = this.#options.now();
    if (frame.type === "hello") return this.#hello(frame, way);
    if (!this.#greeted || frame.type === "beat") return;
    if (frame.type === "gap") return this.#startOver(frame.log, frame.after, frame.reason);
    if (frame.type === "receipt") {
      this.#outbox.settle(/** @type {any} */ (frame));
      return this.#pump();
    }
    if (frame.type === "error") this.#outbox.refuse(frame.text);
    if (frame.id) this.#entry(frame);
    else this.dispatchEvent(new CustomEvent("aside", { detail: frame }));
  }

  /** @param {Frame} hello @param {Way} way */
  #hello(hello, way) {
    [this.#greeted, this.#refused, this.#round, this.#gap] = [true, 0, [], false];
    [this.#good, this.head, this.#ticket, this.#fresh] = [way, hello.head, hello.ticket ?? null, false];
    if (hello.ticket) this.#shelf.set("ticket", hello.ticket);
    if (!way.kernel) this.#shelf.set("way", way.name);
    const by = way === this.#ways[0] ? "" : ` ${way.name}`;
    if (hello.status === "resumed" && hello.after === this.cursor) this.#say("open", `resumed after ${this.cursor}${by}`);
    else if (hello.status === "fresh" && !this.cursor) this.#startOver(hello.log, hello.after);
    else this.#startOver(hello.log, hello.after, hello.reason ?? "other log");
    if (this.state.phase !== "open") this.#say("open", `connected${by}`);
    this.#after("silence", SILENCE, () => this.#listenUp());
    this.#after("calm", CALM, () => { this.#tries = 0; });
    this.#pump();
  }

  /** One timer, not one a frame: when it fires, it looks how long the silence really is. */
  #listenUp() {
    const left = SILENCE - (this.#options.now() - this.#heardAt);
    if (left <= 0) this.#redial();
    else this.#after("silence", left, () => this.#listenUp());
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
    if (!follows(entry, cursor)) return this.#redial();
    this.cursor = entry.id;
    // A new entry is progress, so the delay begins anew; after a gap the same entries come again, which is none.
    if (!this.#gap) this.#tries = 0;
    if (!this.#timers.has("save")) this.#after("save", 250, this.#save);
    this.dispatchEvent(new CustomEvent("entry", { detail: entry }));
  }

  // ---- small things ----

  #save = () => {
    if (this.cursor) this.#shelf.set("after", this.cursor);
    if (this.log) this.#shelf.set("log", this.log);
  };

  /** @param {State["phase"]} phase @param {string} words */
  #say(phase, words) {
    if (this.state.phase === "closed") return;
    this.state = { phase, words };
    this.dispatchEvent(new Event("state"));
  }

  /** One timer of each name. @param {string} name @param {number} ms @param {() => void} f */
  #after(name, ms, f) {
    this.#cancel(name);
    this.#timers.set(name, this.#options.setTimeout(() => { this.#timers.delete(name); f(); }, ms));
  }

  /** @param {string} name */
  #cancel(name) {
    if (this.#timers.has(name)) this.#options.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}
