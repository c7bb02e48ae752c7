// @ts-check
/**
 * View: a transcript drawn as it grows. Entries are queued and drawn once a frame; a run of tokens extends its last text node.
 *
 * 2,000 tokens at 1,000 a second want no more than one layout of one small block a frame: the scroller is a reversed column, so it
 * stays at the end without scrollTop, and a long text is cut at line breaks into blocks with `contain: content`.
 */

import { element, holdBack, inert } from "./text.js";

/** @typedef {import("./wire.js").Frame} Frame */

/** Characters after which a text goes on in a new block at its next line break: about 150 tokens. */
const BLOCK = 900;
/** ms of one frame that drawing may take; what is left waits for the next, so that a long log never blocks the page. */
const BUDGET = 10;

/** Glyph and word of each type: meaning is never carried by colour alone. @type {Record<string, [string, string]>} */
const KINDS = {
  prompt: ["\u276f", "prompt"], stop: ["\u25a0", "stop"], edit: ["\u270e", "edit"], answer: ["\u21b3", "answer"],
  claim: ["\u25b7", "claim"], takeover: ["\u21c4", "takeover"], thought: ["\u2234", "thought"], action: ["\u0192", "action"],
  content: ["\u25cf", "content"], ask: ["?", "ask"], result: ["=", "result"], document: ["\u25a4", "document"], write: ["\u270d", "write"],
  patch: ["\u270d", "patch"], end: ["\u2713", "end"],
};
/** @type {Record<string, string>} */
const ENDS = { done: "\u2713", stopped: "\u25a0", replaced: "\u270e", failed: "\u2715" };
/** @type {Record<string, string>} */
const PLACES = { server: "on the server", client: "in this page", approve: "on the server, once you approve" };

export class View {
  /** @type {Frame[]} */ #queue = [];
  /** What each turn is saying. @type {Map<string, Run>} */ #runs = new Map();
  /** @type {Map<string, HTMLElement>} */ #calls = new Map();
  #drawing = 0;
  #log;
  #answer;

  /** @param {HTMLElement} log where entries go @param {(call: string, text: string) => void} answer what an answer or approval does */
  constructor(log, answer) {
    this.#log = log;
    this.#answer = answer;
  }

  /** @param {Frame} frame */
  add(frame) {
    this.#queue.push(frame);
    this.#drawing ||= requestAnimationFrame(this.#draw);
  }

  clear() {
    this.#queue = [];
    this.#runs.clear();
    this.#calls.clear();
    this.#log.replaceChildren();
  }

  close() {
    cancelAnimationFrame(this.#drawing);
  }

  #draw = () => {
    const until = performance.now() + BUDGET;
    let drawn = 0;
    while (drawn < this.#queue.length && (drawn % 64 || performance.now() < until)) this.#entry(this.#queue[drawn++]);
    this.#queue.splice(0, drawn);
    for (const run of this.#runs.values()) run.flush();
    this.#drawing = this.#queue.length ? requestAnimationFrame(this.#draw) : 0;
  };

  /** @param {Frame} frame */
  #entry(frame) {
    const saying = this.#runs.get(frame.turn ?? "");
    if (saying?.takes(frame)) return saying.add(frame);
    for (const [turn, run] of this.#runs) {
      if (!isWord(frame) && turn !== frame.turn) continue; // whoever speaks at the same time goes on where he speaks
      run.flush();
      this.#runs.delete(turn);
    }
    const call = this.#calls.get(frame.call);
    switch (frame.type) {
      case "thought":
      case "content":
      case "write": {
        const run = new Run(frame, this.#item(frame));
        this.#runs.set(frame.turn ?? "", run);
        return run.add(frame);
      }
      case "action":
        return this.#action(frame);
      case "ask":
        return this.#ask(frame);
      case "claim":
      case "answer":
      case "result":
        if (call) return this.#outcome(call, frame);
    }
    this.#item(frame, ...sentence(frame));
  }

  /** One item: a glyph, a line of who and what, and its body. @param {Frame} frame @param {...Node} body */
  #item(frame, ...body) {
    const [glyph, word] = KINDS[frame.type] ?? ["\u00b7", frame.type];
    // What is written can be long: its box scrolls, and so the keyboard must reach it.
    /** @type {Record<string, string>} */
    const scrolls = frame.type === "write" ? { tabindex: "0", role: "group", "aria-label": `Written into ${inert(frame.name)}` } : {};
    const item = element("div", { class: `kit-item kit-${word}`, "data-id": frame.id },
      element("span", { class: "kit-glyph", "aria-hidden": "true" }, frame.type === "end" ? ENDS[frame.reason] : glyph),
      element("div", { class: "kit-head" },
        element("span", { class: "kit-word" }, inert(frame.type === "end" ? `${word}: ${frame.reason}` : word)),
        element("bdi", { class: "kit-from" }, inert(about(frame))),
        element("span", { class: "kit-id", title: title(frame) }, frame.id)),
      element("div", { class: "kit-body", ...scrolls }, ...body));
    this.#log.append(item);
    return item;
  }

  /** @param {Frame} frame */
  #action(frame) {
    const controls = frame.on === "approve" ? [this.#choices(frame.call, [["Approve", "yes"], ["Decline", "no"]])] : [];
    const text = Object.entries(frame.arguments).map(([name, value]) => `${name}=${legible(value)}`).join(", ");
    const item = this.#item(frame, element("code", { class: "kit-call" }, inert(`${frame.name}(${text})`)), ...controls);
    this.#calls.set(frame.call, item);
  }

  /** @param {Frame} frame */
  #ask(frame) {
    const input = /** @type {HTMLInputElement} */ (element("input", { type: "text", "aria-label": "Your answer" }));
    const form = element("form", { class: "kit-answer" }, input, element("button", { type: "submit" }, "Answer"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (input.value.trim()) this.#answer(frame.call, input.value);
    });
    const pairs = (frame.choices ?? []).map((/** @type {string} */ text) => [text, text]);
    const choices = pairs.length ? [this.#choices(frame.call, pairs)] : [];
    this.#calls.set(frame.call, this.#item(frame, element("p", { class: "kit-text" }, inert(frame.text)), ...choices, form));
  }

  /** Buttons that answer a call. @param {string} call @param {[string, string][]} pairs label and answer */
  #choices(call, pairs) {
    const buttons = pairs.map(([label, text]) => {
      const button = element("button", { type: "button" }, element("bdi", {}, inert(label)));
      button.addEventListener("click", () => this.#answer(call, text));
      return button;
    });
    return element("div", { class: "kit-choices", role: "group", "aria-label": "Choices" }, ...buttons);
  }

  /** What came of a call stands with it, and its controls go. @param {HTMLElement} item @param {Frame} frame */
  #outcome(item, frame) {
    item.querySelectorAll(".kit-choices, .kit-answer").forEach((controls) => controls.remove());
    const [glyph, word] = KINDS[frame.type];
    const line = element("div", { class: `kit-outcome${frame.error === undefined ? "" : " kit-failed"}` },
      element("span", { class: "kit-glyph", "aria-hidden": "true" }, glyph),
      element("span", { class: "kit-word" }, frame.error === undefined ? word : "error"),
      element("bdi", { class: "kit-from" }, inert(frame.from ?? "")),
      element("span", { class: "kit-id", title: title(frame) }, frame.id), ...sentence(frame));
    item.querySelector(".kit-body")?.append(line);
  }
}

