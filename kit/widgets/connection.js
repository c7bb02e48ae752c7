// @ts-check
/**
 * Connection: a socket that comes back by itself. It knows ways, tickets, delays and silence, and nothing of what the frames say.
 *
 * The first try is at once, the rest with full jitter; progress or calm resets the delay, a mere handshake does not. Delays as in
 * kit/client.py, which says why.
 */

import { CloseCode, SUBPROTOCOL } from "./wire.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** @typedef {import("./transports.js").Way} Way */
/** @typedef {import("./transports.js").Socket} Socket */
/** @typedef {"connecting" | "open" | "waiting" | "closed"} Phase */
/**
 * Whose connection it is: `query` tells where to begin, `heard` gets each frame from `hello` on, `lost` the close code.
 * @typedef {{query(): string, heard(frame: Frame): void, lost(code: number): void, say(phase: Phase, words: string): void}} Owner
 */
/**
 * @typedef {object} Options
 * @property {string} [ticket] a single-use ticket to begin with
 * @property {() => Promise<string> | string} [getTicket] where a new one comes from when none is left
 * @property {() => number} random in [0, 1)
 * @property {() => number} now ms
 * @property {(f: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/** All in ms. */
const BASE = 500;
const CAP = 15_000;
/** What a server may name as a delay: less is no slot of this page's own, more is cut off. */
const [SLOT, LONGEST] = [100, 60_000];
const CALM = 5_000;
const SILENCE = 25_000;
const OPENING = 10_000;
const BEAT = 10_000;
const ANSWER = 20_000;
const TICKET = 50 * 60_000;

export class Connection {
  /** Said hello, so frames may be sent. */ open = false;
  /** How the instance was reached, in words for a person; empty for the best way. */ by = "";

  /** Ways left in this round of tries. @type {Way[]} */ #round = [];
  /** The way that worked last. @type {Way | undefined} */ #good;
  /** @type {Socket | null} */ #socket = null;
  /** @type {string | null} */ #ticket;
  /** The ticket was never tried. */ #fresh = false;
  /** Rounds that ended without a hello since the ticket came. */ #refused = 0;
  /** Tries since the last progress; the delay grows with it. */ #tries = 0;
  #asking = false;
  #closed = false;
  #heardAt = 0;
  /** @type {Map<string, any>} */ #timers = new Map();
  #ways;
  #shelf;
  #options;
  #owner;

