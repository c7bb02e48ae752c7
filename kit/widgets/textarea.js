// @ts-check
/**
 * Textarea: bound to a document, so that both hold the same text: what is typed goes into the log, what others write comes in around the
 * caret.
 *
 * A string counts UTF-16 units, in which an emoji is two, and a document counts code points: `units` and `points` translate.
 */

import { Replica, inserted } from "./document.js";
import { randomRef, wellFormed } from "./wire.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** @typedef {import("./document.js").Left} Left */

/** ms between two patches, and after one that was refused. */
const PACE = 100;
const AGAIN = 1_000;
/** Stands for a carriage return. */
const RETURN = "\u240d";

/** The place in code points that stands at so many UTF-16 units. @param {string} text @param {number} units */
export const points = (text, units) => Array.from(text.slice(0, units)).length;
/** The UTF-16 units before a place in code points. @param {string} text @param {number} points */
export const units = (text, points) => Array.from(text).slice(0, points).join("").length;

/** A text as a textarea can hold it, character by character: it drops a carriage return, and then no place would be right. @param {string} text */
const seen = (text) => text.replaceAll("\r", RETURN);
/** What stands in a textarea, without the signs for what it cannot hold. @param {string} text */
export const said = (text) => text.replaceAll(RETURN, "");

/** What was changed between two texts, in code points: what they have in common at the end and at the beginning is left out, and the
 * caret (a place in `now`) says which of several equal letters was typed. @param {string} was @param {string} now @param {number} caret */
export function change(was, now, caret) {
  const [before, after] = [Array.from(was), Array.from(now)];
  const most = Math.min(before.length, after.length);
  let end = 0;
  while (end < most && end < after.length - caret && before[before.length - 1 - end] === after[after.length - 1 - end]) end += 1;
  let at = 0;
  while (at < most - end && before[at] === after[at]) at += 1;
  return { at, gone: before.length - at - end, insert: after.slice(at, after.length - end).join("") };
}

/** Take what another page of this browser left behind: whoever takes it off the shelf says it, and nobody else does.
 * @param {import("./shelf.js").Shelf} shelf @returns {Left | null} */
function takeLeft(shelf) {
  const [name] = shelf.names("typed:");
  const left = JSON.parse((name && shelf.get(name)) ?? "null");
  if (left) shelf.remove(name);
  return left;
}

/** Before the next frame is drawn; in a window that nobody sees, where none is, a little later. Gives what calls it off.
 * @param {() => void} f @returns {() => void} */
function soon(f) {
  const id = document.hidden ? setTimeout(f, PACE) : requestAnimationFrame(f);
  return document.hidden ? () => clearTimeout(id) : () => cancelAnimationFrame(id);
}

/**
 * Keep a textarea and a document alike, until the returned function is called. The caret stays where it stands in the text, whatever comes
 * before it. `session` is a Session (session.js) on the document's own session. (A browser's own undo ends where others' text comes in.)
 *
 * A page that goes away (or is hidden: on a phone that may be its end) leaves on the shelf what was typed and does not stand in the log.
 * @param {import("./session.js").Session} session @param {HTMLTextAreaElement} area
 * @param {{lost?: (text: string) => void, problem?: (reason: string | null) => void, changed?: () => void}} [tell] of text that has no
 *   place, of refusals, and when the textarea holds something else
 */
export function bind(session, area, tell = {}) {
  const { shelf } = session;
  const key = `typed:${randomRef()}`;
  let left = takeLeft(shelf);
  let replica = new Replica();
  /** What the textarea was last known to hold, which is the replica's text. */
  let shown = "";
  /** Entries wait for the next frame: one change of the textarea, however many come. @type {Frame[]} */
  let queue = [];
  /** @type {(() => void) | null} */ let drawing = null;
  let [composing, kept, pause] = [false, false, /** @type {any} */ (undefined)];

  const typed = () => {
    if (composing || area.value === shown) return;
    const edit = change(shown, wellFormed(area.value), points(area.value, area.selectionStart));
    replica.type(edit.at, edit.gone, edit.insert);
    shown = seen(replica.text);
    tell.changed?.();
    say();
  };
  const draw = () => {
    drawing = null;
    if (composing) return; // the input method has its own idea of the text until it is done
    typed();
    const places = [area.selectionStart, area.selectionEnd].map((unit) => points(area.value, unit));
    const [from, to] = replica.follow(queue.splice(0), places);
    if (replica.lost) tell.lost?.(replica.lost);
    replica.lost = "";
    area.readOnly = !replica.ready;
    const text = seen(replica.text);
    if (area.value !== text) {
      const { scrollTop, selectionDirection } = area;
      area.value = text;
      area.setSelectionRange(units(area.value, from), units(area.value, to), selectionDirection);
      area.scrollTop = scrollTop;
      tell.changed?.();
    }
    shown = area.value;
    say();
  };
  const say = async () => {
    back();
    const patch = pause ? null : replica.send();
    const receipt = patch && session.patch(patch.base, patch.splices, patch.ref);
    if (document.hidden) keep();
    if (!receipt) return;
    pause = true;
    const { ref, status, reason } = await receipt;
    if (!pause) return; // unbound meanwhile
    if (status === "refused") replica.refused(ref);
    tell.problem?.(status === "refused" ? reason ?? "" : null);
    pause = setTimeout(() => { pause = undefined; say(); }, status === "refused" ? AGAIN : PACE);
  };
  const keep = () => {
    const mine = left ?? replica.left(session.log ?? "");
    if (mine) shelf.set(key, JSON.stringify(mine));
    kept = mine !== null;
  };
  /** Take it back, unless another page has taken it meanwhile. */
  const back = () => {
    if (!kept) return;
    kept = false;
    if (shelf.get(key) !== null) return shelf.remove(key);
    replica.forget();
    [left, shown] = [null, area.value = seen(replica.text)];
    tell.changed?.();
  };
  /** @param {any} event */
  const entry = (event) => {
    queue.push(event.detail);
    drawing ??= soon(draw);
  };
  const clear = () => {
    typed();
    const gone = replica.left("");
    const mine = left && left.log === session.log ? left : null;
    for (const text of [gone, mine ? null : left]) if (text) tell.lost?.(inserted(text));
    [replica, left, queue, shown, area.value, area.readOnly] = [new Replica(mine), null, [], "", "", true];
    tell.changed?.();
  };
  const begin = () => { composing = true; };
  const finish = () => { composing = false; draw(); };
  const leave = () => {
    if (pause !== true) pause = clearTimeout(pause); // there is no time to wait for the next patch
    drawing?.();
    draw();
    keep();
  };
  const look = () => (document.hidden ? leave() : draw());
  /** @type {[EventTarget, string, any][]} */
  const ears = [
    [session, "entry", entry], [session, "clear", clear], [globalThis, "pagehide", leave], [globalThis, "pageshow", draw],
    [document, "visibilitychange", look],
    [area, "input", typed], [area, "compositionstart", begin], [area, "compositionend", finish],
  ];
  [area.value, area.readOnly] = ["", true];
  for (const [target, name, listener] of ears) target.addEventListener(name, listener);
  return () => {
    leave();
    clearTimeout(pause);
    pause = undefined;
    for (const [target, name, listener] of ears) target.removeEventListener(name, listener);
  };
}
