// Whether the pictures of each product are still like those before them, in plain words.

import { ask, stationNow } from "./api.js";
import { onSubmit, openDialog } from "./dialog.js";
import { byId, element, svg } from "./dom.js";
import { row, table } from "./list.js";
import { dayAndTime, dayOf, decimal, minuteOf, text } from "./texts.js";

const COLUMNS = ["value", "sign", "before", "now"];
const ALARM = 1000; // times the capital of 1, as the station's test has it
const SOME = 10;
const WIDTH = 100; // of a meter
const DIGITS = { score: 2, map: 2, subspace: 2, brightness: 0, sharpness: 3, colour: 2, alignment: 2 };

/** Show all products; `accepted` is called with a product and its new state when somebody has accepted a change. */
export function driftBox(box, { mayAccept, accepted }) {
  const shown = new Map(); // an article of each product stays, and so does the focus in it
  let product = null;

  onSubmit(byId("accept-form"), async () => {
    const chosen = product;
    const state = await ask(`/v1/products/${encodeURIComponent(chosen)}/drift/accept`, { method: "POST" });
    return () => accepted(chosen, state);
  });
  const askFirst = (name) => {
    product = name;
    byId("accept-title").textContent = text("drift.accept.ask", { product });
    openDialog(byId("accept-form"));
  };
  return {
    show: (states) => {
      for (const state of states) {
        if (!shown.has(state.product)) shown.set(state.product, article(box, state.product, () => askFirst(state.product)));
        fill(shown.get(state.product), state, mayAccept);
      }
    },
  };
}

function article(box, product, onclick) {
  const made = element("article", { class: "product", "data-product": product },
    element("h3", {}, product),
    element("p", { class: "says" }), element("ul", { class: "changes" }), element("p", { class: "advice" }),
    element("button", { type: "button", class: "accept", onclick }, text("drift.accept")),
    element("div", { class: "meters" }));
  box.append(made);
  return made;
}

function fill(made, state, mayAccept) {
  const hasChanged = state.drifted_at !== null;
  const find = (name) => made.querySelector(`.${name}`);
  made.classList.toggle("has-changed", hasChanged);
  find("says").textContent = summary(state);
  find("changes").replaceChildren(...changesOf(state).map((words) => element("li", {}, words)));
  find("advice").hidden = !hasChanged;
  find("advice").textContent = text(mayAccept ? "drift.advice" : "drift.advice.operator");
  find("accept").hidden = !(hasChanged && mayAccept);
  find("meters").replaceChildren(...(state.features.length > 0 ? [meters(state)] : []));
}

function summary(state) {
  if (state.drifted_at === null) {
    if (state.parts === 0) return text("drift.nothing");
    return text("drift.same", { count: state.parts, day: dayOf(new Date(state.since)) });
  }
  const [moment, now] = [new Date(state.drifted_at), new Date(stationNow())];
  const isToday = dayOf(moment) === dayOf(now);
  return text(state.changed.length > 0 ? "drift.changed" : "drift.changed.before",
    { time: isToday ? minuteOf(moment) : dayAndTime(moment) });
}

function changesOf(state) {
  if (state.drifted_at === null) return [];
  return state.changed.map((name) => {
    const feature = state.features.find((each) => each.name === name);
    const words = text(`drift.${name}.${isHigher(feature) ? "up" : "down"}`);
    if (feature.before === null || feature.recent === null) return words;
    return text("drift.change", { words, now: shownValue(name, feature.recent), before: shownValue(name, feature.before) });
  });
}

function isHigher({ before, recent, above }) {
  return before === null || recent === null || before === recent ? above >= 0.5 : recent > before;
}

/** A value as people read it: the colour as red in relation to blue, of which the station has the logarithm. */
function shownValue(name, value) {
  if (value === null) return text("none");
  return decimal(name === "colour" ? Math.exp(value) : value, DIGITS[name]);
}

// ----- meters

function meters(state) {
  const hasChanged = state.drifted_at !== null;
  const rows = state.features.map((feature) => meterRow({
    name: text(`drift.${feature.name}`),
    capital: feature.capital,
    sign: hasChanged && state.changed.includes(feature.name) ? "changed" : signOf(feature.capital),
    before: shownValue(feature.name, feature.before),
    now: shownValue(feature.name, feature.recent),
    key: feature.name,
  }));
  const all = { name: text("drift.all"), capital: state.capital, sign: hasChanged ? "changed" : signOf(state.capital), key: "all" };
  return table("drift", COLUMNS, [meterRow({ ...all, before: "", now: "" }), ...rows]);
}

/** One value alone does not give the alarm, so that it is no more than "some" by itself. */
function signOf(capital) {
  return capital >= SOME ? "some" : "no";
}

function meterRow({ name, capital, sign, before, now, key }) {
  const attributes = { "data-feature": key, "data-sign": sign, class: key === "all" ? "all" : undefined };
  return row(COLUMNS, attributes, {
    value: name, sign: [meter(capital, sign), element("span", { class: "word" }, text(`drift.sign.${sign}`))], before, now,
  });
}

/** From 1 to the capital of an alarm, each factor of ten as long as the others. */
function meter(capital, sign) {
  const share = Math.min(1, Math.max(0, Math.log10(Math.max(1, capital)) / Math.log10(ALARM)));
  const size = { height: 10, rx: 2 };
  return svg("svg", { class: "meter", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true", "data-sign": sign },
    svg("rect", { class: "all", width: WIDTH, ...size }),
    svg("rect", { class: "part", width: (WIDTH * share).toFixed(1), ...size }));
}
