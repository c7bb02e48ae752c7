// @ts-check
/**
 * Diagram: a small flowchart drawn out of its source in the language Mermaid, as far as people draw on a napkin: `flowchart TD` or `LR`;
 * nodes `id`, `[box]`, `(round)`, `([pill])`, `[(store)]`, `{choice}`; arrows `-->`, `---`, `-.->`, `==>` with `|a label|`.
 *
 * Mermaid itself is 3 MB, and wants a page that allows inline style. JupyterLab has it, for what a cell shows: kit/lab/diagram.py.
 */

import { shape } from "./text.js";

/** @typedef {{kind: string, label: string, x: number, y: number, w: number, h: number}} Box */
/** @typedef {{from: string, to: string, arrow: string, label: string}} Edge */
/** @typedef {{across: boolean, boxes: Map<string, Box>, edges: Edge[]}} Chart */

/** Boxes, and arrows. */
const MOST = 100;
const NODE = /([\p{L}\p{N}_]+)(?:\(\[(.+?)\]\)|\[\((.+?)\)\]|\[(.+?)\]|\((.+?)\)|\{(.+?)\})?/uy;
const ARROW = /\s*(-->|---|-\.->|==>)(?:\|(.+?)\|)?\s*/y;
const SHAPES = ["pill", "store", "box", "round", "choice"];
const [EDGE, GAP, BETWEEN] = [20, 28, 56];

/** What the source says; throws an Error that names the line. @param {string} source */
export function readChart(source) {
  /** @type {Map<string, Box>} */ const boxes = new Map();
  /** @type {Edge[]} */ const edges = [];
  let direction = "";
  source.split("\n").forEach((whole, i) => {
    const line = whole.trim().replace(/\s*;$/, "");
    const fail = (/** @type {string} */ what, at = 0) => { throw new Error(`line ${i + 1}: ${what} at "${line.slice(at, at + 20)}"`); };
    if (!line || line.startsWith("%%")) return;
    if (!direction) {
      direction = /^(?:graph|flowchart)\s+(TD|TB|LR)$/.exec(line)?.[1] ?? fail("a drawing begins with `flowchart TD` or `LR`, not");
      return;
    }
    /** @type {RegExpExecArray | null} */ let arrow = null;
    let [at, last] = [0, ""];
    while (at < line.length || arrow) {
      NODE.lastIndex = at;
      const [all, id, ...labels] = NODE.exec(line) ?? fail("a box such as a[text] is missing", at);
      const kind = labels.findIndex(Boolean);
      const label = kind < 0 ? id : labels[kind].replace(/^"|"$/g, "");
      if (kind >= 0 || !boxes.has(id)) boxes.set(id, sized(SHAPES[kind] ?? "box", label));
      if (arrow) edges.push({ from: last, to: id, arrow: arrow[1], label: arrow[2] ?? "" });
      [ARROW.lastIndex, last] = [at + all.length, id];
      [at, arrow] = [at + all.length, ARROW.exec(line)];
      if (arrow) at += arrow[0].length;
      else if (at < line.length) fail("an arrow such as --> is missing", at);
    }
  });
  if (!boxes.size) throw new Error("there is nothing to draw yet");
  if (Math.max(boxes.size, edges.length) > MOST) throw new Error(`more than ${MOST} boxes or arrows`);
  return { across: direction === "LR", boxes, edges };
}

/** A box with room for its label, at about 8 px a letter. @param {string} kind @param {string} label @returns {Box} */
function sized(kind, label) {
  const [more, h] = { choice: [16, 52], store: [0, 46] }[kind] ?? [0, 36];
  return { kind, label, x: 0, y: 0, w: Math.max(56, 8 * label.length + 28) + more, h };
}

/** Whether an arrow does not point on, but back or across. @param {Chart} chart @param {Edge} edge */
function goesBack({ across, boxes }, { from, to }) {
  const [a, b] = [from, to].map((id) => /** @type {Box} */ (boxes.get(id)));
  return across ? b.x <= a.x : b.y <= a.y;
}

/** Give each box its middle: below all that point to it (an arrow that closes a circle does not count), in rows, each row centred.
 * @param {Chart} chart */
