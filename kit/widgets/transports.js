// @ts-check
/** Transports: the ways by which a page may reach its instance. Each opens something that works like a WebSocket. */

import { tell } from "./comm.js";
import { randomRef } from "./wire.js";

/**
 * The part of a WebSocket that a session uses.
 * @typedef {{onmessage: ?Function, onclose: ?Function, send(text: string): void, close(): void}} Socket
 */
/**
 * One way: `open` takes `?after=...&log=...` and the subprotocols. `kernel`: it needs an idle kernel, so it comes last.
 * @typedef {{name: string, kernel?: boolean, open: (query: string, protocols: string[]) => Socket}} Way
 */
/**
 * What the kernel's side of a widget offers (anywidget's model).
 * @typedef {{send(message: any): void, on(event: string, heard: Function): void, off(event: string, heard: Function): void,
 *   get(name: string): any}} Model
 */

/** The instance's own address. @param {string} url `ws://127.0.0.1:8123/s/demo` @param {typeof WebSocket} Socket @returns {Way} */
export function direct(url, Socket = WebSocket) {
  return { name: "direct", open: (query, protocols) => new Socket(url + query, protocols) };
}

/** Through jupyter-server-proxy, for a Lab on another machine. @param {string} url @param {string} base the Lab's `baseUrl` @returns {Way} */
export function viaProxy(url, base) {
  const { port, pathname } = new URL(url);
  const lab = new URL(`${base.replace(/\/$/, "")}/proxy/${port}${pathname}`, location.href);
  lab.protocol = lab.protocol.replace("http", "ws");
  return { ...direct(lab.href), name: "through the Jupyter server" };
}

/** Over the widget's comm, where a page can reach neither. @param {Model} model
 * @param {string} session the panel's own, or a document's of it @returns {Way} */
export function viaComm(model, session) {
  return { name: "through the kernel", kernel: true, open: (query, protocols) => new CommSocket(model, session, query, protocols) };
}

/**
 * The ways from this page to the panel's instance, best first. A loopback address is tried directly only from a page of this
 * machine: anywhere else it would hand the ticket to whatever listens on that port of the reader's machine.
 * @param {string} url @param {Model} model @param {{hostname: string}} page @returns {Way[]}
 */
export function waysFrom(url, model, page = location) {
  const loopback = (/** @type {string} */ host) => /^(localhost|127\..*|\[::1\])$/.test(host);
  const lab = document.getElementById("jupyter-config-data")?.textContent;
  const here = loopback(page.hostname) || !loopback(new URL(url).hostname);
  return [...(here ? [direct(url)] : []), ...(lab ? [viaProxy(url, JSON.parse(lab).baseUrl)] : []),
    viaComm(model, new URL(url).pathname.split("/").pop() ?? "")];
}

/** A WebSocket-like thing over comm messages; panel.py pipes them to the instance. @implements {Socket} */
class CommSocket {
  /** @type {?Function} */ onmessage = null;
  /** @type {?Function} */ onclose = null;
  /** @type {string[]} */ #frames = [];
  #id = randomRef();
  #model;

  /** @param {Model} model @param {string} session @param {string} query @param {string[]} protocols */
  constructor(model, session, query, protocols) {
    this.#model = model;
    model.on("msg:custom", this.#heard);
    addEventListener("pagehide", this.#leave);
    this.#say("open", { session, query, protocols, origin: location.origin });
  }

  /** Frames of one task go in one message: jupyter_server drops what is over 1,000 a second. @param {string} text */
  send(text) {
    if (this.#frames.push(text) > 1) return;
    queueMicrotask(() => this.#say("frames", { frames: this.#frames.splice(0) }));
  }

  close() {
    this.#say("close");
    this.#end();
  }

  #heard = (/** @type {any} */ message) => {
    if (message.to !== this.#id) return; // the comm is shared by all views of the panel, in all pages
    if (message.kit === "frames") for (const data of message.frames) this.onmessage?.({ data });
    if (message.kit === "closed") {
      this.#end();
      this.onclose?.({ code: message.code, reason: message.reason });
    }
  };

  #leave = () => this.close();

  #end() {
    this.#model.off("msg:custom", this.#heard);
    removeEventListener("pagehide", this.#leave);
  }

  /** @param {string} kit @param {object} [fields] */
  #say(kit, fields = {}) {
    tell(this.#model, { kit, id: this.#id, ...fields });
  }
}
