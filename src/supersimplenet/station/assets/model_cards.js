// The models of a product on the page Models: a card each, which stays while only the progress of its training changes.

import { ask } from "./api.js";
import { byId, element } from "./dom.js";
import { guaranteeWords } from "./guarantee.js";
import { dayAndTime, shareWords, text, whoWords } from "./texts.js";

const AT_FIRST = 8;
const RUNNING = ["training", "comparing"];

/** `show` takes the model in use and all models; `said` is called with what a screen reader should say. */
export function modelCards({ mayChange, forms, said }) {
  const guarantees = new Map(); // sentences of finished models, by number
  const filled = new WeakMap(); // of each card what it shows
  let shown = new Map(); // the card of each number
  let states = new Map();
  let isAll = false;
  let last = null;

  const show = (used, models) => {
    last = [used, models];
    const present = models.find((model) => model.number === used.model);
    fill(byId("used"), JSON.stringify([used, present]), () => usedCard(used, present));
    const others = models.filter((model) => model.number !== used.model);
    const wanted = isAll ? others : others.slice(0, AT_FIRST);
    byId("others-none").hidden = others.length > 0;
    byId("older").hidden = wanted.length === others.length;
    const before = shown;
    shown = new Map(wanted.map((model) => [model.number, before.get(model.number) ?? newCard(model)]));
    for (const [number, card] of before) if (!shown.has(number)) card.remove();
    for (const model of wanted) {
      const card = shown.get(model.number);
      fill(card, JSON.stringify({ ...model, training: null }), () => otherCard(model));
      showAdvance(card, model);
    }
    byId("others").append(...[...shown.values()].filter((card) => !card.isConnected));
    const order = [...shown.values()];
    if (order.some((card, place) => byId("others").children[place] !== card)) byId("others").replaceChildren(...order);
    sayChanges(models);
  };

  /** What a card holds, where it has changed; the focus stays on a button with the same name. */
  const fill = (card, key, made) => {
    if (filled.get(card) === key) return;
    const focused = card.contains(document.activeElement) ? document.activeElement.dataset.do : undefined;
    filled.set(card, key);
    card.replaceChildren(...made());
    if (focused !== undefined) (card.querySelector(`[data-do="${focused}"]`) ?? byId("main")).focus({ preventScroll: true });
  };

  const sayChanges = (models) => {
    for (const { number, state } of models) {
      if (RUNNING.includes(states.get(number)) && !RUNNING.includes(state)) said(text("models.ended", { number, state: text(`models.state.${key(state)}`) }));
    }
    states = new Map(models.map(({ number, state }) => [number, state]));
  };

  const usedCard = (used, model) => {
    if (model === undefined) return [element("p", {}, text("models.used.none"))];
    const by = { by: whoWords(used.who), time: dayAndTime(new Date(used.at)), number: used.model };
    return [
      head(model),
      element("p", {}, text(used.is_rollback ? "models.used.back" : "models.used.since", by)),
      used.is_loaded ? null : element("p", {}, element("strong", {}, text("models.used.not_loaded"))),
      used.why === "" ? null : element("p", {}, text("models.used.why", { why: used.why })),
      ...about(model),
      buttons(used.back_to !== null && button("back", "models.back.to", { number: used.back_to }, () => forms.back(used.back_to))),
    ].filter(Boolean);
  };

  const otherCard = (model) => [
    head(model),
    ...about(model),
    element("div", { class: "advance", hidden: !RUNNING.includes(model.state) && model.state !== "interrupted" }, element("p", { class: "step" }), element("progress", { "aria-label": text("models.progress", { number: model.number }) })),
    buttons(...actions(model)),
  ];

  const actions = (model) => {
    const { number, state } = model;
    if (RUNNING.includes(state)) return [button("stop", state === "training" ? "models.stop.label" : "models.stop.comparison", { number }, () => forms.stop(number))];
    if (state === "interrupted" || (state === "failed" && model.dataset !== null)) return [button("resume", "models.resume.label", { number }, () => goOn(model, "resume"))];
    if (state === "candidate" || state === "refused") {
      const canCompare = last[0].model !== null && last[0].model !== number;
      return [
        button("promote", "models.promote.label", { number }, () => forms.promote(model, foundWords(model), last[0].model !== null)),
        canCompare && button("compare", "models.compare.label", { number }, () => goOn(model, "compare")),
        canCompare && button("shadow", "models.shadow.label", { number }, () => forms.shadow(number)),
      ];
    }
    return [];
  };

  const goOn = async (model, what) => {
    shown.get(model.number).querySelector(`[data-do="${what}"]`).disabled = true;
    await forms[what](model.number);
  };

  const button = (what, words, values, onclick) => element("button", { type: "button", "data-do": what, onclick }, text(words, values));
  const buttons = (...made) => element("div", { class: "do" }, mayChange ? made.filter(Boolean) : []);

  /** Where a model comes from, what was found about it, and what holds for it. */
  const about = (model) => [
    element("p", { class: "lineage" }, lineage(model)),
    ...foundWords(model),
    model.guarantee === null ? null : guarantee(model),
  ].filter(Boolean);

  const guarantee = (model) => {
    const box = element("p", { class: "guarantee" });
    const put = (words) => (box.textContent = text("threshold.guarantee", { guarantee: words }));
    if (guarantees.has(model.number)) put(guarantees.get(model.number));
    else {
      ask(`/v1/registry/${model.number}`).then(({ calibration }) => {
        guarantees.set(model.number, guaranteeWords(calibration));
        put(guarantees.get(model.number));
      }).catch(() => put(model.guarantee));
    }
    return box;
  };

  return {
    show,
    showAll: () => {
      isAll = true;
      show(...last);
      document.querySelector(`#others > :nth-child(${AT_FIRST + 1})`)?.focus();
    },
    clear: () => {
      isAll = false;
      states = new Map();
    },
  };
}

