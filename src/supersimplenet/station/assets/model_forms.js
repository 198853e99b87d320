// The dialogs of the page Models: train, promote, go back, stop, the rule, gather answers, and what a version changed.

import { ask, query } from "./api.js";
import { changeWords } from "./datasets.js";
import { onSubmit, openDialog } from "./dialog.js";
import { byId, element } from "./dom.js";
import { showProblem } from "./frame.js";
import { shareWords, text } from "./texts.js";

const TIMES = { "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240 }; // minutes
const DEFAULT_TIME = "15m";
const LONG_MS = 300000; // answers of many pictures are gathered, a training writes a checkpoint before it stops
const MOST_SHOWN = 100;
const MARGIN = 0.2; // as the station's
const HOURS = [1, 8, 24, 168, 672];

/** `now` returns product, datasets, rule and threads; `changed` is called with what to say and where the focus belongs. */
export function modelForms({ now, changed }) {
  let chosen = null; // number of a model, or a version with its dataset

  const offerNames = (id) => {
    const { product, datasets, rule } = now();
    byId("dataset-names").replaceChildren(...datasets.map(({ name }) => element("option", { value: name })));
    const names = datasets.map(({ name }) => name);
    byId(id).value = rule.dataset ?? (names.includes(product) || names.length === 0 ? product : names[0]);
  };
  const offerVersions = () => {
    const found = now().datasets.find(({ name }) => name === byId("train-dataset").value);
    const isGathered = byId("train-gather").checked;
    byId("train-version").replaceChildren(element("option", { value: "" }, text("models.version.newest")),
      ...(found?.versions ?? []).map(({ number }) => element("option", { value: number }, text("models.version.number", { number }))));
    byId("train-version").disabled = isGathered;
  };
  const post = (path, body, withinMs) => ask(path, { method: "POST", body, withinMs });

  const atOnce = async (path, words, number) => {
    let refused = null;
    await post(path).catch((error) => (refused = error));
    await changed(refused === null ? text(words, { number }) : "", card(number));
    if (refused === null) return;
    showProblem(refused);
    document.querySelector(card(number)).disabled = false;
  };

  onSubmit(byId("train-form"), async () => {
    const { product } = now();
    const isGathered = byId("train-gather").checked;
    const version = isGathered || byId("train-version").value === "" ? null : Number(byId("train-version").value);
    const body = { product, dataset: byId("train-dataset").value, version, time_budget: byId("train-time").value, gather: isGathered };
    const model = await post("/v1/registry", body, LONG_MS);
    return () => changed(text("models.train.done", { number: model.number }), card(model.number));
  });
  onSubmit(byId("promote-form"), async () => {
    const margin = Number(byId("promote-margin").value) / 100;
    const body = { why: byId("promote-why").value, margin, force: byId("promote-force").checked };
    await post(`/v1/registry/${chosen}/promotion`, body).catch((error) => {
      if (error.code === "registry") byId("promote-force-field").hidden = false; // the reason is shown: a person may know better
      throw error;
    });
    return () => changed(text("models.promote.done", { number: chosen }), null);
  });
  onSubmit(byId("shadow-form"), async () => {
    await post(`/v1/registry/${chosen}/shadow`, { hours: Number(byId("shadow-hours").value) });
    return () => changed(text("models.shadow.done", { number: chosen }), card(chosen));
  });
  onSubmit(byId("back-form"), async () => {
    await post(`/v1/products/${encodeURIComponent(now().product)}/rollback`, { why: byId("back-why").value });
    return () => changed(text("models.promote.done", { number: chosen }), null);
  });
  onSubmit(byId("stop-form"), async () => {
    await ask(`/v1/registry/${chosen}/training`, { method: "DELETE", withinMs: LONG_MS });
    return () => changed(text("models.stop.done", { number: chosen }), card(chosen));
  });
  onSubmit(byId("rule-form"), async () => {
    const number = byId("rule-number").value;
    const body = {
      dataset: byId("rule-dataset").value, time_budget: byId("rule-time").value,
      answers: number === "" ? null : Number(number), daily_at: byId("rule-at").value || null,
      promote_margin: shareOf("rule-margin"), promote_differing: shareOf("rule-differing"),
    };
    await ask(`/v1/products/${encodeURIComponent(now().product)}/training-rule`, { method: "PUT", body });
    return () => changed(text("models.rule.done"), "#change-rule");
  });
  onSubmit(byId("gather-form"), async () => {
    const { product } = now();
    const found = await post(`/v1/datasets/${encodeURIComponent(byId("gather-dataset").value)}/gather`, { product }, LONG_MS);
    const words = found.version === null ? text("models.gather.nothing", { dataset: found.dataset })
      : text("models.gather.done", { dataset: found.dataset, version: found.version });
    return () => {
      byId("gathered").textContent = words;
      byId("gathered").hidden = false;
      return changed(words, "#gather");
    };
  });
  byId("train-gather").addEventListener("change", offerVersions);
  byId("train-dataset").addEventListener("input", offerVersions);
  byId("changes-before").addEventListener("change", () => showChanges(chosen));
  for (const choice of document.querySelectorAll(".time-budget")) {
    choice.replaceChildren(...Object.entries(TIMES).map(([value, count]) =>
      element("option", { value }, count < 60 ? text("models.minutes", { count }) : text("models.hours", { count: count / 60 }))));
  }

  byId("shadow-hours").replaceChildren(...HOURS.map((count) => element("option", { value: count }, text("models.hours", { count }))));

  return {
    train: () => {
      const { product, rule, threads } = now();
      openDialog(byId("train-form"));
      byId("train-title").textContent = text("models.train.ask", { product });
      byId("train-gather-label").textContent = text("models.train.gather", { count: rule.new_answers });
      byId("train-gather").checked = rule.new_answers > 0;
      byId("train-time").value = DEFAULT_TIME;
      byId("train-note").textContent = text("models.train.note", { count: threads });
      offerNames("train-dataset");
      offerVersions();
    },
    promote: ({ number, state, compared }, found, isCompared) => {
      chosen = number;
      openDialog(byId("promote-form"));
      byId("promote-title").textContent = text("models.promote.ask", { number, product: now().product });
      byId("promote-found").replaceChildren(...found);
      const evidence = compared?.evidence ?? null;
      const shown = evidence === null ? 1 : Math.max(evidence.missed_bound, evidence.rejected_bound);
      byId("promote-margin-field").hidden = !isCompared;
      byId("promote-margin").value = 100 * MARGIN;
      byId("promote-margin-hint").textContent = shown < 1 ? text("models.promote.margin.shown", { share: shareWords(shown) }) : text("models.promote.margin.none");
      byId("promote-force-field").hidden = state !== "refused";
      byId("promote-force").required = state === "refused";
      byId("promote-why").focus();
    },
    shadow: (number) => {
      chosen = number;
      openDialog(byId("shadow-form"));
      byId("shadow-title").textContent = text("models.shadow.ask", { number });
      byId("shadow-hours").value = 24;
    },
    back: (number) => {
      chosen = number;
      openDialog(byId("back-form"));
      byId("back-title").textContent = text("models.back.ask", { number, product: now().product });
    },
    stop: (number) => {
      chosen = number;
      openDialog(byId("stop-form"));
      byId("stop-title").textContent = text("models.stop.ask", { number });
    },
    resume: (number) => atOnce(`/v1/registry/${number}/training`, "models.resume.done", number),
    compare: (number) => atOnce(`/v1/registry/${number}/comparison`, "models.compare.done", number),
    rule: () => {
      const { rule } = now();
      openDialog(byId("rule-form"));
      offerNames("rule-dataset");
      byId("rule-number").value = rule.answers ?? "";
      byId("rule-at").value = rule.daily_at ?? "";
      byId("rule-margin").value = rule.promote_margin === null ? "" : perCent(rule.promote_margin);
      byId("rule-differing").value = rule.promote_differing === null ? "" : perCent(rule.promote_differing);
      const time = rule.time_budget ?? DEFAULT_TIME;
      if (!(time in TIMES)) byId("rule-time").append(element("option", { value: time }, time));
      byId("rule-time").value = time;
    },
    gather: () => {
      openDialog(byId("gather-form"));
      byId("gather-title").textContent = text("models.gather.ask", { product: now().product });
      offerNames("gather-dataset");
    },
    changes: (dataset, version) => {
      chosen = { dataset, version };
      const others = Array.from({ length: version.number - 1 }, (_, place) => version.number - 1 - place);
      byId("changes-before").replaceChildren(...others.map((number) => element("option", { value: number }, text("models.version.number", { number }))));
      byId("changes-title").textContent = text("models.changes.title", { dataset, version: version.number });
      byId("changes-digest").textContent = text("models.changes.digest", { digest: version.digest.slice(0, 16) });
      openDialog(byId("changes-form"));
      showChanges(chosen);
    },
  };
}

async function showChanges({ dataset, version }) {
  const box = byId("changes-form").querySelector(".problem");
  byId("changes-counts").textContent = "";
  byId("changes").replaceChildren();
  try {
    const found = await ask(`/v1/datasets/${encodeURIComponent(dataset)}/changes${query({ before: byId("changes-before").value, after: version.number })}`);
    const { added, changed, removed, changes } = found;
    byId("changes-counts").textContent = changeWords(found);
    byId("changes").replaceChildren(...changes.slice(0, MOST_SHOWN).map(({ picture, before, after }) =>
      element("li", {}, element("code", {}, picture.slice(0, 12)), ` ${knownWords(before)} → ${knownWords(after)}`)));
    const more = added + changed + removed - Math.min(changes.length, MOST_SHOWN);
    if (more > 0) byId("changes").append(element("li", {}, text("models.changes.more", { count: more })));
    showProblem(null, box);
  } catch (error) {
    showProblem(error, box);
  }
}

function knownWords(known) {
  if (known === null) return text("models.not_held");
  return [text(`verdict.${known.label}`), known.defect, known.mask === null ? null : text("models.mask")].filter(Boolean).join(text("comma"));
}

function shareOf(id) {
  const { value } = byId(id);
  return value === "" ? null : Number(value) / 100;
}

function perCent(share) {
  return Number((100 * share).toPrecision(12));
}

function card(number) {
  return `[data-model="${number}"] [data-do]`;
}
