// @ts-check
/** Wire bytes: a frame taken apart, its header bit by bit (RFC 6455 section 5.2). The page's side of `fields` in twin.py. */

import { element } from "./text.js";

/** One part of a frame: `raw[start, stop)`, its bits or bytes, what they say. @typedef {[string, number, number, string, string]} Field */

/** @type {Record<number, string>} */
const OPCODES = { 0x0: "continuation", 0x1: "text", 0x2: "binary", 0x8: "close", 0x9: "ping", 0xa: "pong" };
/** Bytes in a line of the dump, and lines at most: nobody reads 64 KiB byte by byte. */
const WIDTH = 16;
const LINES = 64;

/** @param {Uint8Array} bytes */
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** Each part of a whole frame, in order. @param {Uint8Array} raw @returns {Field[]} */
export function fields(raw) {
  const [first, second] = [raw[0], raw[1]].map((byte) => byte.toString(2).padStart(8, "0"));
  const [rsv, masked, short] = [first.slice(1, 4), second[0] === "1", parseInt(second.slice(1), 2)];
  const at = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0);
  const from = at + (masked ? 4 : 0);
  /** @type {Field[]} */
  const found = [
    ["FIN", 0, 1, first[0], first[0] === "1" ? "last fragment" : "more follow"],
    ["RSV1-3", 0, 1, rsv, rsv === "100" ? "compressed (RFC 7692)" : rsv === "000" ? "no extension" : "an extension's"],
    ["opcode", 0, 1, first.slice(4), OPCODES[parseInt(first.slice(4), 2)] ?? "reserved"],
    ["MASK", 1, 2, second[0], masked ? "masked" : "not masked"],
    ["payload length", 1, 2, second.slice(1), at > 2 ? `${short}: see the next ${8 * (at - 2)} bits` : `${short} bytes`],
  ];
  if (at > 2) found.push(["extended payload length", 2, at, hex(raw.subarray(2, at)), `${raw.subarray(2, at).reduce((sum, byte) => sum * 256 + byte, 0)} bytes`]);
  if (masked) found.push(["masking key", at, from, hex(raw.subarray(at, from)), "XORed with the payload"]);
  return [...found, ["payload", from, raw.length, "", `${raw.length - from} bytes${masked ? ", masked" : ""}`]];
}

/** The parts in boxes, one for each byte or run of bytes, and all bytes as sent. @param {Uint8Array} raw @returns {HTMLElement[]} */
export function bytesOf(raw) {
  const parts = fields(raw);
  /** @type {Map<string, HTMLElement>} */
  const boxes = new Map();
  for (const [name, start, stop, bits, means] of parts) {
    const range = stop - start === 1 ? `byte ${start}` : stop > start ? `bytes ${start}\u2013${stop - 1}` : "no bytes";
    if (!boxes.has(range)) boxes.set(range, element("dl", { class: "kit-box", "data-part": part(name), "data-range": range }));
    boxes.get(range)?.append(element("div", {}, element("dt", {}, name), element("dd", {}, element("code", {}, bits), element("span", {}, means))));
  }
  return [element("div", { class: "kit-boxes" }, ...boxes.values()), dump(raw, parts)];
}

/** @param {string} name */
function part(name) {
  return name === "payload" ? "payload" : name === "masking key" ? "key" : name.startsWith("extended") ? "length" : "head";
}

/** Offset, bytes as sent, and the payload as it reads unmasked. @param {Uint8Array} raw @param {Field[]} parts */
function dump(raw, parts) {
  const box = element("pre", { class: "kit-dump", tabindex: "0", "aria-label": "Bytes as sent; beside them the payload, unmasked" });
  const [, from] = parts[parts.length - 1];
  const key = parts.find(([name]) => name === "masking key")?.[1];
  /** @param {number} byte @param {number} i */
  const read = (byte, i) => (i < from ? 0x20 : key === undefined ? byte : byte ^ raw[key + ((i - from) & 3)]);
  for (let at = 0; at < Math.min(raw.length, WIDTH * LINES); at += WIDTH) {
    const line = raw.subarray(at, at + WIDTH);
    box.append(element("span", { class: "kit-offset" }, at.toString(16).padStart(4, "0")), "  ");
    for (const [name, start, stop] of [/** @type {Field} */ (["head", 0, 2, "", ""]), ...parts.slice(5)]) {
      const bytes = line.subarray(Math.max(0, start - at), Math.max(0, stop - at));
      if (bytes.length) box.append(element("span", { "data-part": part(name) }, hex(bytes)), " ");
    }
    const text = Array.from(line, (byte, i) => read(byte, at + i)).map((code) => (code > 0x1f && code < 0x7f ? String.fromCharCode(code) : "\u00b7"));
    box.append("   ".repeat(WIDTH - line.length), " ", text.join(""), "\n");
  }
  if (raw.length > WIDTH * LINES) box.append(`\u2026 and ${raw.length - WIDTH * LINES} bytes more`);
  return box;
}
