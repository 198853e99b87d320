// A decision in plain words.

import { decimal, errorWords, text, whole } from "./texts.js";
import { number } from "./verdict.js";

/** What decided, in a sentence. */
export function decisionWords(result) {
  if (result.verdict === null) return text("decision.failed", { reason: errorWords(result.error) });
  if (result.score === null) {
    return text(`decision.uncalibrated.${result.verdict}`, { score: decimal(result.score_logit, 2) });
  }
  const from = result.unsure_from;
  const levels = from === null ? [0.5] : [0.5, from];
  const words = {
    score: number(result.score, levels),
    threshold: decimal(0.5, 1),
    from: from === null ? "" : number(from, [0.5]),
  };
  const key = result.verdict === "good" && from !== null ? "decision.good.grey" : `decision.${result.verdict}`;
  return text(key, words);
}

/** How rare such a score is among good parts, by its p-value; of how many parts of the calibration, null if unknown.
 *
 * The lowest p-value of n parts is 1 / (n + 1): none of them scores so high, which says no more than "at most".
 */
export function rarityWords(pValue, parts) {
  const of = pValue >= 0.01 ? 100 : pValue >= 0.001 ? 1000 : 10000;
  const isLowest = parts !== null && pValue * (parts + 1) < 1.5;
  if (!isLowest) return text("decision.p_value", { number: whole(Math.max(1, pValue * of)), of: whole(of) });
  return text("decision.p_value.lowest", { most: whole(Math.ceil(pValue * of - 1e-6)), of: whole(of), count: parts });
}
