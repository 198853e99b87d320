// The page of a result: picture, decision in words, defects, the part's other photographs, and what decided.

import { ask, query } from "./api.js";
import { decisionWords, rarityWords } from "./decision.js";
import { byId, element, pairs } from "./dom.js";
import { addressOf, filterOf } from "./filters.js";
import { begin, showProblem, showSigns } from "./frame.js";
import { guaranteeWords } from "./guarantee.js";
import { listen } from "./live.js";
import { MaskEditor } from "./mask_editor.js";
import { showDrawn } from "./mask_shown.js";
import { showPicture, showSwitches } from "./picture.js";
import { reviewBox } from "./review_box.js";
import { ofTab } from "./storage.js";
import { labelOf, thumbnail } from "./strip.js";
import { dayAndTime, decimal, text, whole } from "./texts.js";
import { badge, nameOf, scoreText, showVerdict, verdictOf } from "./verdict.js";

const id = decodeURIComponent(location.pathname.split("/")[2]);
const filter = filterOf(location.search);
const address = addressOf(filter);
const review = reviewBox(showReview);
let shown = null;

const me = await begin();
const editor = new MaskEditor(me, showReview);
showSwitches(byId("switches"), ["heat", "boxes", "mask"]);
byId("draw").addEventListener("click", () => editor.open(shown));
byId("back").href = `/history${address}`;
ask("/v1/status").then((status) => showSigns(status.signs)).catch(() => {});
try {
  const result = await ask(`/v1/results/${encodeURIComponent(id)}`);
  show(result);
  byId("result").hidden = false;
  listenFor(result);
  if (editor.keptId === result.id) editor.open(result);
  await Promise.all([showModel(result), showPart(result), showAround()]);
} catch (error) {
  showProblem(error);
}

function show(result) {
  const name = nameOf(result);
  document.title = text("title.of", { name, page: text("brand") });
  byId("name").textContent = name;
  showVerdict(byId("verdict"), verdictOf(result));
  showPicture(byId("stage"), byId("legend"), result);
  showReview(result);
  byId("picture").href = `/v1/results/${result.id}/picture`;
  byId("picture").hidden = !result.picture.kept;
  byId("decision").replaceChildren(element("p", {}, decisionWords(result)));
  byId("defects").replaceChildren(defects(result));
  byId("facts").replaceChildren(...pairs(factsOf(result)));
}

/** What people say, and where they drew a defect. */
function showReview(result) {
  shown = result;
  review.show(result);
  showDrawn(byId("stage"), result);
  byId("draw").hidden = result.verdict === null || !result.picture.kept;
  byId("draw").textContent = text(result.review?.mask ? "mask.change" : "mask.draw");
}

function factsOf(result) {
  const { width, height, kind, bytes, sha256 } = result.picture;
  return [
    [text("time"), element("time", { datetime: result.taken_at }, dayAndTime(new Date(result.taken_at)))],
    [text("product"), result.product],
    [text("source"), result.source],
    [text("score"), scoreText(result)],
    [text("fact.logit"), result.score_logit === null ? text("none") : decimal(result.score_logit, 3)],
    [text("fact.p_value"), result.p_value === null ? text("none") : decimal(result.p_value, result.p_value < 0.01 ? 4 : 2)],
    width === null ? null : [text("fact.picture"), text("fact.picture.of", { width: whole(width), height: whole(height),
      kind: kind.toUpperCase(), kib: whole(Math.max(1, bytes / 1024)) })],
    [text("fact.sha256"), element("code", {}, sha256)],
    [text("fact.id"), element("code", {}, result.id)],
  ];
}

function defects(result) {
  if (result.verdict === null) return element("p", { class: "quiet" }, text("defects.failed"));
  if (result.defects === null) return element("p", { class: "quiet" }, text("defects.uncalibrated"));
  if (result.defects.length === 0) return element("p", { class: "quiet" }, text("defects.none"));
  const inZone = result.defects.some((defect) => defect.zone);
  const heads = ["number", "place", "size", "area", "peak", ...(inZone ? ["zone"] : [])];
  const rows = result.defects.map((defect, place) => element("tr", {},
    element("th", { scope: "row" }, whole(place + 1)),
    element("td", {}, `${defect.left}, ${defect.top}`),
    element("td", {}, `${defect.width} × ${defect.height}`),
    element("td", {}, whole(defect.area_px)),
    element("td", {}, decimal(defect.peak_logit, 2)),
    inZone ? element("td", {}, defect.zone ?? "") : null));
  const table = element("table", { class: "plain" },
    element("caption", { class: "unseen" }, text("result.defects")),
    element("thead", {}, element("tr", {}, heads.map((head) => element("th", { scope: "col" }, text(`defects.${head}`))))),
    element("tbody", {}, rows));
  const isPeak = result.defects.some((defect) => defect.below_threshold);
  const note = text(isPeak ? "defects.peak_only" : "defects.note");
  return element("div", {}, element("div", { class: "scroll" }, table), element("p", { class: "quiet" }, note));
}