function placeBoxes(chart) {
  const { across, boxes, edges } = chart;
  const row = new Map([...boxes.keys()].map((id) => [id, 0]));
  /** @type {Edge[]} */ const down = [];
  /** @type {(from: string, to: string, seen?: Set<string>) => boolean} */
  const reaches = (from, to, seen = new Set([from])) =>
    from === to || down.some((edge) => edge.from === from && !seen.has(edge.to) && reaches(edge.to, to, seen.add(edge.to)));
  for (const edge of edges) if (!reaches(edge.to, edge.from)) down.push(edge);
  const of = (/** @type {string} */ id) => row.get(id) ?? 0;
  for (const _ of boxes) for (const { from, to } of down) row.set(to, Math.max(of(to), of(from) + 1));
  const rows = Array.from({ length: Math.max(...row.values()) + 1 }, (_, n) => [...boxes].filter(([id]) => of(id) === n).map(([, box]) => box));
  const long = (/** @type {Box} */ box) => (across ? box.h : box.w);
  const length = (/** @type {Box[]} */ boxes) => boxes.reduce((sum, box) => sum + long(box) + GAP, -GAP);
  const widest = Math.max(...rows.map(length));
  let top = EDGE;
  for (const boxes of rows) {
    const thick = Math.max(...boxes.map((box) => (across ? box.w : box.h)));
    let begin = EDGE + (widest - length(boxes)) / 2;
    for (const box of boxes) {
      const [along, deep] = [begin + long(box) / 2, top + thick / 2];
      [box.x, box.y] = across ? [deep, along] : [along, deep];
      begin += long(box) + GAP;
    }
    top += thick + BETWEEN * (across ? 1.6 : 1);
  }
  const [wide, deep] = [widest + 2 * EDGE, top - BETWEEN * (across ? 1.6 : 1) + EDGE];
  const around = edges.some((edge) => goesBack(chart, edge)) ? 1 : 0; // arrows that go back want room beside the boxes
  return across ? { width: deep, height: wide + 40 * around } : { width: wide + 60 * around, height: deep };
}

/** @param {Box} box */
function drawBox({ kind, label, x, y, w, h }) {
  const [l, r, t, b] = [x - w / 2, x + w / 2, y - h / 2, y + h / 2];
  const lid = `A${w / 2} 5 0 0`;
  const outline = kind === "choice" ? shape("path", { d: `M${l} ${y} L${x} ${t} L${r} ${y} L${x} ${b} Z` })
    : kind === "store" ? shape("path", { d: `M${l} ${t + 5} V${b - 5} ${lid} 0 ${r} ${b - 5} V${t + 5} ${lid} 0 ${l} ${t + 5} ${lid} 0 ${r} ${t + 5}` })
    : shape("rect", { x: l, y: t, width: w, height: h, rx: { pill: 18, round: 8 }[kind] ?? 0 });
  return [outline, shape("text", { x, y: y + 5, "text-anchor": "middle" }, label)];
}

/** A curve from side to side; what goes back goes around. @param {Edge} edge @param {Chart} chart
 * @param {{width: number, height: number}} size */
function drawEdge(edge, chart, { width, height }) {
  const { arrow, label } = edge;
  const { across } = chart;
  const [a, b] = [edge.from, edge.to].map((id) => /** @type {Box} */ (chart.boxes.get(id)));
  const back = goesBack(chart, edge);
  const [w, h] = [across ? BETWEEN * 0.8 : 0, across ? 0 : BETWEEN / 2];
  const [x1, y1, x2, y2] = across !== back ? [a.x + a.w / 2, a.y, b.x + (back ? b.w : -b.w) / 2, b.y] : [a.x, a.y + a.h / 2, b.x, b.y + (back ? b.h : -b.h) / 2];
  const [cx, cy, dx, dy] = !back ? [x1 + w, y1 + h, x2 - w, y2 - h] : across ? [x1, height - 6, x2, height - 6] : [width - 6, y1, width - 6, y2];
  const [ux, uy] = [Math.sign(x2 - dx) * Number(across !== back), Math.sign(y2 - dy) * Number(across === back)]; // the way the tip points
  const tip = `M${x2} ${y2} l${-8 * ux - 4 * uy} ${-8 * uy - 4 * ux} l${8 * uy} ${8 * ux} Z`;
  /** @type {Record<string, string | number>} */
  const style = { "-.->": { "stroke-dasharray": "4 3" }, "==>": { "stroke-width": 3 } }[arrow] ?? {};
  return [
    shape("path", { d: `M${x1} ${y1} C${cx} ${cy} ${dx} ${dy} ${x2} ${y2}`, ...style }),
    ...(arrow === "---" ? [] : [shape("path", { d: tip, fill: "currentColor" })]),
    ...(label ? [shape("text", { x: (x1 + 3 * cx + 3 * dx + x2) / 8, y: (y1 + 3 * cy + 3 * dy + y2) / 8 + 4, "text-anchor": "middle", class: "kit-label" }, label)] : []),
  ];
}

/** The drawing; throws an Error that says what can't be drawn. @param {string} source */
export function draw(source) {
  const chart = readChart(source);
  const size = placeBoxes(chart);
  const edges = chart.edges.flatMap((edge) => drawEdge(edge, chart, size));
  const about = `Flowchart with ${chart.boxes.size} boxes and ${chart.edges.length} arrows; its source is below`;
  return shape("svg", { viewBox: `0 0 ${size.width} ${size.height}`, width: size.width, role: "img", "aria-label": about },
    ...edges, ...[...chart.boxes.values()].flatMap(drawBox));
}
