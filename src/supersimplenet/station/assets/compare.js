// Two parts side by side; the switches of anomaly map and boxes hold for both.

import { ask } from "./api.js";
import { byId, element, pairs } from "./dom.js";
import { showPicture, showSwitches } from "./picture.js";
import { dayAndTime, text } from "./texts.js";
import { nameOf, scoreText, showVerdict, verdictOf } from "./verdict.js";

/** `shown`: gives the results of the list. `marked`: called with the ids that are chosen. */
export function beginCompare(shown, marked) {
  let chosen = [];
  const known = new Map();
  const dialog = byId("compare");
  showSwitches(byId("compare-switches"));

  const show = () => {
    marked(chosen);
    byId("compare-bar").hidden = chosen.length === 0;
    byId("compare-open").disabled = chosen.length < 2;
    byId("compare-text").textContent = text(chosen.length < 2 ? "compare.one" : "compare.two");
  };
  const choose = (id, isChosen) => {
    known.set(id, shown().find((result) => result.id === id));
    chosen = chosen.filter((other) => other !== id);
    if (isChosen) chosen = [...chosen, id].slice(-2); // a third one takes the place of the first
    show();
  };
  const open = async () => {
    const results = await Promise.all(chosen.map((id) => known.get(id) ?? ask(`/v1/results/${id}`)));
    byId("compare-pair").replaceChildren(...results.map(side));
    dialog.showModal();
  };
  byId("compare-open").addEventListener("click", open);
  byId("compare-clear").addEventListener("click", () => {
    chosen = [];
    show();
  });
  byId("compare-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => byId("compare-open").focus());
  return { choose, show };
}

function side(result) {
  const stage = element("div", { class: "stage" });
  const legend = element("p", { class: "legend" });
  showPicture(stage, legend, result);
  const verdict = element("div", { class: "verdict-block small" });
  showVerdict(verdict, verdictOf(result));
  const facts = element("dl", { class: "facts" }, pairs([
    [text("name"), element("a", { href: `/results/${result.id}` }, nameOf(result))],
    result.part === null ? null : [text("part"), result.part],
    [text("score"), scoreText(result)],
    [text("time"), dayAndTime(new Date(result.taken_at))],
  ]));
  return element("article", { "aria-label": nameOf(result) }, verdict, element("div", { class: "stage-box" }, stage, legend), facts);
}