  /** @param {Way[]} ways best first @param {import("./shelf.js").Shelf} shelf @param {Options} options @param {Owner} owner */
  constructor(ways, shelf, options, owner) {
    this.#ways = ways;
    this.#shelf = shelf;
    this.#options = options;
    this.#owner = owner;
    this.#good = ways.find((way) => way.name === shelf.get("way"));
    this.#ticket = options.ticket ?? shelf.get("ticket");
    for (const name of ["online", "pageshow"]) addEventListener(name, this.#wake);
    document.addEventListener("visibilitychange", this.#wake);
    this.#after("dial", 0, () => this.#dial());
  }

  /** @param {string} text */
  send(text) {
    this.#socket?.send(text);
  }

  /** Something new came: the delay begins anew. */
  progress() {
    this.#tries = 0;
  }

  close() {
    this.#closed = true;
    for (const name of ["online", "pageshow"]) removeEventListener(name, this.#wake);
    document.removeEventListener("visibilitychange", this.#wake);
    this.#hangUp();
    for (const name of [...this.#timers.keys()]) this.#cancel(name);
  }

  // ---- connecting ----

  #dial() {
    if (this.#closed || this.#socket) return;
    if (!this.#ticket && this.#options.getTicket) return this.#ask();
    if (!this.#round.length) this.#round = this.#newRound();
    const way = /** @type {Way} */ (this.#round.shift());
    this.#owner.say("connecting", way === this.#ways[0] ? "connecting" : `connecting ${way.name}`);
    const protocols = this.#ticket ? [SUBPROTOCOL, `ticket.${this.#ticket}`] : [SUBPROTOCOL];
    try {
      this.#attend(way.open(this.#owner.query(), protocols), way);
    } catch {
      this.#lost(1006, ""); // a https page may not open ws:// in every browser
    }
  }

  /** What worked before is tried alone until it has failed twice; the kernel only with a ticket that cannot be stale. */
  #newRound() {
    if (this.#good && this.#refused < 2 && !this.#fresh) return [this.#good];
    const ways = this.#ways.filter((way) => this.#fresh || !way.kernel);
    this.#fresh = false;
    return ways.length ? ways : [...this.#ways];
  }

  /** @param {Socket} socket @param {Way} way */
  #attend(socket, way) {
    this.#socket = socket;
    this.#heardAt = this.#options.now();
    this.#after("silence", OPENING, () => this.redial());
    const mine = (/** @type {Function} */ f) => (/** @type {any} */ event) => socket === this.#socket && f(event);
    socket.onmessage = mine((/** @type {MessageEvent} */ event) => this.#hear(JSON.parse(event.data), way));
    socket.onclose = mine((/** @type {CloseEvent} */ event) => this.#lost(event.code, event.reason));
  }

  /** The connection ended, or never began: decide when to try again. @param {number} code @param {string} reason */
  #lost(code, reason) {
    const greeted = this.open;
    this.#hangUp();
    this.#owner.lost(code);
    if (!greeted && this.#round.length) return this.#dial();
    if (!greeted) this.#refused += 1;
    if (code === CloseCode.EXPIRED) this.#forgetTicket();
    if (code === CloseCode.FLOODING) this.#tries = Math.max(this.#tries, 3);
    // Page script sees any refusal before 101 as 1006: after the second, the ticket may well be spent, so another is asked for.
    if (this.#refused >= 2) this.#options.getTicket ? this.#ask() : this.#forgetTicket(); // without one there may be a cookie
    const [own, named] = [this.#backoff(), code === CloseCode.RESTART && /^\d{1,9}$/.test(reason) ? Number(reason) : 0];
    this.#wait(named >= SLOT ? Math.min(named, LONGEST) : own, code);
  }

  /** The first try at once, then full jitter: pages that lost the same instance must not come back together. */
  #backoff() {
    const tries = this.#tries++;
    return tries === 0 ? 0 : this.#options.random() * Math.min(CAP, BASE * 2 ** (tries - 1));
  }

  /** @param {number} ms @param {number} [code] */
  #wait(ms, code) {
    const why = code === CloseCode.FLOODING ? "told to slow down: " : code === CloseCode.RESTART ? "the instance restarts: " : "";
    this.#owner.say("waiting", `${why}reconnecting${ms < 100 ? "" : ` in ${(ms / 1000).toFixed(1)} s`}`);
    this.#after("dial", ms, () => this.#dial());
  }

  /** The other side is silent or contradicts itself: dial anew, with the cursor. */
  redial() {
    const socket = this.#socket;
    this.#socket = null; // first, so that its own close event finds nothing to do
    socket?.close();
    this.#lost(1006, "");
  }

  #hangUp() {
    const socket = this.#socket;
    this.#socket = null;
    this.open = false;
    this.#cancel("silence");
    this.#cancel("calm");
    this.#cancel("ticket");
    socket?.close();
  }

  /** The page is back, or the network: do not sit out a delay or wait for a silence to be long enough. */
  #wake = () => {
    if (document.visibilityState === "hidden") return;
    if (this.#timers.has("dial")) this.#after("dial", 0, () => this.#dial());
    else if (this.open && this.#options.now() - this.#heardAt > BEAT + 2_000) this.redial();
  };

  // ---- tickets ----

  /** Ask for a new ticket; meanwhile the old one goes on being tried, for a kernel that is busy answers late. */
  #ask() {
    if (!this.#ticket) this.#owner.say("waiting", "waiting for a ticket: the kernel is busy or gone");
    if (this.#asking) return;
    this.#asking = true;
    this.#after("ask", ANSWER, () => this.#answered(null));
    const ticket = async () => this.#options.getTicket?.();
    ticket().then((ticket) => this.#answered(ticket ?? null), () => this.#answered(null));
  }

  /** @param {string | null} ticket */
  #answered(ticket) {
    if (this.#closed || (!ticket && !this.#asking)) return;
    this.#asking = false;
    this.#cancel("ask");
    if (ticket) [this.#ticket, this.#fresh, this.#refused, this.#round] = [ticket, true, 0, []];
    if (this.#socket || this.#timers.has("dial")) return;
    if (ticket) this.#dial();
    else this.#wait(this.#backoff());
  }

  #forgetTicket() {
    // Another page of this session may have put its own.
    if (this.#shelf.get("ticket") === this.#ticket) this.#shelf.remove("ticket");
    this.#ticket = null;
  }

  // ---- listening ----

  /** @param {Frame} frame @param {Way} way */
  #hear(frame, way) {
    this.#heardAt = this.#options.now();
    if (frame.type === "hello") this.#greet(frame, way);
    if (this.open && frame.type !== "beat") this.#owner.heard(frame);
  }

  /** @param {Frame} hello @param {Way} way */
  #greet(hello, way) {
    [this.open, this.#refused, this.#round] = [true, 0, []];
    [this.#good, this.#ticket, this.#fresh] = [way, hello.ticket ?? null, false];
    if (hello.ticket) this.#shelf.set("ticket", hello.ticket);
    if (!way.kernel) this.#shelf.set("way", way.name);
    this.by = way === this.#ways[0] ? "" : ` ${way.name}`;
    this.#after("silence", SILENCE, () => this.#listenUp());
    this.#after("calm", CALM, () => this.progress());
    // Each hello brings a ticket for an hour. Later, a page whose kernel is busy could not come back.
    this.#after("ticket", TICKET, () => this.redial());
  }

  /** One timer, not one a frame: when it fires, it looks how long the silence really is. */
  #listenUp() {
    const left = SILENCE - (this.#options.now() - this.#heardAt);
    if (left <= 0) this.redial();
    else this.#after("silence", left, () => this.#listenUp());
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
