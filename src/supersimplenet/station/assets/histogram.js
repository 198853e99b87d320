// How many pictures have which score, as columns; what people said of them in the same columns; lines of thresholds.

import { element, svg } from "./dom.js";
import { decimal, text, whole } from "./texts.js";

const EDGE = 8; // px left and right: half a slider's handle, so that it stands below its line
const BELOW = 40; // px of axis and numbers
const COLUMN = 9; // px, about
const LEAST = 3; // px: one reviewed picture among thousands is still seen
const KINDS = ["bad", "good", "open"]; // from the bottom
const MARKS = ["now", "chosen"];

/** The scale of values: round ends beyond them all, and the step of a slider. */
export function scaleOf(values) {
  const low = values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = values.reduce((most, value) => Math.max(most, value), -Infinity);
  const room = Math.max((high - low) * 0.05, 0.25);
  const step = 10 ** Math.floor(Math.log10((high - low + 2 * room) / 300));
  const digits = Math.max(0, -Math.round(Math.log10(step)));
  return {
    low: Number((Math.floor((low - room) / step) * step).toFixed(digits)),
    high: Number((Math.ceil((high + room) / step) * step).toFixed(digits)),
    step,
    digits,
  };
}

/** Numbers in each column, by what people said: `good`, `bad`, and `open` where they agree on neither. */
export function columnsOf({ scores_logit: scores, reviews }, { low, high }, count) {
  const columns = Array.from({ length: count }, () => ({ open: 0, good: 0, bad: 0 }));
  scores.forEach((score, place) => {
    const column = Math.min(count - 1, Math.floor(((score - low) / (high - low)) * count));
    columns[column][["good", "bad"].includes(reviews[place]) ? reviews[place] : "open"] += 1;
  });
  return columns;
}

/** Draw it all; returns a function that moves the lines. */
export function drawHistogram(box, { scores, parts, scale }) {
  const [width, height] = [box.clientWidth, box.clientHeight];
  const bottom = height - BELOW;
  const inner = width - 2 * EDGE;
  const x = (value) => EDGE + (inner * (value - scale.low)) / (scale.high - scale.low);
  const columns = columnsOf(scores, scale, Math.max(10, Math.round(inner / COLUMN)));
  const beyond = svg("rect", { class: "beyond", y: 0, height: bottom });
  const between = svg("rect", { class: "between", y: 0, height: bottom });
  const lines = MARKS.map((mark) => svg("line", { class: mark, y1: 0, y2: bottom + 6 }));
  const label = text("histogram.label", { number: whole(scores.scores_logit.length), from: decimal(scale.low, 1), to: decimal(scale.high, 1) });
  box.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    beyond, between,
    bars(columns, inner / columns.length, bottom),
    parts.map((value) => svg("line", { class: "part", x1: x(value), x2: x(value), y1: bottom + 2, y2: bottom + 11 })),
    svg("line", { class: "axis", x1: EDGE, x2: width - EDGE, y1: bottom + 0.5, y2: bottom + 0.5 }),
    ticks(scale, inner).map(({ value, words }) => svg("text", { x: x(value), y: height - 10 }, words)),
    lines));
  return ({ now, chosen, accept }) => {
    [now, chosen].forEach((value, place) => {
      const inside = x(Math.min(scale.high, Math.max(scale.low, value)));
      lines[place].setAttribute("x1", inside);
      lines[place].setAttribute("x2", inside);
    });
    const from = Number(lines[1].getAttribute("x1"));
    beyond.setAttribute("x", from);
    beyond.setAttribute("width", Math.max(0, width - EDGE - from));
    const start = accept === null ? from : Math.max(EDGE, x(accept));
    between.setAttribute("x", Math.min(start, from));
    between.setAttribute("width", Math.max(0, from - start));
  };
}

function bars(columns, width, bottom) {
  const most = Math.max(1, ...columns.map((column) => column.open + column.good + column.bad));
  return columns.flatMap((column, place) => {
    let y = bottom;
    return KINDS.filter((kind) => column[kind] > 0).map((kind) => {
      const height = Math.max(LEAST, ((bottom - 12) * column[kind]) / most);
      y -= height;
      return svg("rect", { class: kind, x: EDGE + place * width, y, width: Math.max(1, width - 1), height, "data-number": column[kind] });
    });
  });
}

function ticks({ low, high }, inner) {
  const rough = ((high - low) * 70) / inner;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, place) => (first + place) * step)
    .filter((value) => value - low > step * 0.2 && high - value > step * 0.2)
    .map((value) => ({ value, words: decimal(value, digits) }));
}

/** What each colour and line means. */
export function showHistogramLegend(box, { hasParts, hasGrey }) {
  const square = (kind) => svg("rect", { class: kind, x: 2, y: 2, width: 14, height: 14 });
  const entries = [
    ["open", square("open")], ["good", square("good")], ["bad", square("bad")],
    hasParts ? ["part", svg("line", { class: "part", x1: 9, x2: 9, y1: 4, y2: 14 })] : null,
    ["now", svg("line", { class: "now", x1: 9, x2: 9, y1: 0, y2: 18 })],
    ["chosen", svg("line", { class: "chosen", x1: 9, x2: 9, y1: 0, y2: 18 })],
    ["beyond", square("beyond")],
    hasGrey ? ["between", square("between")] : null,
  ].filter(Boolean);
  box.replaceChildren(...entries.map(([name, shape]) => element("span", {},
    svg("svg", { viewBox: "0 0 18 18", "aria-hidden": "true" }, shape), text(`histogram.${name}`))));
}
