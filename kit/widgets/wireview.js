// @ts-check
/**
 * Wire view: the trace of an instance as lanes (a sequence diagram, time downwards), as a table, and as bytes. All three show one
 * selection. Only the rows in sight are in the page, so 10,000 records cost no more than 30; they arrive in batches over the comm.
 */

import { tell } from "./comm.js";
import { element, inert, shape } from "./text.js";
import { bytesOf } from "./wirebytes.js";

/** One record as wire.py sends it; `way` is a key of WAYS, `size` the bytes of a frame, or 0.
 * @typedef {[time: number, wire: number, way: string, kind: string, id: string, size: number, text: string]} Row */
/** @typedef {{n: number, time: number, paused: boolean, wire: number, way: string, kind: string, id: string, text: string, raw: Uint8Array}} Shown */
/** @typedef {import("./transports.js").Model} Model */

const LANES = ["client", "instance", "store", "agent"];
/** How a record moves: from lane, to lane, its sign, its word. @type {Record<string, [number, number, string, string]>} */
const WAYS = {
  open: [0, 1, "\u21c4", "opens"], up: [0, 1, "\u2191", "up"], down: [1, 0, "\u2193", "down"], close: [0, 1, "\u2715", "closes"],
  store: [1, 2, "\u2192", "store"], call: [1, 3, "\u25b7", "to agent"], turn: [3, 1, "\u25c1", "from agent"],
};
const COLUMNS = ["#", "time (s)", "lanes", "direction", "kind", "id", "bytes", "text"];
/** Pixels of a row, which wireview.css repeats: the place of a row is a product, not a measurement. */
const ROW = 24;
/** Rows beyond those in sight that are drawn, so that a quick wheel shows no blank. */
const SPARE = 8;
/** Seconds without a record that are drawn as a pause. */
const PAUSE = 0.5;
/** Records kept in the page; then the older half goes. */
const KEEP = 40_000;

/** The records of one trace, for as many views as show it. */
export class Log extends EventTarget {
  /** In order; their numbers have no gap. @type {Shown[]} */ rows = [];
  /** The mark (of the trace) up to which all that is kept is here. */
  mark = 0;

  /** Take in what the kernel sent; false where it begins beyond what is here: then something was lost on the way.
   * @param {{after: number, first: number, rows: Row[]}} batch what came after the mark `after`, as far as it is kept: from `first` on
   * @param {DataView} raw its frames, one behind the other */
  add({ after, first, rows }, raw) {
    if (after > this.mark) return false;
    let at = 0;
    rows.forEach(([time, wire, way, kind, id, size, text], i) => {
      const bytes = new Uint8Array(raw.buffer, raw.byteOffset + at, size);
      at += size;
      if (first + i < this.mark) return;
      const last = this.rows[this.rows.length - 1];
      this.rows.push({ n: last ? last.n + 1 : 0, paused: Boolean(last) && time - last.time > PAUSE, time, wire, way, kind, id, text, raw: bytes });
    });
    this.mark = Math.max(this.mark, first + rows.length);
    const dropped = this.rows.length > KEEP ? this.rows.splice(0, KEEP / 2).length : 0;
    this.dispatchEvent(new CustomEvent("more", { detail: dropped }));
    return true;
  }
}

export class WireView {
  /** Those that pass the filter, in order. @type {Shown[]} */ #shown = [];
  /** The number of the next record to look at. */ #next = 0;
  /** Paused: records from this number on wait. */ #until = Infinity;
  /** @type {Shown | undefined} */ #selected;
  /** @type {Map<number, HTMLElement>} */ #drawn = new Map();
  /** @type {Set<string>} */ #kinds = new Set();
  #follows = false;
  #drawing = 0;
  #log;

