// @ts-check
/** Turns: what is open in a session, folded from its entries. It decides which buttons work and which actions wait for this page. */

/** @typedef {import("./wire.js").Frame} Frame */
/** An action or ask, and what has come of it. @typedef {{frame: Frame, claim?: Frame, answer?: Frame, result?: Frame}} Call */

export class Turns {
  /** Words that opened a turn which has not ended: id -> its text, and its name once an agent spoke.
   * @type {Map<string, {text: string, turn?: string}>} */ open = new Map();
  /** @type {Map<string, Call>} */ calls = new Map();

  /** @param {Frame} frame */
  see(frame) {
    const call = this.calls.get(frame.call);
    switch (frame.type) {
      case "prompt":
      case "edit":
        this.open.set(frame.id, { text: frame.text });
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
        this.open.delete(opening(frame));
        for (const [name, { frame: asked }] of this.calls) if (asked.turn === frame.turn) this.calls.delete(name);
        return;
    }
    const turn = frame.turn && frame.type !== "stop" ? this.open.get(opening(frame)) : undefined;
    if (turn && frame.type !== "edit") turn.turn = frame.turn;
  }

  clear() {
    this.open.clear();
    this.calls.clear();
  }

  /** The newest open turn that can be edited: its agent must have spoken, for the wire names a turn by its agent. */
  get editable() {
    return [...this.open.values()].reverse().find((turn) => turn.turn);
  }
}

/** The id of the word that opened the frame's turn. @param {Frame} frame */
function opening(frame) {
  return (frame.turn ?? "").split("/")[0];
}
