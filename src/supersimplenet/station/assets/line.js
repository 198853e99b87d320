// The page of the line: the last part, large; the last fifty; the counts of the shift; live.

import { ask, query, stationNow, Unreachable } from "./api.js";
import { showCounts } from "./counts.js";
import { byId, element, pairs } from "./dom.js";
import { begin, showSigns } from "./frame.js";
import { listen } from "./live.js";
import { showPicture, showSwitches } from "./picture.js";
import { reviewBox } from "./review_box.js";
import { showStrip } from "./strip.js";
import { ago, errorWords, text, timeOf } from "./texts.js";
import { nameOf, scoreText, showVerdict, verdictOf } from "./verdict.js";

const LAST = 50;
const SHOW_EVERY_MS = 250; // where parts come faster, not each is drawn large
const SPEAK_EVERY_MS = 4000;
const STATUS_EVERY_MS = 5000;
const COUNT_EVERY_MS = 30000;
const COUNT_AGAIN_MS = 500;

const me = await begin();
let status = null;
let product = new URL(location.href).searchParams.get("product");
let results = []; // newest first
let held = null;
let shownAt = 0;
let isDue = false;
let spokenAt = 0;
let spokenVerdict = null;
let counting = null;
let countedAt = -COUNT_AGAIN_MS;
let timeShown = null;
const review = reviewBox((found) => {
  put(found);
  show(false);
  countSoon();
});
showSwitches(byId("switches"));

// ----- data

async function catchUp() {
  const began = Date.now();
  try {
    const found = await ask(`/v1/results${query({ product, limit: LAST })}`);
    const newer = results.filter((result) => result.id > (found.results[0]?.id ?? "")); // came while it was asked
    results = [...newer, ...found.results].slice(0, LAST);
    if (held !== null) held = results.find((result) => result.id === held.id) ?? held;
    show(held === null);
  } catch (error) {
    if (error instanceof Unreachable) live.suspect(began);
  }
  countSoon();
}

function put(result) {
  if (product !== null && result.product !== product) return;
  const place = results.findIndex((known) => known.id <= result.id);
  if (place >= 0 && results[place].id === result.id) results[place] = result;
  else if (place >= 0) results.splice(place, 0, result);
  else if (results.length < LAST) results.push(result);
  results.length = Math.min(results.length, LAST);
  if (held?.id === result.id) held = result;
}

async function askStatus() {
  const began = Date.now();
  try {
    status = await ask("/v1/status");
    showSigns(status.signs);
    showProducts();
    showEmpty();
  } catch (error) {
    if (error instanceof Unreachable) live.suspect(began);
  }
}

/** Count at once, but at most twice a second. */
function countSoon() {
  const wait = COUNT_AGAIN_MS - (performance.now() - countedAt);
  counting ??= setTimeout(async () => {
    [counting, countedAt] = [null, performance.now()];
    if (status === null) return;
    const since = new Date(stationNow() - status.shift_hours * 3600000);
    since.setSeconds(0, 0);
    const wanted = { since: since.toISOString(), product };
    try {
      showCounts(await ask(`/v1/counts${query(wanted)}`), wanted, status.shift_hours);
    } catch {
      // the next count says it, and the sign of the connection
    }
  }, Math.max(0, wait));
}

// ----- what is shown

function show(byItself) {
  const current = held ?? results[0];
  showEmpty();
  for (const id of ["now", "last"]) byId(id).hidden = current === undefined;
  if (current === undefined) return;
  shownAt = performance.now();
  showVerdict(byId("verdict"), verdictOf(current));
  showPicture(byId("stage"), byId("legend"), current);
  showFacts(current);
  review.show(current, byItself);
  byId("open").href = `/results/${current.id}`;
  showHeld();
  showStrip(results, held?.id, hold);
  if (held === null) speak(current);
}

/** A new part: at once, or a moment later where one was drawn just now. */
function showSoon() {
  if (isDue) return;
  const wait = SHOW_EVERY_MS - (performance.now() - shownAt);
  isDue = true;
  setTimeout(() => {
    isDue = false;
    show(held === null);
  }, Math.max(0, wait));
}

