// @ts-check
/** Faults: buttons and sliders for what happens to a session's line, to the instance behind it, and to the store. */

import { tell } from "./comm.js";
import { element } from "./text.js";

/** A button does `what`; where it names `over`, it is a switch, and that ends it. @typedef {{what: string, text: string, about: string, over?: string}} Act */
/** @typedef {{said: string, instance: string, on: string[], delay: number, jitter: number, rate: number | null, runs: boolean, record: string, ended?: boolean}} State */

/** @type {Record<string, Act[]>} */
const ACTS = {
  "The line": [
    { what: "cut", text: "Cut", about: "Both ends lose the connection, at once and without a word" },
    { what: "vanish", over: "appear", text: "Half-open", about: "Nothing of this connection comes through any more, and nobody is told; a new one passes" },
    { what: "shut", text: "Accept, then close", about: "The next connection ends right after its handshake" },
    { what: "linger", text: "Duplicate", about: "The client loses its connection and the server does not hear of it: it has the old one beside the new" },
    { what: "stall", over: "flow", text: "Slow reader", about: "Nothing that the server sends is read, so that its buffers fill" },
  ],
  "The instance": [
    { what: "freeze", over: "thaw", text: "Freeze", about: "It does nothing and does not know that time passes; when it thaws, it goes on" },
    { what: "stop", text: "Stop", about: "Gone in the middle of a word: nothing is handed over" },
    { what: "leave", text: "Leave", about: "An orderly exit, as for a deploy: turns are handed over, clients told to come back" },
    { what: "start", text: "Cold start", about: "It begins anew at its address, knowing nothing" },
  ],
  "The store": [
    { what: "pause", over: "resume", text: "Pause", about: "It answers nobody; what was asked is answered afterwards" },
    { what: "trim", text: "Trim", about: "The beginning of the log goes, up to the last word or the oldest open turn" },
    { what: "flush", text: "Flush", about: "All that it holds is lost" },
  ],
};
const RATES = [null, 100_000, 50_000, 20_000, 10_000, 5_000, 2_000, 1_000, 500];
const perSecond = (/** @type {number | null} */ rate) => (rate === null ? "no limit" : rate < 1_000 ? `${rate} B/s` : `${rate / 1_000} kB/s`);
const milliseconds = (/** @type {number} */ seconds) => `${Math.round(seconds * 1_000)} ms`;

/** A slider's name, its last step, and the value of a step in the kernel's unit, and in words.
 * @type {Record<string, {text: string, steps: number, value: (step: number) => number | null, words: (value: any) => string}>} */
const KNOBS = {
  delay: { text: "Delay, one way", steps: 50, value: (step) => step / 50, words: milliseconds },
  jitter: { text: "Jitter, up to", steps: 50, value: (step) => step / 50, words: milliseconds },
  rate: { text: "Rate", steps: RATES.length - 1, value: (step) => RATES[step], words: perSecond },
};

/** For anywidget. @param {{model: any, el: HTMLElement}} widget */
function render({ model, el }) {
  /** @type {{button: HTMLElement, act: Act}[]} */ const buttons = [];
  /** @type {Record<string, (value: number | null) => void>} */ const knobs = {};
  const said = element("span", { class: "kit-state", role: "status" });
  const instance = element("p", { class: "kit-note", role: "status" });
  const record = element("pre", { class: "kit-record", tabindex: "0", role: "region", "aria-label": "What was done, as code" });
  const anew = element("button", { type: "button", title: "Forget what was done; what follows is counted from here" }, "Begin the record anew");
  const groups = Object.entries(ACTS).map(([title, acts]) => element("fieldset", {}, element("legend", {}, title), ...acts.map(button)));
  groups[0].append(...Object.keys(KNOBS).map(slider));
  const root = element("section", { class: "kit kit-faults", "aria-label": "Faults" },
    element("header", { class: "kit-bar" }, said, element("bdi", { class: "kit-name" }, model.get("session"))),
    element("div", { class: "kit-places" }, ...groups), instance, record, element("div", { class: "kit-choices" }, anew));

  /** @param {Act} act */
  function button(act) {
    const made = element("button", { type: "button", title: act.about, "data-what": act.what }, act.text);
    made.addEventListener("click", () => press(made.getAttribute("aria-pressed") === "true" && act.over ? act.over : act.what));
    buttons.push({ button: made, act });
    return made;
  }

  /** @param {string} name */
  function slider(name) {
    const { text, steps, value, words } = KNOBS[name];
    const output = element("output", { "aria-live": "off" }); // the slider itself says it
    const input = /** @type {HTMLInputElement} */ (element("input", { type: "range", min: "0", max: String(steps), value: "0" }));
    const tell = () => {
      output.textContent = words(value(input.valueAsNumber));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    /** What it was moved to, until the kernel says the same: older answers would move it back. @type {number | null | undefined} */ let moved;
    input.addEventListener("input", () => { // while it is dragged; what that comes to is one fault
      moved = value(input.valueAsNumber);
      tell();
    });
    input.addEventListener("change", () => press(name, value(input.valueAsNumber)));
    knobs[name] = (set) => {
      if (moved !== undefined && moved !== set) return;
      moved = undefined;
      const step = Array.from({ length: steps + 1 }, (_, i) => i).findIndex((i) => value(i) === set);
      if (step >= 0) input.value = String(step);
      tell();
      if (step < 0) output.textContent = words(set); // a cell may set what no step stands for
    };
    return element("label", { class: "kit-knob" }, text, input, output);
  }

  /** @param {string} what @param {number | null} [value] */
  function press(what, value = null) {
    tell(model, { kit: "fault", what, value });
  }

  function draw() {
    /** @type {State} */ const state = model.get("state");
    if (said.textContent !== state.said) said.textContent = state.said; // a status speaks up when it is written
    if (instance.textContent !== state.instance) instance.textContent = state.instance;
    said.dataset.phase = state.ended ? "closed" : state.on.length ? "waiting" : "open";
    record.textContent = state.record;
    for (const { button, act } of buttons) {
      if (act.over) button.setAttribute("aria-pressed", String(state.on.includes(act.what)));
      const fits = act.what === "start" ? !state.runs : state.runs || !["freeze", "stop", "leave"].includes(act.what);
      button.toggleAttribute("disabled", !!state.ended || !fits);
    }
    for (const [name, set] of Object.entries(knobs)) set(/** @type {any} */ (state)[name]);
  }

  anew.addEventListener("click", () => tell(model, { kit: "clear" }));
  model.on("change:state", draw);
  el.append(root);
  draw();
  return () => {
    model.off("change:state", draw);
    root.remove();
  };
}

export default { render };
