// The page Review: parts that the station asks people about, one after another, answered by buttons or keys.

import { ask, query } from "./api.js";
import { Answers } from "./answers.js";
import { chooseProduct } from "./chooser.js";
import { byId, element } from "./dom.js";
import { begin, showProblem, showSigns } from "./frame.js";
import { keyOf, nameKeys } from "./keys.js";
import { listen } from "./live.js";
import { MaskEditor } from "./mask_editor.js";
import { showSwitches, viewOf } from "./picture.js";
import { showRates } from "./rates.js";
import { showAnswer, showKinds, showOther, showPart, showProgress, showWaiting, speakPart } from "./review_shown.js";
import { text } from "./texts.js";
import { nameOf } from "./verdict.js";

const SOME = 20; // parts that are asked about at a time
const MOST = 100; // that the station names at once
const DAYS = [1, 7, 30];
const RATES_MS = 1500; // after the last answer
const TOO_SOON_MS = 300; // a click this soon after a part has appeared was for the one before: a glove presses twice
const BEFOREHAND = 2; // pictures that are loaded before they are needed

const me = await begin();
const status = await ask("/v1/status").catch(() => ({ products: [], signs: [] }));
showSigns(status.signs);
let product = null;
let entries = []; // each: result, reason, wrong; answer: what was said here; other: what was said elsewhere meanwhile
let place = 0;
let isEnd = false;
let kinds = [];
let said = []; // entries that were answered, the last one last
let loading = 0;
let rating = null;
let shownAt = 0;
const seen = new Set(); // ids that were answered here: an answer without a kind is asked for again, but not at once
const answers = new Answers(me, { arrived, changed: () => showWaiting(answers) });
const editor = new MaskEditor(me, drawn);

// ----- data

async function load() {
  const own = ++loading;
  try {
    const asked = await unseen();
    if (own !== loading) return;
    showProblem(null);
    entries = asked.map((entry) => ({ ...entry, answer: null, other: null, known: signature(entry.result) }));
    [place, isEnd, said] = [0, entries.length === 0, []];
    show();
  } catch (error) {
    if (own === loading) showProblem(error);
  }
}

/** The next parts to ask about, without those that were answered here. */
async function unseen() {
  await answers.flush();
  const found = await ask(`/v1/review/queue${query({ product, limit: Math.min(MOST, SOME + seen.size) })}`);
  kinds = found.defects;
  return found.asked.filter((entry) => !seen.has(entry.result.id)).slice(0, SOME);
}

function arrived(id, found, isUndo) {
  const entry = entries.find((each) => each.result.id === id);
  if (entry !== undefined) {
    entry.result = found;
    entry.known = signature(found);
    if (!isUndo) entry.other = null;
  }
  if (current()?.result.id === id) show(false);
  rateSoon();
}

/** Say what was answered elsewhere; what this page has sent comes back here, too. */
function hear(found) {
  const entry = entries.find((each) => each.result.id === found.id);
  if (entry === undefined || answers.has(found.id) || entry.known === signature(found)) return;
  entry.result = found;
  entry.known = signature(found);
  const isOwn = editor.result?.id === found.id && found.review?.by === me.name; // said on the way to a mask
  if (!isOwn) entry.other = found.review;
  if (current() === entry) show(false);
}

function signature({ review }) {
  return JSON.stringify(review);
}

function rateSoon() {
  clearTimeout(rating);
  rating = setTimeout(rate, RATES_MS);
}

async function rate() {
  await showRates(product, Number(byId("days").value)).catch(() => {}); // the sign of the connection says it
}

// ----- what a person does

function current() {
  return isEnd ? undefined : entries[place];
}

function answer(verdict) {
  const entry = current();
  if (entry === undefined) return;
  const defect = verdict === "bad" ? byId("kind").value.trim() || null : null;
  note(entry, verdict, defect);
  const body = { verdict, asked: entry.reason, ...(defect === null ? {} : { defect }) };
  answers.put({ id: entry.result.id, name: nameOf(entry.result), body });
  advance();
}

function note(entry, verdict, defect, isDrawn = false) {
  entry.answer = { verdict, defect, isDrawn };
  said = [...said.filter((each) => each !== entry), entry];
  seen.add(entry.result.id);
  if (defect !== null && !kinds.includes(defect)) kinds = [...kinds, defect];
}

function advance() {
  const after = entries.findIndex((entry, number) => number > place && entry.answer === null);
  const open = after >= 0 ? after : entries.findIndex((entry) => entry.answer === null);
  isEnd = open < 0;
  if (!isEnd) place = open;
  show();
}

function undo() {
  const entry = said.pop();
  if (entry === undefined) return;
  const { id } = entry.result;
  entry.answer = null;
  seen.delete(id);
  [place, isEnd] = [entries.indexOf(entry), false];
  if (!answers.drop(id) || answers.sent.get(id) > 0) answers.put({ id, name: nameOf(entry.result), undo: true });
  show();
}

function go(by) {
  if (isEnd && by > 0) return;
  const next = isEnd ? entries.length - 1 : place + by;
  if (next < 0 || next >= entries.length) return;
  [place, isEnd] = [next, false];
  show();
}

