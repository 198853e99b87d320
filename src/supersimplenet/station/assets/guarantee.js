// The guarantee of a calibration in a sentence, as the station writes it in English, in the page's language.

import { shortest, text } from "./texts.js";

const HELD_OUT = "held out of the training"; // of two bases that a calibration may have; the other is "from FILES"

export function guaranteeWords(calibration) {
  const { computation, applied_to: applied, confidence, bad_parts: bad } = calibration;
  if (computation && applied && computation.precision !== applied.precision) {
    return text("guarantee.invalid", { own: computation.precision, other: applied.precision });
  }
  const sure = percent(confidence * 100);
  const first = text("guarantee.false_alarms", {
    rate: rateWords(calibration.max_false_alarms), confidence: sure, parts: partWords(calibration),
    basis: basisWords(calibration.basis), date: calibration.date,
  });
  if (calibration.max_escapes !== null) {
    const rate = rateWords(calibration.max_escapes);
    return text("guarantee.both", { first, second: text("guarantee.escapes", { rate, confidence: sure, count: bad }) });
  }
  if (bad === 0) return first;
  return text("guarantee.both", { first, second: text("guarantee.no_escapes", { escapes: calibration.escapes, bad }) });
}

function partWords({ cross, images, part_logits: logits }) {
  if (cross) return text("guarantee.cross", { bad: cross.checked_false_alarms, count: cross.checked_parts });
  const parts = text("guarantee.parts", { count: logits.length });
  return images === logits.length ? parts : text("guarantee.photographs", { parts, images });
}

function basisWords(basis) {
  if (basis === HELD_OUT) return text("guarantee.held_out");
  return basis.startsWith("from ") ? text("guarantee.from", { files: basis.slice("from ".length) }) : basis;
}

/** A rate, rounded up, as a bound must be: 0.0502 is 5.1 %. */
function rateWords(rate) {
  return percent(Math.ceil(rate * 1000 - 1e-9) / 10);
}

function percent(number) {
  return text("guarantee.percent", { number: shortest(number) });
}
