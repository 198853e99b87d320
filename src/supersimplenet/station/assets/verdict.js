// How a verdict looks: a colour, a word and a shape, never the colour alone.

import { element, svg } from "./dom.js";
import { decimal, text } from "./texts.js";

export const VERDICTS = ["good", "unsure", "bad", "failed"];
const SHAPES = {
  good: () => [
    svg("circle", { class: "shape", cx: 12, cy: 12, r: 11 }),
    svg("path", { class: "stroke", d: "M6.5 12.5l3.8 3.9 7.4-8.3" }),
  ],
  unsure: () => [
    svg("path", { class: "shape", d: "M12 .5L23.5 12 12 23.5.5 12z" }),
    svg("path", { class: "stroke", d: "M9.2 9.6a2.8 2.8 0 1 1 4.3 2.3c-1 .7-1.5 1.2-1.5 2.3" }),
    svg("circle", { class: "dot", cx: 12, cy: 17.3, r: 1.35 }),
  ],
  bad: () => [
    svg("path", { class: "shape", d: "M7.5 1h9L23 7.5v9L16.5 23h-9L1 16.5v-9z" }),
    svg("path", { class: "stroke", d: "M7.6 7.6l8.8 8.8M16.4 7.6l-8.8 8.8" }),
  ],
  failed: () => [
    svg("path", { class: "shape", d: "M12 1.5L23.5 22.5H.5z" }),
    svg("path", { class: "stroke", d: "M12 9v6" }),
    svg("circle", { class: "dot", cx: 12, cy: 19, r: 1.5 }),
  ],
};

/** The verdict of a result, or "failed" where its picture could not be inspected. */
export function verdictOf(result) {
  return result.verdict ?? "failed";
}

/** The shape of a verdict. */
export function mark(verdict) {
  return svg("svg", { class: `mark ${verdict}`, viewBox: "0 0 24 24", "aria-hidden": "true" }, SHAPES[verdict]());
}

/** Shape and word, in a line. */
export function badge(verdict) {
  return element("span", { class: `badge ${verdict}` }, mark(verdict), element("span", {}, text(`verdict.${verdict}`)));
}

/** Shape and word, large. */
export function showVerdict(block, verdict) {
  if (block.dataset.verdict === verdict) return;
  block.dataset.verdict = verdict;
  block.replaceChildren(mark(verdict), element("span", { class: "word" }, text(`verdict.${verdict}`)));
  fit(block);
  if (!fitted.has(block)) new ResizeObserver(() => fit(block)).observe(block);
  fitted.add(block);
}

const fitted = new WeakSet();

/** As large as the style says, smaller where the word of a language is too long for that. */
function fit(block) {
  block.style.fontSize = "";
  const room = block.clientWidth * 0.9;
  const [shape, word] = [block.firstElementChild, block.lastElementChild].map((child) => child.getBoundingClientRect());
  const needed = word.right - shape.left;
  const size = parseFloat(getComputedStyle(block).fontSize);
  if (room > 0 && needed > room) block.style.fontSize = `${Math.floor((size * room) / needed)}px`;
}

/** The score as it is read; where rounding would put it on the threshold's other side, more digits. */
export function scoreText(result) {
  if (result.score_logit === null) return text("none");
  if (result.score === null) return text("score.logit", { score: decimal(result.score_logit, 2) });
  return number(result.score, [0.5, result.unsure_from].filter((level) => level !== null));
}

export function number(score, levels = [0.5]) {
  for (let digits = 2; digits <= 4; digits += 1) {
    const rounded = Number(score.toFixed(digits));
    const isOnItsSide = levels.every((level) => rounded >= level === score >= level);
    if (isOnItsSide && rounded < 1) return decimal(score, digits);
  }
  return score > 0.9999 ? text("score.above", { score: decimal(0.9999, 4) }) : decimal(score, 6);
}

/** What to call a result: its name, else its part, else its time. */
export function nameOf(result) {
  return result.name || result.part || result.id.slice(0, 12);
}

/** What a review says of the verdict: "false-call", "missed", "agrees", "disputed", "unusable"; null without one or the other. */
export function reviewKind(result) {
  if (result.review === null || result.verdict === null) return null;
  const said = result.review.verdict;
  if (said === "disputed" || said === "unusable") return said;
  if (result.verdict === "good") return said === "bad" ? "missed" : "agrees";
  return said === "good" ? "false-call" : "agrees";
}