function showFacts(result) {
  const taken = new Date(result.taken_at);
  timeShown = element("span", {}, ago(taken, stationNow()));
  const isOneProduct = (status?.products.length ?? 1) < 2;
  byId("facts").replaceChildren(...pairs([
    [text("name"), element("span", { id: "name" }, nameOf(result))],
    result.part === null ? null : [text("part"), result.part],
    isOneProduct ? null : [text("product"), result.product],
    result.error === null
      ? [text("score"), result.score === null ? scoreText(result) : text("score.of", { score: scoreText(result) })]
      : [text("reason"), element("span", { class: "reason" }, errorWords(result.error))],
    [text("time"), element("span", {}, timeShown, element("span", { class: "quiet" }, ` · ${timeOf(taken)}`))],
  ]));
  timeShown.dataset.taken = result.taken_at;
}

function showHeld() {
  byId("held").hidden = held === null;
  document.body.classList.toggle("is-held", held !== null);
  if (held === null) return;
  const count = results.filter((result) => result.id > held.id).length;
  const words = count === 0 ? text("line.held.none") : text("line.held", { count });
  if (byId("held-text").textContent !== words) byId("held-text").textContent = words;
}

/** To a screen reader: what is not good, and each change; not part after part. */
function speak(result) {
  const now = performance.now();
  const verdict = verdictOf(result);
  const isNews = verdict !== spokenVerdict || verdict !== "good";
  if (!isNews || (spokenAt !== 0 && now - spokenAt < SPEAK_EVERY_MS)) return;
  const words = text("spoken", { verdict: text(`verdict.${verdict}`), name: nameOf(result) });
  if (byId("spoken").textContent === words) return;
  [spokenAt, spokenVerdict] = [now, verdict];
  byId("spoken").textContent = words;
}

function showEmpty() {
  const isEmpty = results.length === 0 && held === null && status !== null;
  byId("empty").hidden = !isEmpty;
  if (!isEmpty) return;
  const named = product ?? (status.products.length > 1 ? status.products[0] : null);
  const token = me.name === "local" ? "" : "-H 'Authorization: Bearer TOKEN' ";
  const address = `${location.origin}/v1/inspect${query({ name: "picture.png", product: named })}`;
  byId("curl").textContent = `curl ${token}-H 'Content-Type: image/png' --data-binary @picture.png '${address}'`;
  byId("empty-token").hidden = token === "";
}

function showProducts() {
  const names = status.products;
  const choice = byId("product");
  byId("chooser").hidden = names.length < 2 && product === null;
  document.body.classList.toggle("has-chooser", !byId("chooser").hidden);
  const listed = ["", ...names, ...(product !== null && !names.includes(product) ? [product] : [])];
  if ([...choice.options].map((option) => option.value).join("\n") === listed.join("\n")) return;
  choice.replaceChildren(...listed.map((name) => element("option", { value: name }, name || text("product.all"))));
  choice.value = product ?? "";
}

// ----- what a person does

function hold(id) {
  const found = results.find((result) => result.id === id);
  if (found === undefined) return;
  held = found;
  show(false);
  byId("strip").querySelector(`[data-result="${id}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  const isAbove = byId("verdict").getBoundingClientRect().bottom < 40; // on a phone the strip is far below
  if (isAbove) scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function liveAgain() {
  if (held === null) return;
  const hadFocus = byId("held").contains(document.activeElement);
  held = null;
  show(false);
  if (hadFocus) byId("main").focus({ preventScroll: true });
  byId("strip").scrollTo({ left: 0 });
}

function step(by) {
  const place = held === null ? 0 : results.findIndex((result) => result.id === held.id);
  const next = place + by;
  if (next < 0) liveAgain();
  else if (next < results.length) hold(results[next].id);
}

byId("live-again").addEventListener("click", liveAgain);
byId("product").addEventListener("change", (event) => {
  product = event.target.value || null;
  history.replaceState(null, "", `/${query({ product })}`);
  [results, held] = [[], null];
  catchUp();
});
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("select, input, textarea")) return;
  if (event.key === "Escape") liveAgain();
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "ArrowLeft") step(-1);
  else return;
  event.preventDefault();
});

setInterval(() => {
  if (timeShown === null) return;
  const words = ago(new Date(timeShown.dataset.taken), stationNow());
  if (timeShown.textContent !== words) timeShown.textContent = words;
}, 1000);
setInterval(askStatus, STATUS_EVERY_MS);
setInterval(countSoon, COUNT_EVERY_MS);

const live = listen({
  result: (result) => {
    put(result);
    showSoon();
    countSoon();
  },
  review: (result) => {
    review.hear(result);
    if ([...results, held].some((known) => known?.id === result.id)) {
      put(result);
      show(false);
    }
    countSoon();
  },
  opened: () => {
    askStatus();
    catchUp();
  },
});
await askStatus();
await catchUp();
