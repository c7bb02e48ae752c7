// @ts-check
/**
 * Document: a text that people and agents write at once, as a page has it. The rules are kit/document.py's and kit/replica.py's, which say
 * why; here stands the same in JavaScript, and how a textarea is bound to it.
 *
 * Places are counted in code points, as the log has them. A string counts UTF-16 units, in which an emoji is two: `units` and `points`
 * translate what a textarea says.
 */

import { compare, wellFormed } from "./wire.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** @typedef {{at: number, delete?: number, insert?: string}} Splice */
/** A run of text by code points, the numbers of the entries it came and went with; or, with a `turn`, where that turn's agent writes.
 * @typedef {{text: string[], came: number, went: number, turn?: string}} Piece */

/** Entries that a patch may be behind. */
const HORIZON = 1_000;
const MAX_TEXT = 100_000;
const MAX_SPLICES = 16;
/** ms between two patches, and after one that was refused. */
const PACE = 100;
const AGAIN = 1_000;
/** What was sent, what will be sent next, and never: above the number of any entry. */
const [SENT, TYPED, NEVER] = [2 ** 52, 2 ** 52 + 1, 2 ** 52 + 2];

/** The place in code points that stands at so many UTF-16 units. @param {string} text @param {number} units */
export const points = (text, units) => Array.from(text.slice(0, units)).length;
/** The UTF-16 units before a place in code points. @param {string} text @param {number} points */
export const units = (text, points) => Array.from(text).slice(0, points).join("").length;

/** The session in whose log a document stands. @param {string} session @param {string} name */
export function documentSession(session, name) {
  return `${session}--${name.replace(/[^A-Za-z0-9]/gu, (other) => `_${other.codePointAt(0)?.toString(16)}_`)}`;
}

/**
 * The fold, and over it what was typed here. An entry is known by its number, counted from the log's first: all that fold a log count
 * alike, and the ids that patches name as their `base` are looked up.
 */
export class Replica {
  /** @type {Piece[]} */ #pieces = [];
  /** Ids of the last entries; the last one's number is `#head`. @type {string[]} */ #ids = ["0-0"];
  /** @type {Map<string, number>} */ #written = new Map();
  #head = 0;
  #sent = "";
  opened = false;

  /** What the person sees. */
  get text() {
    return this.#read(TYPED).join("");
  }

  /** Whether something that was typed does not stand in the log yet. */
  get unsettled() {
    return this.#pieces.some((p) => (p.came >= SENT || (p.went >= SENT && p.went < NEVER)) && !(p.came === TYPED && p.went === TYPED));
  }

  /** What was typed and does not stand in the log, for when the log is gone. */
  get typed() {
    return this.#pieces.filter((p) => p.came >= SENT && p.went === NEVER).flatMap((p) => p.text).join("");
  }

  /** Change what the person sees. @param {number} at @param {number} gone @param {string} insert */
  type(at, gone, insert) {
    this.#splice(TYPED, TYPED, [{ at, delete: gone, insert }]);
  }

