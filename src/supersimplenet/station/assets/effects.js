// What a threshold would have made of pictures whose scores are known, in sentences.

import { text, whole } from "./texts.js";

const MOST = 20000; // scores of an answer

/** Numbers of pictures; from `accept` on and below the threshold they are unsure, where there is such a zone. */
export function effectsOf({ scores_logit: scores, reviews }, threshold, accept) {
  const passes = accept !== null && accept < threshold ? accept : threshold;
  const found = { total: scores.length, bad: 0, unsure: 0, good: 0, falseCalls: 0, defective: 0, missed: 0 };
  scores.forEach((score, place) => {
    const isBad = score >= threshold;
    found.bad += isBad;
    found.unsure += !isBad && score >= passes;
    found.good += reviews[place] === "good";
    found.falseCalls += reviews[place] === "good" && isBad;
    found.defective += reviews[place] === "bad";
    found.missed += reviews[place] === "bad" && score < passes;
  });
  return found;
}

/** Sentences that compare the chosen threshold with the present one. */
export function effectWords(chosen, now, { period, hasGrey }) {
  if (chosen.total === 0) return [text("effects.none", { period })];
  const compare = (key, count, name) => text(key, { count, number: whole(chosen[name]), now: whole(now[name]), period });
  return [
    compare("effects.bad", chosen.total, "bad"),
    hasGrey ? compare("effects.unsure", chosen.total, "unsure") : null,
    chosen.good > 0 ? compare("effects.good", chosen.good, "falseCalls") : null,
    chosen.defective > 0 ? compare("effects.defective", chosen.defective, "missed") : null,
    chosen.good + chosen.defective === 0 ? text("effects.unreviewed") : null,
    chosen.total >= MOST ? text("effects.most", { number: whole(MOST) }) : null,
  ].filter(Boolean);
}
