// The page Threshold: the scores of some days, what another threshold would have made of them, and what then holds.

import { ask, query, stationNow } from "./api.js";
import { chooseProduct } from "./chooser.js";
import { onSubmit, openDialog } from "./dialog.js";
import { byId, element } from "./dom.js";
import { effectsOf, effectWords } from "./effects.js";
import { begin, isEngineer, showProblem, showSigns } from "./frame.js";
import { guaranteeWords } from "./guarantee.js";
import { drawHistogram, scaleOf, showHistogramLegend } from "./histogram.js";
import { dayAndTime, decimal, text } from "./texts.js";

const DAYS = [1, 7, 30];
const DAY_MS = 86400000;
const PREVIEW_MS = 300;

const me = await begin();
const status = await ask("/v1/status").catch(() => ({ products: [], signs: [] }));
showSigns(status.signs);
let product = null;
let days = 7;
let present = null; // the threshold in use
let calibrated = null; // the facts of the model with the calibration's threshold
let scores = null;
let scale = null;
let chosen = null; // a logit; NaN while the field holds no number
let holds = null; // what the station says of the chosen one
let moveLines = () => {};
let asked = 0;
let previewing = null;
let submitted = null; // what the dialog sends

// ----- data

async function load() {
  const own = ++asked;
  const path = `/v1/products/${encodeURIComponent(product)}`;
  try {
    const since = new Date(stationNow() - days * DAY_MS).toISOString();
    const [found, ofDays] = await Promise.all([ask(`${path}/threshold`), ask(`${path}/scores${query({ since })}`)]);
    const { facts } = await ask(`/v1/models/${found.model}`);
    const base = facts.base ? (await ask(`/v1/models/${facts.base}`)).facts : facts;
    if (own !== asked) return;
    [present, scores, calibrated] = [found, ofDays, base];
    scale = scaleOf([...scores.scores_logit, ...found.part_logits, found.threshold_logit, found.calibrated_threshold_logit]);
    showProblem(null);
    showPresent();
    byId("threshold").hidden = false;
    draw();
    choose(found.threshold_logit);
  } catch (error) {
    if (own === asked) showProblem(error);
  }
}

/** Ask what holds for the chosen threshold, a moment after the last move. */
function preview() {
  clearTimeout(previewing);
  const wanted = chosen;
  holds = wanted === present.threshold_logit ? present : null;
  showGuarantee();
  if (holds !== null || Number.isNaN(wanted) || !present.calibrated) return;
  previewing = setTimeout(async () => {
    try {
      const found = await ask(`/v1/products/${encodeURIComponent(product)}/threshold${query({ preview: wanted })}`);
      if (wanted !== chosen) return;
      holds = found;
      showGuarantee();
    } catch (error) {
      if (wanted === chosen) byId("guarantee").textContent = error.message;
    }
  }, PREVIEW_MS);
}

// ----- what is shown

function shown(logit) {
  return decimal(logit, scale.digits);
}

function acceptOf(threshold) {
  const accept = calibrated.calibration?.accept_logit ?? null;
  return accept === null || accept >= threshold ? null : accept;
}

function showPresent() {
  const values = {
    threshold: shown(present.threshold_logit), calibrated: shown(present.calibrated_threshold_logit),
    by: present.set_by, time: present.set_at === null ? "" : dayAndTime(new Date(present.set_at)),
  };
  const key = !present.calibrated ? "none" : present.set_by === null ? "calibrated" : "set";
  byId("present").textContent = text(`threshold.present.${key}`, values);
  byId("uncalibrated").hidden = present.calibrated;
  byId("uncalibrated").textContent = text("threshold.uncalibrated", { reason: present.calibration === null ? text("threshold.no_calibration") : guaranteeWords(present.calibration) });
  byId("may-not").hidden = isEngineer(me) || !present.calibrated;
  byId("set").hidden = !isEngineer(me) || !present.calibrated;
  byId("back").hidden = !isEngineer(me) || present.set_by === null;
  for (const field of [byId("slider"), byId("value")]) field.step = scale.step;
  [byId("slider").min, byId("slider").max] = [scale.low, scale.high];
  showHistogramLegend(byId("plot-legend"), {
    hasParts: present.part_logits.length > 0, hasGrey: acceptOf(present.threshold_logit) !== null,
  });
}

function draw() {
  moveLines = drawHistogram(byId("plot"), { scores, parts: present.part_logits, scale });
  showLines();
}

function showLines() {
  if (!Number.isFinite(chosen)) return;
  moveLines({ now: present.threshold_logit, chosen, accept: acceptOf(chosen) });
}

function showEffects() {
  const [after, now] = [chosen, present.threshold_logit].map((threshold) => effectsOf(scores, threshold, acceptOf(threshold)));
  const period = text(`threshold.days.${days}`);
  const hasGrey = (calibrated.calibration?.accept_logit ?? null) !== null;
  byId("effects").replaceChildren(...effectWords(after, now, { period, hasGrey }).map((words) => element("li", {}, words)));
}

function showGuarantee() {
  const box = byId("guarantee");
  box.classList.toggle("waits", holds === null);
  box.hidden = !present.calibrated;
  if (Number.isNaN(chosen)) box.textContent = text("threshold.no_number");
  else if (holds !== null) box.textContent = holdsWords(holds);
  byId("set").disabled = holds === null || holds === present;
}

function holdsWords({ calibration }) {
  return text("threshold.guarantee", { guarantee: guaranteeWords(calibration) });
}

// ----- what a person does

/** Choose a threshold; those that are known are met exactly, though a slider has steps. */
function choose(value, from = null) {
  const known = [present.threshold_logit, present.calibrated_threshold_logit].find((each) => Math.abs(each - value) < scale.step / 2);
  chosen = known ?? value;
  if (!Number.isNaN(chosen)) {
    byId("slider").value = chosen;
    byId("slider").setAttribute("aria-valuetext", shown(chosen));
    if (from !== byId("value")) byId("value").value = chosen.toFixed(scale.digits);
    showLines();
    showEffects();
  }
  preview();
}

function askFirst(logit, title, facts, button) {
  submitted = logit;
  byId("set-title").textContent = title;
  byId("set-guarantee").textContent = holdsWords(facts);
  byId("set-submit").textContent = button;
  openDialog(byId("set-form"));
}

onSubmit(byId("set-form"), async () => {
  const body = { threshold_logit: submitted };
  const found = await ask(`/v1/products/${encodeURIComponent(product)}/threshold`, { method: "PUT", body });
  return async () => {
    await load();
    byId("done").textContent = text("threshold.done", { threshold: shown(found.threshold_logit) });
    byId("value").focus();
  };
});
byId("set").addEventListener("click", () => askFirst(chosen,
  text("threshold.set.ask", { product, threshold: shown(chosen), before: shown(present.threshold_logit) }), holds, text("threshold.set")));
byId("back").addEventListener("click", () => askFirst(null,
  text("threshold.back.ask", { product, threshold: shown(present.calibrated_threshold_logit) }), calibrated, text("threshold.back")));
byId("slider").addEventListener("input", (event) => choose(Number(event.target.value), event.target));
byId("value").addEventListener("input", (event) => choose(event.target.valueAsNumber, event.target));
byId("days").replaceChildren(...DAYS.map((count) => element("option", { value: count }, text(`threshold.days.${count}`))));
byId("days").value = days;
byId("days").addEventListener("change", (event) => {
  days = Number(event.target.value);
  load();
});
new ResizeObserver(() => scale !== null && draw()).observe(byId("plot"));
product = chooseProduct(status.products, (name) => {
  product = name;
  load();
});
await load();
