// The page Try: pictures of this computer are inspected one after another, and nothing of them is stored.

import { ask, query, Refused } from "./api.js";
import { chooseProduct } from "./chooser.js";
import { decisionWords, rarityWords } from "./decision.js";
import { byId, element, pairs } from "./dom.js";
import { begin, showSigns } from "./frame.js";
import { showPicture, showSwitches } from "./picture.js";
import { text } from "./texts.js";
import { scoreText, showVerdict } from "./verdict.js";

const WITHIN_MS = 120000; // a large picture on a slow network, behind others
const AGAIN_MS = 1000;

await begin();
const status = await ask("/v1/status").catch(() => ({ products: [], signs: [] }));
showSigns(status.signs);
showSwitches(byId("switches"));
let product = chooseProduct(status.products, (name) => (product = name));
let waiting = [];
let shown = [];
let isWorking = false;
const models = new Map(); // parts of the calibration, by model

function take(files) {
  for (const file of files) {
    const card = element("article", {}, element("h2", {}, file.name), element("p", { class: "state" }, text("try.waiting")));
    const entry = { file, product, card, address: URL.createObjectURL(file) };
    byId("tried").append(card);
    waiting.push(entry);
    shown.push(entry);
  }
  byId("bar").hidden = shown.length === 0;
  work();
}

async function work() {
  if (isWorking) return;
  isWorking = true;
  let count = 0;
  while (waiting.length > 0) {
    const entry = waiting.shift();
    await inspect(entry);
    count += shown.includes(entry) ? 1 : 0;
  }
  isWorking = false;
  if (count > 0) byId("spoken").textContent = text("try.done", { count });
}

/** Inspect a picture; a busy station is asked again as long as the picture is shown. */
async function inspect(entry) {
  let content;
  try {
    content = new Blob([await entry.file.arrayBuffer()]);
  } catch {
    return fail(entry, text("try.unreadable"));
  }
  const path = `/v1/inspect${query({ store: "false", product: entry.product, name: entry.file.name })}`;
  say(entry, text("try.inspecting"));
  while (shown.includes(entry)) {
    try {
      const answer = await ask(path, { method: "POST", body: content, withinMs: WITHIN_MS });
      return await show(entry, answer.results[0]);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 503) return fail(entry, error.message);
      say(entry, text("try.busy"));
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(error.retryAfter) || AGAIN_MS));
    }
  }
  return undefined;
}

function say(entry, words) {
  entry.card.querySelector(".state").textContent = words;
}

function fail(entry, words) {
  entry.card.querySelector(".state").replaceWith(element("p", { class: "problem" }, words));
}

async function show(entry, result) {
  const [verdict, stage, legend] = ["verdict-block small", "stage", "legend"].map((name) => element("div", { class: name }));
  const box = element("div", { class: "stage-box" }, stage, legend);
  const words = [decisionWords(result)];
  if (result.p_value !== null) words.push(rarityWords(result.p_value, await partsOf(result.model)));
  entry.card.querySelector(".state").remove();
  entry.card.append(verdict, box,
    element("dl", { class: "facts" }, pairs([[text("score"), scoreText(result)]])),
    ...words.map((line) => element("p", {}, line)));
  showVerdict(verdict, result.verdict);
  const away = text("try.not_shown", { kind: result.picture.kind.toUpperCase() });
  showPicture(stage, legend, result, { photograph: entry.address, heat: result.heat, away });
}

/** Of how many good parts the calibration was; null where that is not known. */
async function partsOf(model) {
  if (!models.has(model)) {
    const { facts } = await ask(`/v1/models/${model}`).catch(() => ({ facts: null }));
    models.set(model, facts?.calibration?.part_logits?.length ?? null);
  }
  return models.get(model);
}

function clear() {
  for (const { address } of shown) URL.revokeObjectURL(address);
  [waiting, shown] = [[], []];
  byId("tried").replaceChildren();
  byId("bar").hidden = true;
  byId("choose").focus();
}

byId("choose").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", () => {
  take([...byId("files").files]);
  byId("files").value = ""; // so that the same one can be chosen again
});
byId("clear").addEventListener("click", clear);
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // else the browser leaves this page for the picture
    byId("drop").classList.toggle("is-over", name === "dragenter" || name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}
byId("choose").disabled = false; // from now on a click is heard
