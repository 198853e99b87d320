// Thumbnails in a row, newest first, each with the mark of its verdict.

import { byId, element } from "./dom.js";
import { viewOf } from "./picture.js";
import { text, timeOf } from "./texts.js";
import { mark, nameOf, reviewKind, verdictOf } from "./verdict.js";

/** A thumbnail with its verdict, to be put into a button or a link. */
export function thumbnail(result) {
  const kind = reviewKind(result);
  const verdict = verdictOf(result);
  const shown = result.picture.kept && result.error?.code !== "unreadable"
    ? element("img", { src: viewOf(result, 320), alt: "", loading: "lazy", draggable: "false", width: 320, height: 320,
        onerror: (event) => event.target.replaceWith(element("span", { class: "blank" })) })
    : element("span", { class: "blank" });
  return [
    shown,
    element("span", { class: `flag ${verdict}` }, mark(verdict), element("span", { class: "short" }, text(`verdict.${verdict}`))),
    kind === null || kind === "agrees" ? null : element("span", { class: "reviewed" }, text(`review.short.${kind}`)),
  ];
}

/** What a screen reader says of a thumbnail. */
export function labelOf(result) {
  const kind = reviewKind(result);
  const words = { verdict: text(`verdict.${verdictOf(result)}`), name: nameOf(result), time: timeOf(new Date(result.taken_at)) };
  const label = text("thumbnail", words);
  return kind === null || kind === "agrees" ? label : [label, text(`review.short.${kind}`)].join(text("comma"));
}

/** Bring the strip to these results; what is there already stays, with its focus. */
export function showStrip(results, heldId, chosen) {
  const strip = byId("strip");
  const there = new Map([...strip.children].map((item) => [item.dataset.state, item]));
  const items = results.map((result) => {
    const state = `${result.id} ${result.review?.verdict ?? ""}`;
    const item = there.get(state) ?? thumb(result, state, chosen);
    there.delete(state);
    item.firstElementChild.setAttribute("aria-pressed", String(result.id === heldId));
    return item;
  });
  const focused = document.activeElement?.closest?.("#strip > li")?.dataset.result;
  for (const gone of there.values()) gone.remove();
  items.forEach((item, place) => {
    if (strip.children[place] !== item) strip.insertBefore(item, strip.children[place] ?? null);
  });
  const lost = focused !== undefined && !strip.contains(document.activeElement);
  if (lost) strip.querySelector(`[data-result="${CSS.escape(focused)}"] button`)?.focus({ preventScroll: true });
}

function thumb(result, state, chosen) {
  const button = element("button", { type: "button", class: "thumb", "aria-label": labelOf(result),
    onclick: () => chosen(result.id) }, thumbnail(result));
  const item = element("li", {}, button);
  Object.assign(item.dataset, { state, result: result.id });
  return item;
}
