// @ts-check
/** Wire: what travels, and how ids follow each other. The page's side of kit/packets.py. */

/**
 * One frame. The fields of each type stand in the table of the protocol (`kit.packets.frames()`).
 * @typedef {{type: string, id: string, prev?: string, from?: string, turn?: string, n?: number, [field: string]: any}} Frame
 */
/**
 * What became of a word.
 * @typedef {{ref: string, status: "applied" | "duplicate" | "too_late" | "refused", id?: string, was?: string, reason?: string}} Receipt
 */

export const SUBPROTOCOL = "kit.v1";
/** Bytes in one word: 60 KiB less what door and log fill in (packets.MAX_BODY). */
export const MAX_WORD = 59 * 1024;
/** Close codes that a page acts on (packets.CloseCode). */
export const CloseCode = { RESTART: 1012, EXPIRED: 4401, FLOODING: 4408 };

/** @param {string} id @returns {[number, number]} epoch and number; counters, so they stay far below 2^53 */
export function parse(id) {
  const [epoch, n] = id.split("-").map(Number);
  return [epoch, n];
}

/** Negative, zero or positive as `a` stands before, at or after `b`. @param {string} a @param {string} b */
export function compare(a, b) {
  const [[ae, an], [be, bn]] = [parse(a), parse(b)];
  return ae - be || an - bn;
}

/** Does the entry come next? `e-n` follows `e-(n-1)`, and `e-0` follows its `prev`. @param {Frame} entry @param {string} cursor */
export function follows(entry, cursor) {
  const [epoch, n] = parse(entry.id);
  return cursor === (n === 0 ? entry.prev : `${epoch}-${n - 1}`);
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/** 24 random characters. On plain http only getRandomValues exists: no randomUUID, no crypto.subtle. */
export function randomRef() {
  return Array.from(crypto.getRandomValues(new Uint8Array(24)), (byte) => ALPHABET[byte & 63]).join("");
}

/** Half a surrogate pair is no text and no server takes it. @param {string} text */
export function wellFormed(text) {
  return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
}