/** A word opens an epoch: what is said after it stands below it. @param {Frame} frame */
const isWord = (frame) => frame.id.endsWith("-0");

/** Thought, content or writing of one turn with nothing else of it, and no word, between: one item, extended in place. */
class Run {
  #frame;
  #body;
  #id;
  #last;
  #pending = "";
  #size = BLOCK;
  /** @type {Text} */ #node = document.createTextNode("");

  /** @param {Frame} frame @param {HTMLElement} item */
  constructor(frame, item) {
    this.#frame = this.#last = frame;
    this.#body = /** @type {HTMLElement} */ (item.querySelector(".kit-body"));
    this.#id = /** @type {HTMLElement} */ (item.querySelector(".kit-id"));
    this.#block();
  }

  /** @param {Frame} frame */
  takes(frame) {
    return ["type", "turn", "from", "name"].every((field) => frame[field] === this.#frame[field]);
  }

  /** @param {Frame} frame */
  add(frame) {
    this.#pending += frame.text;
    this.#last = frame;
  }

  flush() {
    const [whole, held] = holdBack(this.#pending);
    this.#pending = held;
    if (!whole) return;
    const lines = inert(whole).split("\n");
    lines.forEach((line, i) => {
      if (i && this.#size > BLOCK) this.#block(); // the edge of the block is the line break
      else if (i) line = `\n${line}`;
      this.#node.appendData(line);
      this.#size += line.length;
    });
    if (this.#last.id !== this.#frame.id) this.#id.textContent = `${this.#frame.id} \u2026 ${this.#last.id}`;
  }

  #block() {
    this.#node = document.createTextNode("");
    this.#size = 0;
    this.#body.append(element("div", { class: "kit-text kit-block" }, this.#node));
  }
}

/** An argument of a call; a text of several lines as it is, for whoever approves it must be able to read it. @param {unknown} value */
const legible = (value) => (typeof value === "string" && value.includes("\n") ? `\n${value}` : JSON.stringify(value));

/** Who said it, and to whom or where. @param {Frame} frame */
function about(frame) {
  if (frame.type === "action") return `${frame.from} \u00b7 ${PLACES[frame.on] ?? frame.on}`;
  if (frame.type === "write") return `${frame.from} \u00b7 ${frame.name}`;
  return frame.to ? `${frame.from} \u2192 ${frame.to}` : frame.from ?? "";
}

/** @param {Frame} frame */
function title(frame) {
  const [epoch, n] = frame.id.split("-");
  return n === "0" ? `word ${epoch} of this session` : `said after word ${epoch}, number ${n}`;
}

/** The body of a short entry. @param {Frame} frame @returns {Node[]} */
function sentence(frame) {
  const { type, text, value, error, turn, by } = frame;
  let says = text ?? error ?? "";
  if (type === "result" && value !== undefined) says = typeof value === "string" ? value : JSON.stringify(value);
  if (type === "takeover") says = `${turn} ${by ? "is taken up again" : "was handed over"}`;
  if (type === "stop") says = turn ? `turn ${turn}` : "everything that is open";
  if (type === "document") says = `${frame.name} (${frame.kind})`;
  return says ? [element("span", { class: "kit-text" }, inert(says))] : [];
}
