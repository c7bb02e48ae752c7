// @ts-check
/** Travel: what a session had said at the id that a slider points to, drawn anew by the panel's own view. */

import { element } from "./text.js";
import { View } from "./view.js";

/** @typedef {import("./wire.js").Frame} Frame */

/** For anywidget. @param {{model: any, el: HTMLElement}} widget */
function render({ model, el }) {
  /** @type {Frame[]} */ const frames = JSON.parse(model.get("frames"));
  const name = model.get("session");
  const place = element("output", { class: "kit-state", "aria-live": "off" }); // the slider itself says it
  const slider = /** @type {HTMLInputElement} */ (element("input", { type: "range", min: "0", max: String(frames.length - 1), "aria-label": "Up to which id" }));
  const steps = [["\u25c0 Back", "One id back", -1], ["On \u25b6", "One id on", 1]].map(([text, about, by]) => {
    const step = element("button", { type: "button", title: String(about) }, String(text));
    step.addEventListener("click", () => go(slider.valueAsNumber + Number(by)));
    return step;
  });
  const log = element("div", { class: "kit-log" });
  const root = element("section", { class: "kit kit-travel", "aria-label": `Time travel, session ${name}` },
    element("header", { class: "kit-bar" }, place, element("bdi", { class: "kit-name" }, name)),
    element("div", { class: "kit-slide" }, steps[0], slider, steps[1]),
    element("div", { class: "kit-scroll", role: "region", "aria-label": "What had been said", tabindex: "0" }, log));
  el.append(root);
  const view = new View(log, () => {}); // nobody answers the past
  let drawn = 0;

  /** Show the first entries up to this one. @param {number} at */
  function show(at) {
    if (at < drawn) {
      view.clear();
      drawn = 0;
    }
    for (; drawn <= at; drawn++) view.add(frames[drawn]);
    slider.value = String(at);
    slider.setAttribute("aria-valuetext", `${frames[at].id}, ${frames[at].type}`);
    place.textContent = `at ${frames[at].id}: ${at + 1} of ${frames.length} entries`;
  }

  /** @param {number} at */
  function go(at) {
    show(Math.max(0, Math.min(frames.length - 1, at)));
    model.set("id", frames[slider.valueAsNumber].id);
    model.save_changes();
  }

  const follow = () => show(frames.findIndex((frame) => frame.id === model.get("id")));
  slider.addEventListener("input", () => go(slider.valueAsNumber));
  model.on("change:id", follow);
  follow();
  return () => {
    model.off("change:id", follow);
    view.close();
    root.remove();
  };
}

export default { render };
