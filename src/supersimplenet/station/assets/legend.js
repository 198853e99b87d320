// What the colours of an anomaly map mean: those of the station's pictures, see visualization/colours.py.

import { element } from "./dom.js";
import { text } from "./texts.js";

const MARKS = ["low", "middle", "high"];

/** Show the scale of a result's map: with the threshold for pixels, or without one where there is none. */
export function showLegend(box, result) {
  const kind = result.defects === null ? "open" : "calibrated";
  if (box.dataset.kind === kind) return;
  box.dataset.kind = kind;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", text(`legend.${kind}`));
  box.replaceChildren(
    element("span", { class: "scale" }),
    ...MARKS.map((mark) => element("span", { class: mark }, text(`legend.${kind}.${mark}`))),
  );
}
