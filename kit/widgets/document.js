// @ts-check
/**
 * Document: a text that people and agents write at once, as a page has it. The rules are kit/document.py's and kit/replica.py's, which say
 * why; here stands the same in JavaScript, and what a page that goes away leaves behind for the next one.
 *
 * Places are counted in code points, as the log has them.
 */

import { compare, randomRef } from "./wire.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** A piece that an agent wrote. @typedef {Frame & {turn: string, n: number}} Written */
/** @typedef {{at: number, delete?: number, insert?: string}} Splice */
/** A run of text by code points, the numbers of the entries it came and went with; or, with a `turn`, where that turn's agent writes.
 * @typedef {{text: string[], came: number, went: number, turn?: string}} Piece */
/** A patch under way. @typedef {{ref: string, base: string, splices: Splice[]}} Sent */
/** What a page leaves behind: the patch under way, and what was typed over that; both in the text as it stood at the entry `head` of `log`.
 * @typedef {{log: string, head: string, sent: Sent | null, typed: Splice[]}} Left */

/** Entries that a patch may be behind. */
const HORIZON = 1_000;
const MAX_TEXT = 100_000;
const MAX_SPLICES = 16;
/** Characters in one patch, so that it is no word too long: JSON may need six bytes for each. */
const MAX_INSERT = 8_000;
/** What was sent, what will be sent next, and never: above the number of any entry. */
const [SENT, TYPED, NEVER] = [2 ** 52, 2 ** 52 + 1, 2 ** 52 + 2];

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
  /** @type {Sent | null} */ #sent = null;
  /** The patch under way is another page's: it is to be said again, to learn what became of it. */ #again = false;
  /** What another page left behind, until its place has been read. @type {Left | null} */ #left;
  opened = false;
  /** What was left behind and has no place here, for a person to see. */ lost = "";

  /** @param {Left | null} left what another page left behind of this log */
  constructor(left = null) {
    this.#left = left;
  }

  /** Whether there is a document yet, with all in it that another page left behind: before that, nobody can type. */
  get ready() {
    return this.opened && !this.#left;
  }

  /** What the person sees. */
  get text() {
    return this.#read(TYPED).join("");
  }

  /** Whether something that was typed does not stand in the log yet. */
  get unsettled() {
    return this.#pieces.some((p) => (p.came >= SENT || (p.went >= SENT && p.went < NEVER)) && !(p.came === TYPED && p.went === TYPED));
  }

  /** Change what the person sees. @param {number} at @param {number} gone @param {string} insert */
  type(at, gone, insert) {
    this.#splice(TYPED, TYPED, [{ at, delete: gone, insert }]);
  }

  /** Take in the next entry of the log. @param {Frame} entry */
  take(entry) {
    const number = this.#head + 1;
    if (entry.type === "document") this.opened = true;
    if (entry.type === "write") this.#write(number, /** @type {Written} */ (entry));
    if (entry.type === "patch") {
      const base = this.#base(entry);
      if (entry.ref === this.#sent?.ref) this.#settle(base === null ? TYPED : number);
      else if (base !== null) this.#splice(number, base, entry.splices);
    }
    this.#head = number;
    this.#ids.push(entry.id);
    if (this.#ids.length > HORIZON) this.#ids.shift();
    if (number % 256 === 0) this.#forget(number - this.#ids.length + 1);
    if (this.#left && compare(entry.id, this.#left.head) >= 0) this.#takeUp(this.#left);
  }

  /** What a page that goes away leaves behind; null where all that was typed stands in the log. @param {string} log */
  left(log) {
    if (this.#left) return this.#left;
    if (!this.unsettled) return null;
    const pieces = this.#pieces;
    this.#pieces = pieces.map((piece) => ({ ...piece }));
    const typed = this.#readOff(SENT, Infinity, Infinity);
    this.#pieces = pieces;
    return { log, head: this.#ids[this.#ids.length - 1], sent: this.#sent, typed };
  }

  /** Nothing was typed here: somebody else says it. */
  forget() {
    this.#pieces = this.#pieces.filter((piece) => piece.came < SENT);
    for (const piece of this.#pieces) if (piece.went >= SENT) piece.went = NEVER;
    [this.#sent, this.#left] = [null, null];
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

  /** The next patch to say; null where nothing was typed, or one is under way. */
  send() {
    if (this.#again) {
      this.#again = false;
      if (this.#sent) return this.#sent;
    }
    const splices = this.#sent || !this.ready ? [] : this.#readOff(this.#head, MAX_SPLICES, MAX_INSERT);
    if (splices.length) return (this.#sent = { ref: randomRef(), base: this.#ids[this.#ids.length - 1], splices });
    return null;
  }

  /** The patch will not come: what it held waits to be sent again. @param {string} ref */
  refused(ref) {
    if (ref === this.#sent?.ref) this.#settle(TYPED);
  }

  // ---- the fold ----

  /** The number of the entry that a patch names; null where everybody folds the patch to nothing.
   * @param {{base: string, splices: Splice[]} | Frame} patch */
  #base(patch) {
    const base = this.#number(patch.base);
    return this.opened && base !== null && this.#fit(patch.splices, base) ? base : null;
  }

  /** Whether the text at `base` has the places of these splices, and the document has room for them.
   * @param {Splice[]} splices @param {number} base */
  #fit(splices, base) {
    let end = 0;
    let more = 0;
    for (const { at, delete: gone = 0, insert = "" } of splices) {
      if (at < end) return false;
      end = at + gone;
      more += Array.from(insert).length;
    }
    return end <= this.#length(base) && this.#length(this.#head) + more <= MAX_TEXT;
  }

  /** The last entry at or below an id: one that was left out before it, or too long ago, is null. @param {string} id */
  #number(id) {
    const last = this.#ids.length - 1;
    if (compare(id, this.#ids[0]) < 0 || compare(id, this.#ids[last]) > 0) return null;
    let i = last;
    while (compare(this.#ids[i], id) > 0) i -= 1;
    return this.#head - last + i;
  }

  /** @param {number} number @param {Written} said */
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
    this.#sent = null;
  }

  /** Stand where the page stood that left this behind: what it had sent counts as sent, what it had typed as typed. @param {Left} left */
  #takeUp(left) {
    const { head, sent, typed } = left;
    const base = this.#ids[this.#ids.length - 1] !== head ? null : sent ? this.#base(sent) : this.#head;
    this.#left = null;
    if (sent && base !== null) this.#splice(SENT, base, sent.splices);
    if (base !== null && this.#fit(typed, SENT)) {
      [this.#sent, this.#again] = [sent, true];
      this.#splice(TYPED, SENT, typed);
    } else {
      this.forget();
      this.lost = inserted(left);
    }
  }

  /** What was typed, as splices of the text at an id, at so many places at `most` and with `room` for so many characters; from now on it
   * counts as sent.
   * @param {number} view @param {number} most @param {number} room */
  #readOff(view, most, room) {
    /** @type {Required<Splice>[]} */ const splices = [];
    /** @type {Piece[]} */ const kept = [];
    /** @type {Piece[]} */ let typed = [];
    let at = 0;
    const flush = () => {
      for (const mine of typed) {
        const rest = room && mine.text.length > room ? [{ ...mine, text: mine.text.splice(room) }] : [];
        const fits = mine.text.length <= room && add(splices, { at, delete: 0, insert: mine.text.join("") }, most);
        if (fits) room -= mine.text.length;
        mine.came = fits ? SENT : TYPED;
        kept.push(mine, ...rest);
      }
      typed = [];
    };
    for (const piece of this.#pieces) {
      if (piece.came === TYPED) {
        if (piece.went === NEVER) typed.push(piece); // else typed and taken back
      } else if (!piece.text.length || !stands(piece, view)) {
        kept.push(piece);
      } else {
        flush();
        if (piece.went === TYPED && add(splices, { at, delete: piece.text.length, insert: "" }, most)) piece.went = SENT;
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

/** What had been typed, for a person to see. @param {Left} left */
export const inserted = ({ sent, typed }) => [...(sent?.splices ?? []), ...typed].map(({ insert = "" }) => insert).join("");

/** Add a splice, to the one before where it goes on there; false where there are so many at most.
 * @param {Required<Splice>[]} splices @param {Required<Splice>} more @param {number} most */
function add(splices, more, most) {
  const last = splices[splices.length - 1];
  if (last && last.at + last.delete === more.at && !(last.delete && more.insert)) {
    last.delete += more.delete;
    last.insert += more.insert;
  } else if (splices.length < most) splices.push(more);
  else return false;
  return true;
}