  /** Take in the next entry of the log. @param {Frame} entry */
  take(entry) {
    const number = this.#head + 1;
    if (entry.type === "document") this.opened = true;
    if (entry.type === "write") this.#write(number, entry);
    if (entry.type === "patch") {
      const base = this.#base(entry);
      if (entry.ref === this.#sent) this.#settle(base === null ? TYPED : number);
      else if (base !== null) this.#splice(number, base, entry.splices);
    }
    this.#head = number;
    this.#ids.push(entry.id);
    if (this.#ids.length > HORIZON) this.#ids.shift();
    if (number % 256 === 0) this.#forget(number - this.#ids.length + 1);
  }

  /** Take in entries; where places of the text are then. What comes right there goes before, as it does with what is typed there.
   * @param {Frame[]} entries @param {number[]} places */
  follow(entries, places) {
    const marks = places.map((place) => {
      const mark = { text: [], came: TYPED, went: NEVER };
      this.#pieces.splice(this.#index(TYPED, place), 0, mark);
      return mark;
    });
    for (const entry of entries) this.take(entry);
    const before = (/** @type {Piece} */ mark) => this.#pieces.slice(0, this.#pieces.indexOf(mark));
    const moved = marks.map((mark) => before(mark).reduce((sum, piece) => sum + (stands(piece, TYPED) ? piece.text.length : 0), 0));
    this.#pieces = this.#pieces.filter((piece) => !marks.includes(/** @type {any} */ (piece)));
    return moved;
  }

  /** Say the next patch, unless nothing was typed or one is under way: what `say` gives, or null.
   * @template T @param {(base: string, splices: Splice[], known: (ref: string) => void) => T} say is to tell the patch's ref */
  send(say) {
    const splices = this.#sent || !this.opened ? [] : this.#readOff();
    return splices.length ? say(this.#ids[this.#ids.length - 1], splices, (ref) => { this.#sent = ref; }) : null;
  }

  /** The patch will not come: what it held waits to be sent again. @param {string} ref */
  refused(ref) {
    if (ref === this.#sent) this.#settle(TYPED);
  }

  // ---- the fold ----

  /** The number of the entry that a patch names; null where everybody folds the patch to nothing. @param {Frame} patch */
  #base(patch) {
    const base = this.#number(patch.base);
    if (!this.opened || base === null) return null;
    let end = 0;
    let more = 0;
    for (const { at, delete: gone = 0, insert = "" } of patch.splices) {
      if (at < end) return null;
      end = at + gone;
      more += Array.from(insert).length;
    }
    return end <= this.#length(base) && this.#length(this.#head) + more <= MAX_TEXT ? base : null;
  }

  /** The last entry at or below an id: one that was left out before it, or too long ago, is null. @param {string} id */
  #number(id) {
    const last = this.#ids.length - 1;
    if (compare(id, this.#ids[0]) < 0 || compare(id, this.#ids[last]) > 0) return null;
    let i = last;
    while (compare(this.#ids[i], id) > 0) i -= 1;
    return this.#head - last + i;
  }

  /** @param {number} number @param {Frame} said */
  #write(number, said) {
    if (said.n <= (this.#written.get(said.turn) ?? 0)) return;
    this.#written.set(said.turn, said.n);
    let cursor = this.#pieces.find((piece) => piece.turn === said.turn);
    if (said.over || !cursor) {
      if (cursor) this.#pieces.splice(this.#pieces.indexOf(cursor), 1);
      const [base, at, gone] = this.#over(said.over);
      cursor = { text: [], came: number, went: NEVER, turn: said.turn };
      this.#insert(this.#index(base, at), cursor);
      this.#splice(number, base, [{ at, delete: gone }]);
    }
    const text = Array.from(said.text);
    if (text.length) this.#pieces.splice(this.#pieces.indexOf(cursor), 0, { text, came: number, went: NEVER });
  }

  /** @param {{base: string, at: number, delete?: number} | undefined} over @returns {[number, number, number]} */
  #over(over) {
    if (!over) return [this.#head, this.#length(this.#head), 0];
    const oldest = this.#head - this.#ids.length + 1;
    const base = this.#number(over.base) ?? (compare(over.base, this.#ids[0]) < 0 ? oldest : this.#head);
    return [base, Math.min(over.at, this.#length(base)), over.delete ?? 0];
  }

  /** @param {number} number @param {number} base @param {Splice[]} splices */
  #splice(number, base, splices) {
    for (const { at, delete: gone = 0, insert = "" } of splices) {
      const begin = this.#index(base, at);
      const over = gone ? this.#pieces.slice(begin, this.#index(base, at + gone)) : [];
      if (insert) this.#insert(begin, { text: Array.from(insert), came: number, went: NEVER });
      for (const piece of over) if (piece.text.length && stands(piece, base)) piece.went = Math.min(piece.went, number);
    }
  }

  // ---- what was typed ----

  /** @param {number} number */
  #settle(number) {
    for (const piece of this.#pieces) {
      if (piece.came === SENT) piece.came = number;
      if (piece.went === SENT) piece.went = number;
    }
    this.#sent = "";
  }

  /** What was typed, as splices of the text at the head; from now on it counts as sent. */
  #readOff() {
    /** @type {Required<Splice>[]} */ const splices = [];
    /** @type {Piece[]} */ const kept = [];
    /** @type {Piece[]} */ let typed = [];
    let at = 0;
    const flush = () => {
      for (const mine of typed) mine.came = add(splices, { at, delete: 0, insert: mine.text.join("") }) ? SENT : TYPED;
      kept.push(...typed);
      typed = [];
    };
    for (const piece of this.#pieces) {
      if (piece.came === TYPED) {
        if (piece.went === NEVER) typed.push(piece); // else typed and taken back
      } else if (!piece.text.length || !stands(piece, this.#head)) {
        kept.push(piece);
      } else {
        flush();
        if (piece.went === TYPED && add(splices, { at, delete: piece.text.length, insert: "" })) piece.went = SENT;
        kept.push(piece);
        at += piece.text.length;
      }
    }
    flush();
    this.#pieces = kept;
    return splices;
  }

  // ---- pieces ----

  /** @param {number} at */
  #read(at) {
    return this.#pieces.filter((piece) => stands(piece, at)).flatMap((piece) => piece.text);
  }

  /** @param {number} at */
  #length(at) {
    return this.#pieces.reduce((sum, piece) => sum + (stands(piece, at) ? piece.text.length : 0), 0);
  }

  /** Which piece begins at a place of the text at `base`; one that it lies within is cut. @param {number} base @param {number} place */
  #index(base, place) {
    for (const [i, piece] of this.#pieces.entries()) {
      if (!piece.text.length || !stands(piece, base)) continue;
      if (place === 0) return i;
      if (place < piece.text.length) {
        this.#pieces.splice(i, 1, { ...piece, text: piece.text.slice(0, place) }, { ...piece, text: piece.text.slice(place) });
        return i + 1;
      }
      place -= piece.text.length;
    }
    return this.#pieces.length;
  }

  /** Right before the i-th, behind all that came there already, but before what has yet to come. @param {number} i @param {Piece} piece */
  #insert(i, piece) {
    while (piece.came < SENT && i > 0 && this.#pieces[i - 1].came >= SENT) i -= 1;
    this.#pieces.splice(i, 0, piece);
  }

  /** Drop what went by the entry `horizon`, join what has stood since before. @param {number} horizon */
  #forget(horizon) {
    /** @type {Piece[]} */ const kept = [];
    for (const piece of this.#pieces) {
      const last = kept[kept.length - 1];
      if (piece.went <= horizon) continue;
      const settled = (/** @type {Piece} */ p) => p.went === NEVER && p.came <= horizon && !p.turn;
      if (last && settled(last) && settled(piece)) last.text = last.text.concat(piece.text);
      else kept.push(piece);
    }
    this.#pieces = kept;
  }
}

/** @param {Piece} piece @param {number} at */
const stands = (piece, at) => piece.came <= at && at < piece.went;

/** Add a splice, to the one before where it goes on there. @param {Required<Splice>[]} splices @param {Required<Splice>} more */
function add(splices, more) {
  const last = splices[splices.length - 1];
  if (last && last.at + last.delete === more.at && !(last.delete && more.insert)) {
    last.delete += more.delete;
    last.insert += more.insert;
  } else if (splices.length < MAX_SPLICES) splices.push(more);
  else return false;
  return true;
}

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

/**
 * Keep a textarea and a document alike, until the returned function is called. The caret stays where it stands in the text, whatever comes
 * before it. `session` is a Session (session.js) on the document's own session. (A browser's own undo ends where others' text comes in.)
 * @param {import("./session.js").Session} session @param {HTMLTextAreaElement} area
 * @param {{lost?: (text: string) => void, problem?: (reason: string | null) => void}} [tell] of text whose log is gone, and of refusals
 */
export function bind(session, area, tell = {}) {
  let replica = new Replica();
  /** What the textarea was last known to hold, which is the replica's text. */
  let shown = "";
  /** Entries wait for the next frame: one change of the textarea, however many come. @type {Frame[]} */
  let queue = [];
  let [composing, drawing, pause] = [false, 0, /** @type {any} */ (undefined)];

  const typed = () => {
    if (composing || area.value === shown) return;
    const edit = change(shown, wellFormed(area.value), points(area.value, area.selectionStart));
    replica.type(edit.at, edit.gone, edit.insert);
    shown = replica.text;
    say();
  };
  const draw = () => {
    drawing = 0;
    if (composing) return; // the input method has its own idea of the text until it is done
    typed();
    const places = [area.selectionStart, area.selectionEnd].map((unit) => points(area.value, unit));
    const [from, to] = replica.follow(queue.splice(0), places);
    area.readOnly = !replica.opened;
    if (area.value !== replica.text) {
      const { scrollTop, selectionDirection } = area;
      area.value = replica.text;
      area.setSelectionRange(units(area.value, from), units(area.value, to), selectionDirection);
      area.scrollTop = scrollTop;
    }
    shown = area.value;
    say();
  };
  const say = async () => {
    const receipt = pause ? null : replica.send((base, splices, known) => session.patch(base, splices, known));
    if (!receipt) return;
    pause = true;
    const { ref, status, reason } = await receipt;
    if (!pause) return; // unbound meanwhile
    if (status === "refused") replica.refused(ref);
    tell.problem?.(status === "refused" ? reason ?? "" : null);
    pause = setTimeout(() => { pause = undefined; say(); }, status === "refused" ? AGAIN : PACE);
  };
  /** @param {any} event */
  const entry = (event) => {
    queue.push(event.detail);
    drawing ||= requestAnimationFrame(draw);
  };
  const clear = () => {
    typed();
    if (replica.typed) tell.lost?.(replica.typed);
    [replica, queue, shown, area.value, area.readOnly] = [new Replica(), [], "", "", true];
  };
  const begin = () => { composing = true; };
  const finish = () => { composing = false; draw(); };
  const leave = () => {
    typed();
    clearTimeout(pause);
    pause = undefined;
    say(); // kept in storage with its ref: the next page says it
  };
  /** @type {[EventTarget, string, any][]} */
  const ears = [
    [session, "entry", entry], [session, "clear", clear], [globalThis, "pagehide", leave],
    [area, "input", typed], [area, "compositionstart", begin], [area, "compositionend", finish],
  ];
  clear();
  for (const [target, name, listener] of ears) target.addEventListener(name, listener);
  return () => {
    leave();
    cancelAnimationFrame(drawing);
    clearTimeout(pause);
    pause = undefined;
    for (const [target, name, listener] of ears) target.removeEventListener(name, listener);
  };
}
