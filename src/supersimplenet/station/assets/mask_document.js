// A mask that is drawn: its pixels, and steps that can be undone and done again.

import { clipped, joined, MARKED } from "./mask_shapes.js";

const MOST_STEPS = 200;
const MOST_BYTES = 256e6; // of all steps together

export class MaskDocument {
  /** `pixels`: those of a stored mask; none for an empty one. */
  constructor(width, height, pixels = new Uint8Array(width * height)) {
    Object.assign(this, { width, height, pixels });
    this.done = []; // each step: a box, and what it held before
    this.undone = [];
    this.before = null; // all pixels, while a step is drawn
    this.touched = null;
    this.saved = undefined; // the last step when it was saved
  }

  /** Begin a step of several strokes. */
  begin() {
    this.before = this.pixels.slice();
    this.touched = null;
  }

  /** Draw in the step; `draw` gets the document and returns the box that it changed, as this does. */
  draw(draw) {
    const box = draw(this);
    this.touched = joined(this.touched, box);
    return box;
  }

  /** End the step; where it changed nothing, there is none. */
  end() {
    const { before, touched } = this;
    this.before = null;
    if (touched === null) return;
    const box = clipped(touched, this.width, this.height);
    const held = this.read(box, before);
    if (same(held, this.read(box))) return;
    this.done.push({ box, held });
    this.undone = [];
    let bytes = this.done.reduce((sum, step) => sum + step.held.length, 0);
    while (this.done.length > MOST_STEPS || (bytes > MOST_BYTES && this.done.length > 1)) bytes -= this.done.shift().held.length;
  }

  /** Take the step that is being drawn back; returns the box that changes. */
  cancel() {
    if (this.before !== null) this.pixels.set(this.before);
    const { touched } = this;
    this.before = this.touched = null;
    return touched;
  }

  /** A whole step. */
  change(draw) {
    this.begin();
    const box = this.draw(draw);
    this.end();
    return box;
  }

  clear() {
    return this.change(({ pixels, width, height }) => {
      pixels.fill(0);
      return { left: 0, top: 0, right: width, bottom: height };
    });
  }

  /** Undo or redo a step; returns the box that changes, null for none. */
  undo() {
    return this.swap(this.done, this.undone);
  }

  redo() {
    return this.swap(this.undone, this.done);
  }

  get isEmpty() {
    return !this.pixels.includes(MARKED);
  }

  get isChanged() {
    return this.done.at(-1) !== this.saved;
  }

  keepAsSaved() {
    this.saved = this.done.at(-1);
  }

  swap(from, to) {
    const step = from.pop();
    if (step === undefined) return null;
    const { box } = step;
    const held = this.read(box);
    const across = box.right - box.left;
    for (let y = box.top; y < box.bottom; y += 1) {
      const place = (y - box.top) * across;
      this.pixels.set(step.held.subarray(place, place + across), y * this.width + box.left);
    }
    step.held = held;
    to.push(step);
    return box;
  }

  read({ left, top, right, bottom }, pixels = this.pixels) {
    const across = right - left;
    const found = new Uint8Array(across * (bottom - top));
    for (let y = top; y < bottom; y += 1) {
      found.set(pixels.subarray(y * this.width + left, y * this.width + right), (y - top) * across);
    }
    return found;
  }
}

function same(one, other) {
  return one.every((value, place) => value === other[place]);
}
