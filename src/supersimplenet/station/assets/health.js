// The page Health: how fast the station inspects, whether its pictures changed, and what is away.

import { ask, Unreachable } from "./api.js";
import { byId, element, pairs } from "./dom.js";
import { driftBox } from "./drift.js";
import { begin, isEngineer, showLost, showProblem, showSigns } from "./frame.js";
import { row, table } from "./list.js";
import { decimal, minuteOf, reasonWords, text, whole } from "./texts.js";

const EVERY_MS = 3000;
const SOURCE_COLUMNS = ["name", "kind", "state", "taken", "missed"];
const SINK_COLUMNS = ["name", "kind", "state", "waiting", "refused", "late"];

const me = await begin();
const drift = driftBox(byId("drift"), { mayAccept: isEngineer(me), accepted });
let heardAt = new Date();
let isAsking = false;

async function show() {
  if (isAsking) return;
  isAsking = true;
  try {
    const [status, states] = await Promise.all([ask("/v1/status"), ask("/v1/drift")]);
    heardAt = new Date();
    showLost(null);
    showProblem(null);
    showSigns(status.signs);
    showSpeed(status);
    drift.show(states);
    showTable("sources", SOURCE_COLUMNS, status.sources, source, text("sources.none"));
    showTable("sinks", SINK_COLUMNS, status.sinks, sink, text("sinks.none"));
    byId("health").hidden = false;
  } catch (error) {
    if (error instanceof Unreachable) showLost(text("lost", { time: minuteOf(heardAt) }));
    else showProblem(error);
  } finally {
    isAsking = false;
  }
}

async function accepted(product, state) {
  drift.show([state]);
  byId("done").textContent = text("drift.accepted", { product });
  byId("main").focus({ preventScroll: true });
  await show();
}

function showSpeed({ speed, in_work: inWork, queue, free_mib: freeMib }) {
  const time = (seconds) => (seconds === null ? text("none") : text("health.seconds", { seconds: decimal(seconds, 2) }));
  byId("speed").replaceChildren(...pairs([
    [text("health.per_minute"), whole(speed.per_minute)],
    ...["p50", "p95", "p99"].map((share) => [text(`health.${share}`), time(speed[`${share}_s`])]),
    [text("health.in_work"), text("health.in_work.of", { number: whole(inWork), most: whole(queue) })],
    [text("health.free"), text("health.gib", { gib: decimal(freeMib / 1024, 1) })],
  ]));
}

function showTable(kind, columns, states, made, none) {
  byId(kind).replaceChildren(states.length > 0 ? table(kind, columns, states.map((state) => row(columns, ...made(state))))
    : element("p", { class: "quiet" }, none));
}

function source(state) {
  return [{ "data-source": state.name, class: state.state === "away" ? "is-off" : undefined }, {
    name: state.name,
    kind: state.kind,
    state: stateWords(state.state, reasonWords(state)),
    taken: whole(state.taken),
    missed: whole(state.missed),
  }];
}

function sink(state) {
  return [{ "data-sink": state.name, class: state.away ? "is-off" : undefined }, {
    name: state.name,
    kind: state.kind,
    state: stateWords(state.away ? "away" : "running", reasonWords(state)),
    waiting: whole(state.waiting),
    refused: whole(state.refused),
    late: whole(state.late),
  }];
}

function stateWords(name, reason) {
  return [text(`state.${name}`), name === "running" || reason === "" ? null : element("span", { class: "reason" }, reason)];
}

document.addEventListener("visibilitychange", () => document.hidden || show());
setInterval(() => document.hidden || show(), EVERY_MS);
await show();
