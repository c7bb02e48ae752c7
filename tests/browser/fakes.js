// @ts-check
/** Fakes: a clock that a test moves, sockets that a test answers, and a storage of its own, for session.js. */

export class World {
  now = 0;
  /** @type {{f: () => void, at: number}[]} */ timers = [];
  /** @type {Socket[]} */ sockets = [];
  storage = new Storage();
  /** What happens to a socket as soon as it is dialled. @type {(socket: Socket) => void} */ meet = () => {};

  /** Options for `connect`. @param {object} [more] */
  options(more = {}) {
    // deno-lint-ignore no-this-alias -- the class below has a `this` of its own
    const world = this;
    class Dialled extends Socket {
      /** @param {string} url @param {string[]} protocols */
      constructor(url, protocols) {
        super(url, protocols, world.now);
        world.sockets.push(this);
        queueMicrotask(() => world.meet(this));
      }
    }
    return {
      url: "ws://fake", session: "demo", WebSocket: Dialled, random: () => 0.5, now: () => this.now, storage: () => this.storage,
      setTimeout: (/** @type {() => void} */ f, /** @type {number} */ ms) => {
        const timer = { f, at: this.now + ms };
        this.timers.push(timer);
        return timer;
      },
      clearTimeout: (/** @type {any} */ timer) => { this.timers = this.timers.filter((t) => t !== timer); },
      ...more,
    };
  }

  /** The socket dialled last. */
  get socket() {
    return this.sockets[this.sockets.length - 1];
  }

  /** Let time pass: what is due happens at its own moment, promises included. @param {number} ms */
  async pass(ms) {
    const until = this.now + ms;
    for (;;) {
      for (let i = 0; i < 20; i++) await null;
      const due = this.timers.filter((t) => t.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.timers = this.timers.filter((t) => t !== due);
      this.now = Math.max(this.now, due.at);
      due.f();
    }
    this.now = until;
  }
}

class Socket {
  /** @type {any[]} */ sent = [];
  /** @type {?Function} */ onmessage = null;
  /** @type {?Function} */ onclose = null;
  closed = false;

  /** @param {string} url @param {string[]} protocols @param {number} at */
  constructor(url, protocols, at) {
    this.url = url;
    this.protocols = protocols;
    this.at = at;
  }

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  /** The server says a frame. @param {...object} frames */
  say(...frames) {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** @param {object} [fields] */
  hello(fields) {
    this.say({ type: "hello", session: "demo", log: "log1", after: "0-0", head: "0-0", status: "fresh", ticket: "next", ...fields });
  }

  /** The server, or the network, ends it. @param {number} [code] @param {string} [reason] */
  end(code = 1006, reason = "") {
    this.onclose?.({ code, reason });
  }
}

class Storage {
  /** @type {Map<string, string>} */ map = new Map();
  get length() { return this.map.size; }
  /** @param {number} i */
  key(i) { return [...this.map.keys()][i] ?? null; }
  /** @param {string} key */
  getItem(key) { return this.map.get(key) ?? null; }
  /** @param {string} key @param {string} value */
  setItem(key, value) { this.map.set(key, value); }
  /** @param {string} key */
  removeItem(key) { this.map.delete(key); }
}

/** The word `1-0` and pieces of content after it, up to `1-<last>`. @param {number} last @returns {object[]} */
export function entries(last) {
  const words = [{ type: "prompt", id: "1-0", prev: "0-0", from: "ann", ref: "r", text: "hi" }];
  const pieces = Array.from({ length: last }, (_, i) => ({ type: "content", id: `1-${i + 1}`, from: "a", turn: "1-0/a", n: i + 1, text: `${i + 1} ` }));
  return [...words, ...pieces];
}

/** The ids and clears that a session hands on, in order. @param {EventTarget} session @returns {string[]} */
export function handed(session) {
  /** @type {string[]} */ const seen = [];
  session.addEventListener("entry", (event) => seen.push(/** @type {any} */ (event).detail.id));
  session.addEventListener("clear", (event) => seen.push(`clear ${/** @type {any} */ (event).detail ?? "all"}`));
  return seen;
}