  /** @param {HTMLElement} host @param {Log} log @param {string} shown "wire": the filter begins with that */
  constructor(host, log, shown) {
    this.#log = log;
    this.count = element("span", { class: "kit-state" });
    this.said = element("span", { class: "kit-unseen", role: "status" });
    this.filter = /** @type {HTMLInputElement} */ (element("input", { type: "search", placeholder: "Filter by text", "aria-label": "Filter by text", title: "/ comes here, Esc clears" }));
    this.kind = /** @type {HTMLSelectElement} */ (element("select", { "aria-label": "Filter by kind", "data-lm-suppress-shortcuts": "" }, option("", "every kind"), option("wire", "\u2191\u2193 on the wire")));
    this.kind.append(...Object.entries(WAYS).map(([way, [, , sign, word]]) => option(`way:${way}`, `${sign} ${word}`)));
    if (shown === "wire") this.kind.value = shown;
    this.pause = element("button", { type: "button", "aria-pressed": "false", title: "p in the table does the same" }, "Pause");
    const heads = COLUMNS.map((name) => element("th", { scope: "col" }, ...(name === "lanes" ? LANES.map((lane) => element("span", {}, lane)) : [name])));
    this.body = element("tbody");
    this.table = element("table", { class: "kit-wire", role: "grid", tabindex: "0" },
      element("caption", { class: "kit-unseen" }, `What passed between ${LANES.join(", ")}: a row for each record, the oldest first`),
      element("thead", {}, element("tr", { "aria-rowindex": "1" }, ...heads)), this.body);
    this.scroll = element("div", { class: "kit-records" }, this.table);
    this.detail = element("div", { class: "kit-detail", role: "region", "aria-label": "Selected record" },
      element("p", {}, "Select a record to see its bytes. Keys in the table: \u2191 \u2193 select, / filter, p pause."));
    this.root = element("section", { class: "kit kit-wireview", "aria-label": "Wire" },
      element("header", { class: "kit-bar" }, this.count, this.said, element("div", { class: "kit-tools" }, this.filter, this.kind, this.pause)),
      this.scroll, this.detail);
    host.append(this.root);
    this.size = new ResizeObserver(() => this.#soon()); // its first call comes once the page has laid the view out
    this.#listen();
  }

  close() {
    cancelAnimationFrame(this.#drawing);
    this.size.disconnect();
    this.#log.removeEventListener("more", this.#more);
    this.root.remove();
  }

  #listen() {
    this.#log.addEventListener("more", this.#more);
    this.filter.addEventListener("input", () => this.#again());
    this.kind.addEventListener("change", () => this.#again());
    this.pause.addEventListener("click", () => this.#pause());
    this.root.addEventListener("keydown", (event) => this.#key(event));
    // Not click: a row that moves between press and release would get none.
    this.body.addEventListener("mousedown", (event) => {
      const n = /** @type {HTMLElement} */ (event.target).closest("tr")?.dataset.n;
      const row = this.#shown[this.#place(Number(n))];
      if (n && row) this.#select(row);
    });
    this.scroll.addEventListener("scroll", () => {
      this.#follows = this.scroll.scrollTop + this.scroll.clientHeight > this.scroll.scrollHeight - ROW;
      this.#soon();
    });
    this.size.observe(this.scroll);
    this.#more();
    this.#follows = this.#shown.length === 0; // what was recorded before is read from its beginning
  }

  /** Take in what is new. */
  #more = () => {
    const rows = this.#log.rows;
    const oldest = rows[0]?.n ?? 0;
    if (this.#shown.length && this.#shown[0].n < oldest) this.#shown = this.#shown.filter((row) => row.n >= oldest);
    for (this.#next = Math.max(this.#next, oldest); this.#next < Math.min(oldest + rows.length, this.#until); this.#next++) {
      const row = rows[this.#next - oldest];
      if (this.#passes(row)) this.#shown.push(row);
      if (!this.#kinds.has(row.kind)) this.kind.append(option(`kind:${row.kind}`, inert(row.kind)));
      this.#kinds.add(row.kind);
    }
    this.#soon();
  };

  /** @param {Shown} row */
  #passes({ way, kind, id, text }) {
    const [what, value] = this.kind.value.split(/:(.*)/s);
    if (what === "wire" ? Math.max(WAYS[way][0], WAYS[way][1]) > 1 : what && (what === "way" ? way : kind) !== value) return false;
    const wanted = this.filter.value.toLowerCase();
    return !wanted || `${kind} ${id} ${text}`.toLowerCase().includes(wanted);
  }

  /** The filter changed. */
  #again() {
    this.#shown = [];
    this.#next = 0;
    this.#more();
    this.said.textContent = `${this.#shown.length} records pass`;
    this.#reveal();
  }

  #pause() {
    const paused = this.#until === Infinity;
    this.#until = paused ? this.#next : Infinity;
    this.pause.setAttribute("aria-pressed", String(paused));
    this.pause.textContent = paused ? "Go on" : "Pause";
    this.said.textContent = paused ? "paused" : "live";
    this.#more();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [typing, there] = [event.target === this.filter, event.target === this.table];
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / ROW) - 2);
    /** @type {Record<string, number>} */
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "/" && !typing) this.filter.focus();
    else if (typing && (event.key === "Escape" || event.key === "Enter")) {
      if (event.key === "Escape") this.filter.value = "";
      this.#again();
      this.table.focus({ preventScroll: true });
    } else if (there && event.key === "p") this.#pause();
    else if (there && event.key in steps) this.#step(steps[event.key]);
    else return;
    event.preventDefault();
  }

  /** @param {number} by */
  #step(by) {
    const at = this.#selected ? this.#place(this.#selected.n) : by > 0 ? 0 : this.#shown.length;
    const hidden = this.#shown[at] !== this.#selected; // by the filter, or none is selected: then the one at its place is a step away
    const row = this.#shown[Math.max(0, Math.min(this.#shown.length - 1, at + by - Number(hidden && by > 0)))];
    if (row) this.#select(row);
  }

  /** Where record `n` stands, or would stand, among those shown. @param {number} n */
  #place(n) {
    let [low, high] = [0, this.#shown.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#shown[middle].n < n) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** @param {Shown} row */
  #select(row) {
    const { n, way, kind, id, time, wire, raw, text } = (this.#selected = row);
    const [from, to] = WAYS[way];
    const about = [`${LANES[from]} \u2192 ${LANES[to]}`, `${time.toFixed(3)} s`, wire && `wire ${wire}`, raw.length && `${raw.length} bytes`];
    const says = element("pre", { class: "kit-says", tabindex: "0", "aria-label": "Text" }, inert(text));
    this.detail.replaceChildren(element("p", {}, element("b", {}, inert(`${n} ${kind} ${id}`)), about.filter(Boolean).join(" \u00b7 ")),
      ...(raw.length ? bytesOf(raw) : []), ...(text ? [says] : []));
    this.#reveal();
    this.#follows = false;
  }

  /** Scroll as far as it takes to see the selected row. */
  #reveal() {
    const at = this.#selected ? this.#place(this.#selected.n) : 0;
    if (this.#selected && this.#shown[at] === this.#selected) {
      const { scrollTop, clientHeight } = this.scroll;
      this.#draw(); // the table may have grown since the last frame
      this.scroll.scrollTop = Math.min(at * ROW, Math.max(scrollTop, (at + 1) * ROW + this.body.offsetTop - clientHeight));
    }
    this.#soon();
  }

  #soon() {
    this.#drawing ||= requestAnimationFrame(this.#draw);
  }

