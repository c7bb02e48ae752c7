// @ts-check
/** Panel: a session with buttons. `mount` works in any page; the default export is what anywidget asks for. */

import { Actions } from "./actions.js";
import { tell } from "./comm.js";
import { Documents } from "./documents.js";
import { People } from "./people.js";
import { connect } from "./session.js";
import { element, inert } from "./text.js";
import { waysFrom } from "./transports.js";
import { Turns, agentOf } from "./turns.js";
import { View } from "./view.js";
import { randomRef } from "./wire.js";

/** @typedef {import("./wire.js").Frame} Frame */
/** @typedef {import("./wire.js").Receipt} Receipt */

/** @type {Record<string, string>} */
const ENDED = { done: "is done", stopped: "was stopped", replaced: "begins anew", failed: "failed" };
/** ms after the last key until nobody is typing any more, and between two looks at who has not been heard of lately. */
const PAUSE = 3_000;
const LOOK = 5_000;

/**
 * Draw a session into `host`; returns its clean-up. `document` tells how the session of a document is reached, where that differs.
 * @param {HTMLElement} host @param {import("./session.js").Options} options
 * @param {(session: string) => Partial<import("./session.js").Options>} [document]
 */
export function mount(host, options, document = () => ({})) {
  const panel = new Panel(host, connect(options), options.session, (session) =>
    connect({ ...options, resume: false, ticket: undefined, session, ...document(session) }));
  return () => panel.close();
}

class Panel {
  #turns = new Turns();
  #people = new People();
  /** @type {ReturnType<typeof setInterval> | undefined} */ #looking;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #typing;
  /** Where there are several. @type {string[]} */ #agents = [];
  /** The turn whose prompt is being edited. @type {string | undefined} */ #editing;

