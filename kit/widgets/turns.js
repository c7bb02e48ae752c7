// @ts-check
/** Turns: what is open in a session, folded from its entries. It decides which buttons work and which actions wait for this page. */

/** @typedef {import("./wire.js").Frame} Frame */
/** An action or ask, and what has come of it. @typedef {{frame: Frame, claim?: Frame, answer?: Frame, result?: Frame}} Call */

export class Turns {
  /** Turns that have not ended, by name (`<id of the word>/<agent>`), with the word's text. @type {Map<string, string>} */ open = new Map();
  /** @type {Map<string, Call>} */ calls = new Map();
  /** Those that no word has ended: an edit of another one comes too late, and opens nothing. @type {Set<string>} */ #live = new Set();

  /** @param {Frame} frame */
  see(frame) {
    const call = this.calls.get(frame.call);
    switch (frame.type) {
      case "stop":
        for (const turn of frame.turn ? [frame.turn] : [...this.#live]) this.#live.delete(turn);
        break;
      case "edit":
        if (this.#live.delete(frame.turn ?? "")) this.#begin(frame);
        break;
      case "prompt":
        this.#begin(frame);
        break;
      case "action":
      case "ask":
        this.calls.set(frame.call, { frame });
        break;
      case "claim":
      case "answer":
      case "result":
        if (call) call[frame.type] ??= frame; // the first one counts
        break;
      case "end":
        this.open.delete(frame.turn ?? "");
        this.#live.delete(frame.turn ?? "");
        for (const [name, { frame: asked }] of this.calls) if (asked.turn === frame.turn) this.calls.delete(name);
        return;
    }
  }

  /** @param {Frame} word */
  #begin(word) {
    for (const turn of asked(word).map((agent) => `${word.id}/${agent}`)) {
      this.open.set(turn, word.text);
      this.#live.add(turn);
    }
  }

  clear() {
    this.open.clear();
    this.#live.clear();
    this.calls.clear();
  }

  /** The newest open turn, which `edit` is about. @returns {{turn: string, text: string} | undefined} */
  get editable() {
    const newest = [...this.open].pop();
    return newest && { turn: newest[0], text: newest[1] };
  }
}

/** The agents whose turns a word opens. @param {Frame} frame @returns {string[]} */
function asked(frame) {
  return frame.type === "edit" ? [agentOf(frame.turn ?? "")] : frame.to.split(",");
}

/** The agent of a turn. @param {string} turn */
export function agentOf(turn) {
  return turn.slice(turn.indexOf("/") + 1);
}
