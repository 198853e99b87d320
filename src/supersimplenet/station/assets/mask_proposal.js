// A proposal for a mask: where the anomaly map reaches a level.

import { ask, Refused } from "./api.js";
import { byId } from "./dom.js";
import { greyOf, paintMask } from "./mask_paint.js";
import { enlarged, MARKED, markLevels } from "./mask_shapes.js";
import { decimal, text } from "./texts.js";

const THRESHOLD = 128; // of a calibrated model: the level of the pixel threshold
const HALF = 0.5;

export class MaskProposal {
  /** `changed` is called where it can be accepted, or no more. */
  constructor(changed) {
    Object.assign(this, { changed, canvas: byId("mask-proposal"), slider: byId("mask-level"), levels: null, isOn: false, isDue: false });
    this.slider.addEventListener("input", () => this.showSoon());
    byId("mask-propose").addEventListener("click", () => this.turn(!this.isOn));
  }

  /** Get the map of a result; without one there is no proposal. */
  async begin(result, isOn) {
    const { width, height } = result.picture;
    Object.assign(this, { levels: null, width, height, hasThreshold: result.defects !== null });
    this.turn(false);
    byId("mask-proposing").hidden = true;
    if (result.verdict === null) return;
    try {
      const map = await greyOf(await ask(`/v1/results/${result.id}/levels`, { file: true }));
      this.levels = enlarged(map, width, height);
    } catch (error) {
      if (error instanceof Refused && error.status === 404) return;
      throw error;
    }
    const highest = this.levels.reduce((most, level) => Math.max(most, level), 0);
    this.slider.max = Math.max(1, highest);
    const usual = this.hasThreshold && highest >= THRESHOLD ? THRESHOLD : Math.max(1, Math.round(highest * HALF));
    this.slider.value = usual;
    byId("mask-proposing").hidden = highest === 0;
    this.turn(isOn && highest > 0);
  }

  turn(isOn) {
    this.isOn = isOn;
    byId("mask-propose").setAttribute("aria-pressed", String(isOn));
    byId("mask-level-row").hidden = byId("mask-accept").hidden = this.canvas.hidden = !isOn;
    if (isOn) this.show();
    this.changed();
  }

  get level() {
    return Number(this.slider.value);
  }

  showSoon() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      if (this.isOn) this.show();
    });
  }

  show() {
    const proposed = { pixels: new Uint8Array(this.width * this.height), width: this.width, height: this.height };
    markLevels(proposed, this.levels, this.level);
    paintMask(this.canvas, proposed, "proposal");
    const count = proposed.pixels.reduce((sum, value) => sum + (value === MARKED), 0);
    const kind = this.hasThreshold && this.level === THRESHOLD ? "mask.level.threshold" : "mask.level.of";
    const words = text(kind, { level: this.level, share: decimal((100 * count) / proposed.pixels.length, 1) });
    byId("mask-level-says").textContent = words;
    this.slider.setAttribute("aria-valuetext", words);
  }

  /** Add it to a mask; returns the box that changed. */
  addTo(mask) {
    const { levels, level } = this;
    this.turn(false);
    return mask.change((each) => markLevels(each, levels, level));
  }
}
