// The page Models: which model is in use, those that might be, trainings, and the datasets they come from.

import { ask, query, Unreachable } from "./api.js";
import { chooseProduct } from "./chooser.js";
import { byId } from "./dom.js";
import { begin, isEngineer, showLost, showProblem, showSigns } from "./frame.js";
import { modelCards } from "./model_cards.js";
import { modelForms } from "./model_forms.js";
import { showDatasets } from "./datasets.js";
import { dayAndTime, minuteOf, shareWords, text, whoWords } from "./texts.js";

const EVERY_MS = 2000;
const AT_REST = 5; // polls of the registry alone, where nothing is trained, between two

const me = await begin();
const mayChange = isEngineer(me);
let product = null;
let datasets = [];
let rule = null;
let threads = 1;
let heardAt = new Date();
let asked = 0;
let polls = 0;
let isTraining = false;
let isLoading = false;
let shownDatasets = "";

const forms = modelForms({
  now: () => ({ product, datasets, rule, threads }),
  changed: async (words, focus) => {
    await load();
    byId("done").textContent = words;
    (focus === null ? byId("main") : document.querySelector(focus) ?? byId("main")).focus({ preventScroll: true });
  },
});
const cards = modelCards({ mayChange, forms, said: (words) => (byId("done").textContent = words) });

/** All that the page shows of a product. */
async function load() {
  const own = ++asked;
  await trying(own, async () => {
    const [registry, rules, found, status] = await Promise.all([
      ask(`/v1/registry${query({ product })}`), ask("/v1/training-rules"), ask("/v1/datasets"), ask("/v1/status"),
    ]);
    if (own !== asked) return;
    datasets = found;
    rule = rules.find((each) => each.product === product);
    showSigns(status.signs);
    showRegistry(registry);
    showRule();
    const now = JSON.stringify(datasets);
    if (now !== shownDatasets) showDatasets(byId("datasets"), datasets, forms.changes);
    shownDatasets = now;
    byId("models").hidden = false;
  });
}

/** The registry alone, often. */
async function poll() {
  polls += 1;
  if (document.hidden || product === null || (!isTraining && !isLoading && polls % AT_REST !== 0)) return;
  const own = asked;
  await trying(own, async () => {
    const registry = await ask(`/v1/registry${query({ product })}`);
    if (own !== asked) return;
    const wasTraining = isTraining;
    showRegistry(registry);
    if (wasTraining && !isTraining) await load();
  });
}

async function trying(own, show) {
  try {
    await show();
    heardAt = new Date();
    showLost(null);
    showProblem(null);
  } catch (error) {
    if (error instanceof Unreachable) showLost(text("lost", { time: minuteOf(heardAt) }));
    else if (own === asked) showProblem(error);
  }
}

function showRegistry(registry) {
  const used = registry.in_use.find((each) => each.product === product);
  ({ threads } = registry);
  isTraining = registry.models.some(({ state }) => state === "training" || state === "comparing");
  isLoading = used.model !== null && !used.is_loaded;
  cards.show(used, registry.models);
}

function showRule() {
  const { answers, daily_at: at, dataset, set_by: by, set_at: setAt, problem, new_answers: count, promote_margin: margin, promote_differing: differing } = rule;
  const when = [answers !== null && text("models.rule.after", { count: answers }), at !== null && text("models.rule.daily", { time: at })];
  const [first, second] = when.filter(Boolean);
  byId("rule").textContent = by === null ? text("models.rule.off")
    : text("models.rule.on", { when: second === undefined ? first : text("models.rule.both", { first, second }), dataset, by: whoWords(by), time: dayAndTime(new Date(setAt)) });
  const puts = margin === null ? "models.rule.puts.none" : differing === null ? "models.rule.puts" : "models.rule.puts.shadow";
  byId("rule-puts").hidden = by === null;
  byId("rule-puts").textContent = text(puts, { margin: shareWords(margin ?? 0), differing: shareWords(differing ?? 0) });
  byId("rule-answers").textContent = text("models.rule.answers", { count });
  byId("rule-problem").hidden = problem === null;
  byId("rule-problem").textContent = problem === null ? "" : text("models.rule.problem", { problem });
}

byId("may-not").hidden = mayChange;
for (const name of ["train", "change-rule", "gather"]) byId(name).hidden = !mayChange;
byId("train").addEventListener("click", () => forms.train());
byId("change-rule").addEventListener("click", () => forms.rule());
byId("gather").addEventListener("click", () => forms.gather());
byId("older").addEventListener("click", () => cards.showAll());
const status = await ask("/v1/status").catch(() => ({ products: [] }));
product = status.products.length === 0 ? null : chooseProduct(status.products, (name) => {
  product = name;
  cards.clear();
  load();
});
document.addEventListener("visibilitychange", () => document.hidden || load());
await load();
setInterval(poll, EVERY_MS);