/** Reviews that are made elsewhere, also those that were made while the station was not heard. */
function listenFor(result) {
  listen({
    review: (found) => {
      if (found.id === result.id) showReview(found);
      if (found.product === result.product && found.part === result.part) showPart(result);
    },
    opened: () => ask(`/v1/results/${result.id}`).then(showReview).catch(() => {}),
  });
}

/** What the model was when it decided: kept by the station, also when another one is in use since. */
async function showModel(result) {
  const { facts } = await ask(`/v1/models/${result.model}`).catch(() => ({ facts: null }));
  const hash = element("a", { href: `/history${query({ model: result.model })}`, class: "hash" }, element("code", {}, result.model));
  byId("facts").append(...pairs([
    [text("fact.model"), hash],
    facts === null ? null : [text("fact.engine"), facts.computed_by],
    facts === null ? null : [text("fact.version"), facts.version],
    facts === null ? null : [text("fact.threshold"), facts.threshold_logit === null ? text("none") : decimal(facts.threshold_logit, 3)],
    facts?.calibration?.date ? [text("fact.calibrated"), facts.calibration.date] : null,
    ...Object.entries(facts?.files ?? {}).map(([name, sha256]) => [name, element("code", {}, sha256)]),
  ]));
  const isGuaranteed = result.calibrated && facts?.guarantee;
  if (result.verdict === null) return;
  const parts = facts?.calibration?.part_logits?.length ?? null;
  if (result.p_value !== null) byId("decision").append(element("p", {}, rarityWords(result.p_value, parts)));
  byId("decision").append(element("p", { class: isGuaranteed ? "guarantee" : "guarantee broken" },
    isGuaranteed ? text("decision.guarantee", { guarantee: guaranteeWords(facts.calibration) }) : text("decision.no_guarantee")));
}

async function showPart(result) {
  if (result.part === null) return;
  const path = `/v1/parts/${encodeURIComponent(result.product)}/${encodeURIComponent(result.part)}`;
  const part = await ask(path).catch(() => null);
  if (part === null) return;
  byId("part-title").textContent = text("result.part", { part: result.part });
  const count = part.results.length;
  const words = part.verdict === null ? text("part.unknown", { count }) : text("part.verdict", { count });
  byId("part-verdict").replaceChildren(...(part.verdict === null ? [words] : [badge(part.verdict), " ", words]));
  byId("photographs").replaceChildren(...part.results.map((other) => element("li", {}, element("a", {
    class: "thumb", href: `/results/${other.id}`, "aria-label": labelOf(other),
    "aria-current": other.id === result.id ? "page" : undefined }, thumbnail(other)))));
  byId("part-box").hidden = false;
}

/** Previous and next, in the list from which one came here, else in time within its filter. */
async function showAround() {
  const order = filter.order ?? "newest";
  const list = ofTab("list");
  const place = list?.query === address ? list.ids.indexOf(id) : -1;
  const beyond = async (wanted) => {
    const found = await ask(`/v1/results${query({ ...filter, order: wanted, after: id, limit: 1 })}`);
    return found.results[0]?.id ?? null;
  };
  const before = { newest: "oldest", oldest: "newest" }[order];
  const previous = place > 0 ? list.ids[place - 1] : before === undefined || place === 0 && order === "worst" ? null : await beyond(before);
  const next = (place >= 0 ? list.ids[place + 1] : undefined) ?? (await beyond(order));
  for (const [name, other] of [["previous", previous], ["next", next]]) {
    const link = byId(name);
    link.hidden = other === null;
    link.textContent = text(`result.${name}.${order}`);
    if (other !== null) link.href = `/results/${other}${address}`;
  }
}

document.addEventListener("keydown", (event) => {
  if (byId("mask").open || event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, textarea, .scroll")) return;
  const link = { ArrowLeft: byId("previous"), ArrowRight: byId("next") }[event.key];
  if (link && !link.hidden) link.click();
});
