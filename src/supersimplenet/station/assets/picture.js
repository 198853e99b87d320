// A part's picture under its anomaly map and the boxes of its defects, and the switches of these two.

import { element, svg } from "./dom.js";
import { showLegend } from "./legend.js";
import { remember, remembered } from "./storage.js";
import { text } from "./texts.js";
import { nameOf, verdictOf } from "./verdict.js";

const RETRY_MS = 1500;
const LAYERS = ["heat", "boxes"];

/** The address of a picture for a browser. */
export function viewOf(result, side) {
  return `/v1/results/${result.id}/view?side=${side}`;
}

/** Show a result's picture in a stage, which takes the picture's proportions, and what its colours mean below it.
 *
 * files: addresses of photograph and map, and what to say where the photograph cannot be shown.
 */
export function showPicture(stage, legend, result, files = filesOf(result)) {
  if (stage.dataset.result === result.id) return;
  stage.dataset.result = result.id;
  showLegend(legend, result);
  const { width, height } = result.picture;
  const isThere = files.photograph !== null;
  const isUnreadable = result.error?.code === "unreadable";
  const isFailed = result.error !== null;
  stage.style.setProperty("--ratio", isFailed ? "1" : `${width / height}`);
  stage.classList.toggle("gone", !isThere || isUnreadable);
  stage.classList.toggle("no-map", isFailed);
  if (!isThere || isUnreadable) {
    stage.replaceChildren(element("p", {}, text(isUnreadable ? "picture.unreadable" : "picture.not_kept")));
    return;
  }
  const alt = text("picture.alt", { name: nameOf(result), verdict: text(`verdict.${verdictOf(result)}`) });
  const photograph = image(files.photograph, { class: "photograph", alt }, () => {
    if (stage.dataset.result !== result.id) return;
    stage.classList.add("gone");
    stage.replaceChildren(element("p", {}, files.away));
  });
  if (isFailed) {
    photograph.addEventListener("load", () => stage.style.setProperty("--ratio", `${photograph.naturalWidth / photograph.naturalHeight}`));
    stage.replaceChildren(photograph);
    return;
  }
  const heat = image(files.heat, { class: "heat", alt: "" }, (failed) => {
    failed.remove();
    if (stage.dataset.result === result.id) stage.classList.add("no-map");
  });
  stage.replaceChildren(photograph, heat, boxes(result));
}

/** Where the station has what belongs to a result. */
function filesOf(result) {
  const photograph = result.picture.kept ? viewOf(result, 1600) : null;
  return { photograph, heat: `/v1/results/${result.id}/heat`, away: text("picture.away") };
}

function image(address, attributes, failed) {
  const made = element("img", { ...attributes, src: address, draggable: "false" });
  let isSecond = !address.startsWith("/"); // a file of this computer is not there later either
  made.addEventListener("error", () => {
    if (isSecond) return failed(made);
    isSecond = true;
    setTimeout(() => made.setAttribute("src", address), RETRY_MS);
    return undefined;
  });
  return made;
}

/** Boxes in pixels of the picture: the region that reaches the threshold, and the outline of its core. */
function boxes(result) {
  const { width, height } = result.picture;
  const defects = result.defects ?? [];
  const least = Math.max(width, height) * 0.035;
  const shapes = defects.flatMap((defect) => (defect.below_threshold ? ring(defect, least) : frames(defect)));
  const label = defects.length ? text("picture.defects", { count: defects.length }) : undefined;
  return svg(
    "svg",
    { class: "boxes", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: label ? "img" : undefined,
      "aria-label": label, "aria-hidden": label ? undefined : "true" },
    shapes,
  );
}

function frames(defect) {
  const region = { x: defect.left, y: defect.top, width: defect.width, height: defect.height };
  const core = {
    x: defect.outline_left, y: defect.outline_top, width: defect.outline_width, height: defect.outline_height,
  };
  return [...twice("rect", region, "region"), ...twice("rect", core, "core")];
}

function ring(defect, least) {
  const place = { cx: defect.left + defect.width / 2, cy: defect.top + defect.height / 2 };
  const radius = Math.max(least, defect.width, defect.height);
  return twice("circle", { ...place, r: radius }, "ring");
}

/** Dark below and bright above, so that it is seen on any surface. */
function twice(shape, place, kind) {
  return ["under", "over"].map((layer) => svg(shape, { ...place, class: `${kind} ${layer}` }));
}

/** The switches of anomaly map, boxes and mask; they hold for all pictures of all pages. */
export function showSwitches(box, layers = LAYERS) {
  for (const layer of layers) {
    const button = element("button", { type: "button", class: "switch", "data-layer": layer }, element("span", { class: "lamp", "aria-hidden": "true" }),
      text(`switch.${layer}`));
    const show = () => {
      const isOn = remembered(layer) !== "off";
      button.setAttribute("aria-pressed", String(isOn));
      document.body.classList.toggle(`no-${layer}`, !isOn);
    };
    button.addEventListener("click", () => {
      remember(layer, button.getAttribute("aria-pressed") === "true" ? "off" : null);
      show();
    });
    box.append(button);
    show();
  }
}