function newCard(model) {
  return element("article", { class: "card", "data-model": model.number, tabindex: "-1" });
}

function head(model) {
  return element("h3", {}, text("models.model", { number: model.number }),
    element("span", { class: "state", "data-state": model.state }, text(`models.state.${key(model.state)}`)));
}

function key(state) {
  return state.replaceAll(" ", "_");
}

function lineage({ dataset, version, parent, at, who }) {
  const by = { time: dayAndTime(new Date(at)), by: whoWords(who) };
  const data = dataset === null ? text("models.brought_in", by) : text("models.trained", { ...by, dataset, version });
  return [data, parent === null ? null : text("models.parent", { number: parent })].filter(Boolean).join(" ");
}

/** What the comparison found, in sentences, and the reasons where the model was refused or failed. */
function foundWords({ state, compared, shadow, reasons, parent, dataset }) {
  const words = [];
  if (compared !== null) {
    const { golden_good: good, golden_bad: bad, new_escapes: escapes, new_false_alarms: alarms, new_unsure: unsure } = compared;
    const reviewed = { more_good: compared.reviewed_good, more_bad: compared.reviewed_bad };
    const hasMore = reviewed.more_good + reviewed.more_bad > 0;
    words.push(element("p", {}, text(hasMore ? "models.compared.more" : "models.compared", { number: compared.compared, good, bad, ...reviewed })));
    words.push(element("ul", { class: "found" },
      counted("models.escapes", escapes), counted("models.false_alarms", alarms), unsure > 0 ? counted("models.unsure", unsure) : null));
    if (compared.evidence !== null) words.push(element("p", {}, evidenceWords(compared.evidence)));
  } else if (["candidate", "comparing", "in use"].includes(state) && parent === null && dataset !== null) {
    words.push(element("p", {}, text("models.first")));
  } else if (state === "interrupted") words.push(element("p", {}, text("models.interrupted")));
  if (shadow !== null) words.push(...shadowWords(shadow));
  if (reasons.length > 0 && (state === "refused" || state === "failed")) {
    words.push(element("p", {}, text(`models.${state}`)), element("ul", { class: "reasons" }, reasons.map((reason) => element("li", {}, reason))));
  }
  return words;
}

/** What a model said, without a say, about pictures of the line. */
function shadowWords({ since, until, pictures: count, failed, not_kept: gone, newly_bad: bad, newly_good: good, differing_bounds: [, most], candidate_right: right, station_right: wrong }) {
  if (count + failed === 0) return [element("p", {}, text("models.shadow.none"))];
  const first = text("models.shadow.found", { count, from: dayAndTime(new Date(since)), to: dayAndTime(new Date(until)), bad, good, most: shareWords(most) });
  const more = [
    right + wrong > 0 && text("models.shadow.people", { right, wrong }),
    failed > 0 && text("models.shadow.failed", { count: failed }), gone > 0 && text("models.shadow.gone", { count: gone }),
  ];
  return [element("p", {}, [first, ...more.filter(Boolean)].join(" "))];
}

/** What the comparison shows about other parts. */
function evidenceWords({ found, newly_missed: missed, missed_bound: missedBound, passed, newly_rejected: rejected, rejected_bound: rejectedBound }) {
  return text("models.evidence", { found, missed, passed, rejected, missed_most: shareWords(missedBound), rejected_most: shareWords(rejectedBound) });
}

function counted(name, count) {
  return element("li", {}, count === 0 ? text(`${name}.none`) : text(name, { count }));
}

/** The step of a training that runs or was interrupted, and how far it is. */
function showAdvance(card, { training, dataset, version }) {
  if (training === null) return;
  const { step, done, total } = training;
  const isCounted = step === "training" && total !== null;
  const words = isCounted ? text("models.step.training.of", { done, total }) : text(`models.step.${step}`, { dataset, version });
  const shown = card.querySelector(".step");
  if (shown.textContent !== words) shown.textContent = words;
  const bar = card.querySelector("progress");
  if (isCounted) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
  bar.hidden = card.querySelector('[data-state="interrupted"]') !== null && !isCounted;
}
