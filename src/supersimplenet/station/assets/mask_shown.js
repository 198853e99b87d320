// A stored mask over a part's picture.

import { ask } from "./api.js";
import { element } from "./dom.js";
import { maskOf, paintMask } from "./mask_paint.js";

/** Show a result's mask in a stage that shows its picture, or none where it has none. */
export async function showDrawn(stage, result) {
  const mask = result.review?.mask ?? "";
  const wanted = `${result.id} ${mask}`;
  if (stage.dataset.mask === wanted && (mask === "" || stage.querySelector(".drawn") !== null)) return;
  stage.dataset.mask = wanted;
  stage.querySelector(".drawn")?.remove();
  if (mask === "") return;
  const found = await ask(`/v1/results/${result.id}/mask`, { file: true }).then(maskOf).catch(() => null);
  if (found === null || stage.dataset.mask !== wanted || stage.dataset.result !== result.id) return;
  const canvas = element("canvas", { class: "drawn", width: found.width, height: found.height, "aria-hidden": "true" });
  paintMask(canvas, found, "drawn");
  stage.querySelector(".drawn")?.remove();
  stage.append(canvas);
}
