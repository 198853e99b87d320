// The filters of the history: form, address and the query to the station have the same names.

import { query } from "./api.js";
import { byId, element } from "./dom.js";
import { text } from "./texts.js";
import { VERDICTS } from "./verdict.js";

export const ADDRESS_FILTERS = ["since", "until", "verdict", "product", "part", "model", "source", "reviewed", "order"];
const TIMES = ["since", "until"];
const CHOICES = {
  verdict: VERDICTS,
  reviewed: ["any", "none", "false-call", "missed", "disputed"],
  order: ["oldest", "worst"], // newest is the one that need not be named
};

/** The filter of an address; what is no filter is left out. */
export function filterOf(search) {
  const parameters = new URLSearchParams(search);
  return Object.fromEntries(ADDRESS_FILTERS.map((name) => {
    const value = parameters.get(name) || null;
    const isKnown = !(name in CHOICES) || CHOICES[name].includes(value);
    const isTime = !TIMES.includes(name) || !Number.isNaN(Date.parse(value));
    return [name, isKnown && isTime ? value : null];
  }));
}

/** The part of an address that says a filter. */
export function addressOf(filter) {
  return query(Object.fromEntries(ADDRESS_FILTERS.map((name) => [name, filter[name]])));
}

export function prepareForm(products, filter) {
  const options = (names, first, words) => [
    element("option", { value: "" }, first),
    ...names.map((name) => element("option", { value: name }, words(name))),
  ];
  const all = text("filters.all");
  byId("verdict").replaceChildren(...options(CHOICES.verdict, all, (name) => text(`verdict.${name}`)));
  byId("reviewed").replaceChildren(...options(CHOICES.reviewed, all, (name) => text(`filters.reviewed.${name}`)));
  byId("order").replaceChildren(...options(CHOICES.order, text("filters.order.newest"), (name) => text(`filters.order.${name}`)));
  const others = filter.product !== null && !products.includes(filter.product) ? [filter.product] : [];
  byId("product").replaceChildren(...options([...products, ...others], all, (name) => name));
  fillForm(filter);
}

export function fillForm(filter) {
  for (const name of ADDRESS_FILTERS) {
    const field = byId(name);
    if (field === null) continue;
    field.value = TIMES.includes(name) ? localTime(filter[name]) : filter[name] ?? "";
    if (name === "product" && field.value !== (filter.product ?? "")) {
      field.append(element("option", { value: filter.product }, filter.product));
      field.value = filter.product;
    }
  }
}

/** What the form says; a time keeps the seconds of the address where its field was not changed. */
export function formFilter(earlier) {
  return Object.fromEntries(ADDRESS_FILTERS.filter((name) => byId(name) !== null).map((name) => {
    const value = byId(name).value.trim();
    if (!TIMES.includes(name)) return [name, value || null];
    if (value === localTime(earlier[name])) return [name, earlier[name]];
    const moment = new Date(value); // of this computer's zone; the address says UTC, so that it means the same elsewhere
    return [name, Number.isNaN(moment.getTime()) ? null : moment.toISOString().replace(/\.000Z$/, "Z")];
  }));
}

/** A time as a field of this kind wants it, in this computer's zone. */
function localTime(iso) {
  if (iso === null) return "";
  const moment = new Date(iso);
  return new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