  #draw = () => {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    const [total, sight] = [this.#shown.length, Math.ceil(this.scroll.clientHeight / ROW)];
    const first = Math.max(0, Math.min(this.#follows ? total : Math.floor(this.scroll.scrollTop / ROW), total - sight) - SPARE);
    const rows = this.#shown.slice(first, first + sight + 2 * SPARE);
    this.#drawn = new Map(rows.map((row) => [row.n, this.#drawn.get(row.n) ?? draw(row)]));
    rows.forEach((row, i) => {
      this.#drawn.get(row.n)?.setAttribute("aria-rowindex", String(first + i + 2));
      this.#drawn.get(row.n)?.setAttribute("aria-selected", String(row === this.#selected));
    });
    this.body.replaceChildren(space(first), ...this.#drawn.values(), space(total - first - rows.length));
    this.table.setAttribute("aria-rowcount", String(total + 1));
    this.table.setAttribute("aria-activedescendant", (this.#selected && this.#drawn.get(this.#selected.n)?.id) ?? "");
    if (this.#follows) this.scroll.scrollTop = this.scroll.scrollHeight;
    const [paused, known] = [this.#until !== Infinity, this.#next - (this.#log.rows[0]?.n ?? 0)];
    this.count.dataset.phase = paused ? "waiting" : "open";
    this.count.textContent = `${total === known ? "" : `${total} of `}${known} records${paused ? `, paused: ${this.#log.rows.length - known} more` : ""}`;
  };
}

/** @param {string} value @param {string} label */
function option(value, label) {
  return element("option", { value }, label);
}

/** Rows that are not drawn. @param {number} rows */
function space(rows) {
  return element("tr", { "aria-hidden": "true", class: "kit-space", style: `height: ${rows * ROW}px` });
}

let ids = 0;

/** @param {Shown} row */
function draw({ n, time, paused, way, kind, id, raw, text }) {
  const [, , sign, word] = WAYS[way];
  const cells = [time.toFixed(3), lanes(way, paused), `${sign} ${word}`, kind, id, raw.length ? String(raw.length) : "", text.slice(0, 200)];
  return element("tr", { id: `kit-wire-${ids++}`, class: `kit-way-${way}`, "data-n": String(n) }, element("th", { scope: "row" }, String(n)),
    ...cells.map((cell) => element("td", {}, typeof cell === "string" ? inert(cell).replace(/\n/g, " ") : cell)));
}

/** One row of the sequence diagram: the lifelines, dotted where nothing passed for a while, and an arrow. @param {string} way @param {boolean} paused */
function lanes(way, paused) {
  const [from, to] = WAYS[way];
  const [x1, x2] = [from, to].map((lane) => `${(lane + 0.5) * (100 / LANES.length)}%`);
  const tip = way === "close" ? shape("path", { d: "M-4,-4 L4,4 M-4,4 L4,-4" }) : shape("path", { d: to > from ? "M0,0 L-8,-4 V4 Z" : "M0,0 L8,-4 V4 Z" });
  return shape("svg", { class: "kit-lanes", role: "img", "aria-label": `${LANES[from]} to ${LANES[to]}${paused ? ", after a pause" : ""}` },
    ...LANES.map((_, i) => `${(i + 0.5) * (100 / LANES.length)}%`).map((x) => shape("line", { class: paused ? "kit-life kit-paused" : "kit-life", x1: x, x2: x, y1: 0, y2: "100%" })),
    shape("line", { class: "kit-arrow", x1, x2, y1: ROW / 2, y2: ROW / 2 }), shape("circle", { cx: x1, cy: ROW / 2, r: 2.5 }),
    shape("svg", { x: x2, y: ROW / 2, overflow: "visible" }, tip));
}

/** For anywidget: one log for each widget, however often JupyterLab draws it. */
export default () => {
  const log = new Log();
  let views = 0;
  /** What a batch shows to be lost, and what was sent before the page was there, is asked for. @param {Model} model */
  const ask = (model) => tell(model, { kit: "since", mark: log.mark });
  /** @param {{model: Model}} widget */
  function initialize({ model }) {
    const heard = (/** @type {any} */ message, /** @type {DataView[]} */ buffers) => {
      if (message.kit === "records" && !log.add(message, buffers[0])) ask(model);
    };
    const { raw, ...batch } = model.get("recorded");
    log.add(batch, raw);
    model.on("msg:custom", heard);
    return () => model.off("msg:custom", heard);
  }
  /** @param {{model: Model, el: HTMLElement}} widget */
  function render({ model, el }) {
    const view = new WireView(el, log, model.get("shown"));
    if (!views++) ask(model);
    return () => {
      view.close();
      if (!--views) tell(model, { kit: "rest" });
    };
  }
  return { initialize, render };
};
