// How often the verdict is wrong, in sentences that a person can sign.

import { ask, query, stationNow } from "./api.js";
import { byId, element } from "./dom.js";
import { decimal, text } from "./texts.js";

const DAY_MS = 86400000;

/** Ask for the rates of the last days and show them. */
export async function showRates(product, days) {
  const since = new Date(stationNow() - days * DAY_MS).toISOString();
  const found = await ask(`/v1/review/rates${query({ product, since })}`);
  const period = text(`threshold.days.${days}`);
  byId("rates-lines").replaceChildren(...ratesWords(found, period).map((words) => element("li", {}, words)));
  byId("rates").hidden = false;
}

function ratesWords(found, period) {
  const { asked, answered, known_escapes: escapes, known_false_calls: falseCalls, failed } = found;
  return [
    rateWords("escapes", found.escapes, period),
    rateWords("false_calls", found.false_calls, period),
    asked === 0 ? text("rates.asked.none", { period }) : text("rates.asked", { count: asked, answered, period }),
    escapes + falseCalls === 0 ? null : text("rates.known", { escapes, calls: falseCalls }),
    failed === 0 ? null : text("rates.failed", { count: failed }),
  ].filter(Boolean);
}

function rateWords(kind, rate, period) {
  const state = rate === null ? "no_part" : rate.drawn === 0 ? "nothing" : "between";
  const { low = 0, high = 0, drawn = 0, parts = 0, events = 0 } = rate ?? {};
  return text(`rates.${kind}.${state}`, { count: state === "nothing" ? parts : drawn, period, events,
    low: percent(low, Math.floor), high: percent(high, Math.ceil) });
}

/** A share in percent with two digits; an interval is rounded so that it becomes wider. */
function percent(share, round) {
  const value = 100 * share;
  if (value === 0 || value >= 99.95) return decimal(value, 0);
  const digits = Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(value))));
  const factor = 10 ** digits;
  const exact = Number((value * factor).toPrecision(12)); // 2.3 is not 2.3000000000000003
  return decimal(round(exact) / factor, digits);
}