  /** @param {HTMLElement} host @param {import("./session.js").Session} session @param {string} name
   * @param {import("./documents.js").Connect} document */
  constructor(host, session, name, document) {
    this.session = session;
    this.state = element("span", { class: "kit-state", role: "status" });
    this.note = element("p", { class: "kit-note", role: "status" });
    this.input = /** @type {HTMLTextAreaElement} */ (element("textarea", { rows: "1", "aria-label": "Prompt" }));
    this.send = button("Send", "submit", "Enter sends, Shift+Enter begins a new line");
    this.stop = button("Stop", "button", "Stop everything that is being said");
    this.edit = button("Edit", "button", "Change the prompt of the open turn; what was said stays known (Esc leaves it as it is)");
    this.to = /** @type {HTMLSelectElement} */ (element("select", { "aria-label": "To" }));
    this.form = element("form", { class: "kit-form" }, this.input, this.to, this.send, this.stop, this.edit);
    this.people = element("ul", { class: "kit-people", "aria-label": "Here now" });
    this.speaking = element("div", { class: "kit-speaking", role: "group", "aria-label": "Speaking or waiting" });
    const documents = element("div", { class: "kit-documents" });
    const log = element("div", { class: "kit-log" });
    this.root = element("section", { class: "kit", "aria-label": `Session ${name}` },
      element("header", { class: "kit-bar" }, this.state, element("bdi", { class: "kit-name" }, name)),
      // A log is a live region by its role; token by token that is noise, so ends are told in the note.
      element("div", { class: "kit-scroll", role: "log", "aria-live": "off", "aria-label": "Transcript", tabindex: "0" }, log),
      this.speaking, this.form, this.note, this.people, documents);
    host.append(this.root);
    this.documents = new Documents(documents, name, document);
    this.view = new View(log, (call, text) => this.#tell(session.answer(call, text)));
    this.actions = new Actions(session, this.#turns, this.root, name);
    Object.assign(this.root, { kit: this }); // for a page's own script: `document.querySelector(".kit").kit.actions.functions.set(name, f)`
    this.#listen();
  }

  close() {
    removeEventListener("pagehide", this.#pause);
    this.#pause();
    clearInterval(this.#looking);
    this.documents.clear();
    this.session.close();
    this.view.close();
    this.root.remove();
  }

  #listen() {
    const on = (/** @type {string} */ name, /** @type {(detail: any) => void} */ heard) =>
      this.session.addEventListener(name, (event) => heard(/** @type {CustomEvent} */ (event).detail));
    on("state", () => this.#state());
    on("entry", (frame) => this.#entry(frame));
    on("clear", () => { this.#turns.clear(); this.view.clear(); this.documents.clear(); this.#buttons(); });
    on("aside", (frame) => this.#aside(frame));
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.#submit(); });
    this.stop.addEventListener("click", () => this.#tell(this.session.stop()));
    this.edit.addEventListener("click", () => this.#edit(this.#turns.editable));
    this.input.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("pagehide", this.#pause);
    this.root.addEventListener("input", (event) => { if (event.target !== this.to) this.#type(); });
    this.#state();
    this.#edit();
  }

  #state() {
    const { phase, words } = this.session.state;
    this.state.textContent = words;
    this.state.dataset.phase = words.startsWith("gap") ? "gap" : phase;
    if (phase === "open") this.actions.look();
    if (phase === "connecting") this.#people.clear();
  }

  /** @param {Frame} frame */
  #aside(frame) {
    this.#people.hear(frame);
    if (frame.type === "who") this.#looking ??= setInterval(() => this.#present(), LOOK);
    if (this.#looking) this.#present();
    else if (frame.type === "typing" && (frame.on || this.note.textContent?.endsWith(" is typing"))) {
      this.#note(frame.on ? `${frame.from} is typing` : ""); // what became of one's own word stays
    }
  }

  /** Show who is here, and offer the agents to be addressed. */
  #present() {
    const people = this.#people.here.map(({ name, typing }) =>
      element("li", typing ? { class: "kit-types" } : {}, element("bdi", {}, inert(name)), typing ? " is typing" : ""));
    if (people.map((p) => p.outerHTML).join() !== [...this.people.children].map((p) => p.outerHTML).join()) this.people.replaceChildren(...people);
    const agents = this.#people.agents;
    if (agents.length < 2 || agents.join() === this.#agents.join()) return;
    const chosen = this.to.value;
    this.to.replaceChildren(...[...agents, "all"].map((name) => element("option", { value: name }, name === "all" ? "everyone" : inert(name))));
    if (agents.includes(chosen) || chosen === "all") this.to.value = chosen;
    this.#agents = agents;
    this.root.classList.add("kit-room");
    this.stop.textContent = "Stop all";
    this.#buttons();
  }

  /** @param {Frame} frame */
  #entry(frame) {
    const open = this.#turns.open.size;
    this.#turns.see(frame);
    this.view.add(frame);
    this.documents.see(frame);
    if (frame.type === "action" || frame.id === this.session.head) this.actions.look();
    if (frame.type === "prompt" || frame.type === "edit") this.#note("");
    if (frame.type === "end") this.#note(`${frame.from} ${ENDED[frame.reason]}${frame.text ? `: ${frame.text}` : ""}`);
    if (open !== this.#turns.open.size) this.#buttons();
  }

  #buttons() {
    this.stop.toggleAttribute("disabled", !this.#turns.open.size);
    this.edit.toggleAttribute("disabled", !this.#turns.editable);
    if (this.#agents.length) this.#offer();
  }

  /** A button for each open turn; one that stays keeps the focus. */
  #offer() {
    const open = [...this.#turns.open.keys()];
    for (const old of this.speaking.querySelectorAll("button")) if (!open.includes(old.value)) old.remove();
    for (const turn of open) {
      if ([...this.speaking.querySelectorAll("button")].some((old) => old.value === turn)) continue;
      const one = element("button", { type: "button", value: turn, class: "kit-do-stop", title: `Stop turn ${turn}` }, `Stop ${inert(agentOf(turn))}`);
      one.addEventListener("click", () => this.#tell(this.session.stop(turn)));
      this.speaking.append(one);
    }
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key === "Escape" && this.#editing) this.#edit();
    // 229: the key that ends a composition, which WebKit tells of when it is over (https://bugs.webkit.org/show_bug.cgi?id=165004).
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    const text = this.input.value;
    if (!text.trim()) return;
    this.#tell(this.#editing ? this.session.edit(this.#editing, text) : this.session.prompt(text, this.to.value || undefined), text);
    this.#edit();
    this.#pause();
  }

  /** Turn the prompt box to the turn that is to be edited, or back. @param {{turn?: string, text: string}} [turn] */
  #edit(turn) {
    this.#editing = turn?.turn;
    this.input.value = turn?.text ?? "";
    this.input.placeholder = "Ask something";
    this.send.textContent = turn ? "Replace" : "Send";
    this.input.setAttribute("aria-label", turn ? "Edit the prompt" : "Prompt");
    this.root.classList.toggle("kit-editing", Boolean(turn));
    this.#buttons();
    if (turn) this.input.focus();
  }

  /** Others see that somebody types; one frame as it begins, one when it ends. */
  #type() {
    if (!this.#typing) this.session.typing(true);
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => this.#pause(), PAUSE);
  }

  #pause = () => {
    if (this.#typing) this.session.typing(false);
    clearTimeout(this.#typing);
    this.#typing = undefined;
  };

  /** Say what became of a word where that is not what was wanted; what was typed comes back. @param {Promise<Receipt>} word @param {string} [text] */
  async #tell(word, text = "") {
    if (this.session.state.phase !== "open") this.#note("Kept: it is sent as soon as the connection is back.");
    const receipt = await word;
    const was = receipt.was ?? receipt.status;
    if (was === "refused") this.input.value ||= text;
    this.#note(was === "refused" ? `Refused: ${receipt.reason}` : was === "too_late" ? "Too late: there was nothing left to act on." : "");
  }

  /** @param {string} text */
  #note(text) {
    this.note.textContent = inert(text);
  }
}

/** @param {string} label @param {string} type @param {string} title */
function button(label, type, title) {
  return element("button", { type, title, class: `kit-do-${label.toLowerCase()}` }, label);
}

/**
 * A ticket comes over the comm, as a message: a trait would be saved with the notebook.
 * @param {import("./transports.js").Model} model @returns {Promise<string>}
 */
function askTicket(model) {
  const id = randomRef();
  return new Promise((done) => {
    const heard = (/** @type {any} */ message) => {
      if (message.kit !== "ticket" || message.to !== id) return;
      model.off("msg:custom", heard);
      done(message.ticket);
    };
    model.on("msg:custom", heard);
    tell(model, { kit: "ticket", id, origin: location.origin });
  });
}

/** @param {{model: import("./transports.js").Model, el: HTMLElement}} widget */
function render({ model, el }) {
  const [url, session] = [model.get("url"), model.get("session")];
  const ways = (/** @type {string} */ name) => waysFrom(`${url}/s/${name}`, model);
  return mount(el, { session, ways: ways(session), getTicket: () => askTicket(model) },
    (name) => ({ ways: ways(name) }));
}

export default { render };
