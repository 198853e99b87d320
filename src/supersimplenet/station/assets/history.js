// The page of the history: filters in the address, a list that goes on, exports of the same filter, two side by side.

import { ask, query } from "./api.js";
import { beginCompare } from "./compare.js";
import { byId, element } from "./dom.js";
import { addressOf, ADDRESS_FILTERS, fillForm, filterOf, formFilter, prepareForm } from "./filters.js";
import { begin, showProblem, showSigns } from "./frame.js";
import { keepInTab } from "./storage.js";
import { labelOf, thumbnail } from "./strip.js";
import { dayAndTime, text } from "./texts.js";
import { badge, nameOf, reviewKind, scoreText, verdictOf } from "./verdict.js";

const PAGE = 50;
const TYPING_MS = 400;

await begin();
const status = await ask("/v1/status").catch(() => ({ products: [], signs: [] }));
showSigns(status.signs);
let filter = filterOf(location.search);
let shown = []; // results, as far as the list has come
let next = null;
let asked = 0;
let typing = null;
const compare = beginCompare(() => shown, markChosen);
prepareForm(status.products, filter);

// ----- list

async function search() {
  const own = ++asked;
  const { order, ...wanted } = filter;
  showExports(wanted);
  showModel();
  try {
    const [list, counts] = await Promise.all([
      ask(`/v1/results${query({ ...filter, limit: PAGE })}`),
      ask(`/v1/counts${query(wanted)}`),
    ]);
    if (own !== asked) return;
    showProblem(null);
    [shown, next] = [[], list.next];
    byId("rows").replaceChildren();
    add(list.results);
    showFound(counts);
  } catch (error) {
    if (own !== asked) return;
    showProblem(error);
    byId("rows").replaceChildren();
    byId("found").textContent = "";
    byId("more").hidden = true;
  }
}

async function more() {
  const own = asked;
  byId("more").setAttribute("aria-disabled", "true");
  try {
    const list = await ask(`/v1/results${query({ ...filter, limit: PAGE, after: next })}`);
    if (own !== asked) return;
    const place = shown.length;
    next = list.next;
    add(list.results);
    if (next === null) byId("rows").querySelectorAll("a.open")[place]?.focus();
  } catch (error) {
    showProblem(error);
  } finally {
    byId("more").removeAttribute("aria-disabled");
  }
}

function add(results) {
  shown.push(...results);
  let body = byId("rows").querySelector("tbody");
  if (body === null && results.length > 0) {
    body = element("tbody", { role: "rowgroup" });
    byId("rows").append(table(body));
  }
  body?.append(...results.map(row));
  byId("more").hidden = next === null;
  keepInTab("list", { query: addressOf(filter), ids: shown.map((result) => result.id) });
  compare.show();
}

const COLUMNS = ["compare", "picture", "verdict", "time", "name", "part", "product", "source", "score", "review"];

function table(body) {
  const heads = COLUMNS.map((name) => element("th", { scope: "col", role: "columnheader", class: `of-${name}` },
    element("span", { class: name === "compare" || name === "picture" ? "unseen" : undefined }, text(`column.${name}`))));
  return element("table", { role: "table", class: status.products.length === 1 ? "results one-product" : "results" },
    element("caption", { class: "unseen" }, text("history.caption")),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, heads)), body);
}

function row(result) {
  const address = `/results/${result.id}${addressOf(filter)}`;
  const kind = reviewKind(result);
  const name = element("a", { class: "open", href: address }, nameOf(result));
  const cells = {
    compare: element("input", { type: "checkbox", "aria-label": text("compare.choose", { name: labelOf(result) }),
      onchange: (event) => compare.choose(result.id, event.target.checked) }),
    picture: element("a", { class: "thumb", href: address, tabindex: "-1", "aria-hidden": "true" }, thumbnail(result)[0]),
    verdict: badge(verdictOf(result)),
    time: element("time", { datetime: result.taken_at }, dayAndTime(new Date(result.taken_at))),
    name,
    part: result.part ?? "",
    product: result.product,
    source: result.source,
    score: scoreText(result),
    review: kind === null ? "" : text(`review.short.${kind}`, { verdict: text(`verdict.${result.verdict}`) }),
  };
  return element("tr", { role: "row", "data-result": result.id }, COLUMNS.map((column) => {
    const cell = element("td", { role: "cell", class: `of-${column}` }, cells[column]);
    cell.dataset.name = column === "compare" || column === "picture" ? "" : text(`column.${column}`);
    if (cells[column] === "") cell.classList.add("none");
    return cell;
  }));
}

function markChosen(ids) {
  for (const item of byId("rows").querySelectorAll("tbody tr")) {
    const isChosen = ids.includes(item.dataset.result);
    item.querySelector("input").checked = isChosen;
    item.classList.toggle("chosen", isChosen);
  }
}

// ----- around it

function showFound(counts) {
  const count = counts.good + counts.unsure + counts.bad + counts.failed;
  const numbers = ["bad", "unsure", "good", "failed", "false_calls", "missed"].filter((name) => counts[name] > 0)
    .map((name) => text(`found.${name}`, { count: counts[name] }));
  byId("found").textContent = count === 0 ? text("found.none")
    : text("found.list", { results: text("found", { count }), numbers: numbers.join(text("comma")) });
  byId("exports").hidden = count === 0;
}

function showExports(wanted) {
  for (const kind of ["csv", "parquet", "zip"]) byId(`export-${kind}`).href = `/v1/results.${kind}${query(wanted)}`;
}

function showModel() {
  byId("model-chip").hidden = !filter.model;
  byId("model-name").textContent = filter.model ? text("filters.model", { model: filter.model.slice(0, 12) }) : "";
}

/** Use a filter: in the address, so that it can be sent to others, and in the list. */
function use(changed) {
  const earlier = addressOf(filter);
  filter = changed;
  if (addressOf(filter) === earlier) return;
  history.pushState(null, "", `/history${addressOf(filter)}`);
  search();
}

function changed() {
  clearTimeout(typing);
  use({ ...filter, ...formFilter(filter) });
}

byId("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  changed();
});
byId("filters").addEventListener("change", changed);
byId("filters").addEventListener("input", (event) => {
  if (event.target.type !== "search") return;
  clearTimeout(typing);
  typing = setTimeout(changed, TYPING_MS);
});
byId("clear").addEventListener("click", () => {
  use(Object.fromEntries(ADDRESS_FILTERS.map((name) => [name, null])));
  fillForm(filter);
});
byId("model-clear").addEventListener("click", () => use({ ...filter, model: null }));
byId("more").addEventListener("click", () => byId("more").hasAttribute("aria-disabled") || more());
addEventListener("popstate", () => {
  filter = filterOf(location.search);
  fillForm(filter);
  search();
});
await search();
