// A decision in plain words.

import { decimal, text, whole } from "./texts.js";
import { number } from "./verdict.js";

/** Sentences: what decided, and how rare such a score is among good parts. */
export function decisionWords(result) {
  if (result.score === null) {
    return [text(`decision.uncalibrated.${result.verdict}`, { score: decimal(result.score_logit, 2) })];
  }
  const from = result.unsure_from;
  const levels = from === null ? [0.5] : [0.5, from];
  const words = {
    score: number(result.score, levels),
    threshold: decimal(0.5, 1),
    from: from === null ? "" : number(from, [0.5]),
  };
  const key = result.verdict === "good" && from !== null ? "decision.good.grey" : `decision.${result.verdict}`;
  return [text(key, words), pValueWords(result.p_value)].filter((sentence) => sentence !== null);
}

/** p-value in plain words: how many of good parts score at least this high. */
function pValueWords(value) {
  if (value === null) return null;
  const of = value >= 0.01 ? 100 : value >= 0.001 ? 1000 : 10000;
  return text("decision.p_value", { number: whole(Math.max(1, value * of)), of: whole(of) });
}