function draw() {
  const entry = current();
  if (entry === undefined || byId("draw").disabled) return;
  const { id } = entry.result;
  const defect = byId("kind").value.trim() || null;
  let isSaid = false;
  editor.open(entry.result, async () => { // a mask alone would not say why it was asked for, and of which kind it is
    if (isSaid) return;
    await ask(`/v1/results/${id}/review`, { method: "POST", body: { verdict: "bad", asked: entry.reason, defect } });
    isSaid = true;
    answers.count(id, 1);
    note(entry, "bad", defect);
  });
}

/** After a mask was saved or removed. */
function drawn(found, what) {
  const entry = entries.find((each) => each.result.id === found.id);
  if (entry === undefined) return;
  answers.count(found.id, 1);
  arrived(found.id, found, false);
  if (what === "saved") {
    note(entry, "bad", entry.answer?.defect ?? null, true);
    advance();
  } else show();
}

/** The kind of the next bad parts, until another one is chosen. */
function useKind(kind) {
  byId("kind").value = kind;
  kindChanged();
}

function kindChanged() {
  if (current() === undefined) return;
  showAnswer(current().answer);
  showKinds(kinds, useKind);
}

// ----- what is shown

function show(isOther = true) {
  const entry = current();
  byId("asked").hidden = entry === undefined;
  byId("end").hidden = !isEnd;
  byId("undo").disabled = said.length === 0;
  byId("end-undo").hidden = said.length === 0;
  showProgress(entries, place, isEnd);
  if (isEnd) showEnd();
  if (entry === undefined) return;
  showPart(entry);
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === entries.length - 1;
  showAnswer(entry.answer);
  showOther(entry.other);
  showKinds(kinds, useKind);
  if (!isOther) return;
  shownAt = performance.now();
  speakPart(entry, place + 1, entries.length);
  for (const { result: next } of entries.slice(place + 1, place + 1 + BEFOREHAND)) {
    if (next.picture.kept) new Image().src = viewOf(next, 1600);
  }
}

async function showEnd() {
  const own = loading;
  const isNone = entries.length === 0;
  byId("end-title").textContent = text(isNone ? "queue.none" : "queue.done");
  byId("end-text").textContent = isNone ? text("queue.none.why") : "";
  byId("load").textContent = text("queue.ask");
  byId("spoken").textContent = byId("end-title").textContent;
  byId("load").focus();
  if (isNone) return;
  const asked = await unseen().catch(() => null);
  if (asked === null || own !== loading || !isEnd) return;
  byId("end-text").textContent = asked.length === 0 ? text("queue.none") : "";
  if (asked.length > 0) byId("load").textContent = text("queue.load", { count: asked.length });
}

// ----- begin

function use(chosen) {
  product = chosen;
  [kinds, entries, isEnd] = [[], [], false];
  byId("kind").value = "";
  load();
  rate();
}

showSwitches(byId("switches"), ["heat", "boxes", "mask"]);
byId("switches").querySelector('[data-layer="heat"]').dataset.key = "H";
byId("days").replaceChildren(...DAYS.map((days) => element("option", { value: days }, text(`threshold.days.${days}`))));
byId("days").value = 7;
byId("days").addEventListener("change", rate);
nameKeys(byId("asked"));
for (const button of byId("answers").querySelectorAll("button")) {
  button.addEventListener("click", () => performance.now() - shownAt > TOO_SOON_MS && answer(button.dataset.answer));
}
const buttons = { undo, "end-undo": undo, draw, previous: () => go(-1), next: () => go(1), load: () => load().then(() => byId("main").focus()) };
for (const [id, done] of Object.entries(buttons)) byId(id).addEventListener("click", done);
byId("send-again").addEventListener("click", () => answers.again());
byId("drop-refused").addEventListener("click", () => answers.dropRefused());
byId("kind").addEventListener("input", kindChanged);
byId("kind").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== "Escape") return;
  event.preventDefault();
  byId("kind").blur();
});

const keys = {
  g: () => answer("good"), b: () => answer("bad"), u: () => answer("unusable"), z: undo, m: draw, k: () => byId("kind").focus(),
  h: () => byId("switches").querySelector('[data-layer="heat"]').click(), arrowleft: () => go(-1), arrowright: () => go(1),
};
document.addEventListener("keydown", (event) => {
  if (byId("mask").open || event.repeat || event.target.closest("input, select, textarea")) return;
  const key = keyOf(event);
  const chip = /^[1-9]$/.test(key) ? byId("known").children[key - 1] : undefined;
  if (!(key in keys) && chip === undefined) return;
  event.preventDefault();
  (keys[key] ?? (() => chip.click()))();
});

showWaiting(answers);
listen({
  review: hear,
  opened: () => {
    answers.flush();
    const entry = current();
    if (entry !== undefined) ask(`/v1/results/${entry.result.id}`).then(hear).catch(() => {});
    else if (!isEnd && product !== null) load();
  },
});
if (status.products.length > 0) product = chooseProduct(status.products, use);
await load();
rate();
const kept = entries.findIndex((entry) => entry.result.id === editor.keptId);
if (kept >= 0) {
  place = kept;
  show();
  draw();
}
