// Which part of a picture is seen, and how large: zoom and pan, and the way from the screen to the picture's pixels.

const MOST = 64; // px of the screen for a pixel of the picture
const SEEN_PX = 60; // of the picture that always remain in view
const PIXELS_FROM = 4; // from this scale on pixels are squares

export class MaskView {
  /** `stage`: the window; `sheet`: what is moved in it. `changed` is called with the scale. */
  constructor(stage, sheet, changed) {
    Object.assign(this, { stage, sheet, changed, width: 1, height: 1, scale: 1, left: 0, top: 0, isFitted: true });
    new ResizeObserver(() => (this.isFitted ? this.fit() : this.show())).observe(stage);
  }

  /** Begin with a picture of this size, all of it in view. */
  begin(width, height) {
    Object.assign(this, { width, height });
    this.fit();
  }

  fit() {
    this.scale = this.fitting();
    this.left = (this.stage.clientWidth - this.width * this.scale) / 2;
    this.top = (this.stage.clientHeight - this.height * this.scale) / 2;
    this.show();
    this.isFitted = true;
  }

  /** Zoom about a point of the screen, by default the middle. */
  zoom(factor, at = this.middle()) {
    const least = Math.min(1, this.fitting()) / 2;
    const scale = Math.min(MOST, Math.max(least, this.scale * factor));
    const { x, y } = this.within(at);
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.show();
  }

  pan(right, down) {
    this.left += right;
    this.top += down;
    this.show();
  }

  /** Bring a point of the picture into view. */
  reveal({ x, y }) {
    const margin = 24;
    const [right, down] = [this.left + x * this.scale, this.top + y * this.scale];
    const { clientWidth, clientHeight } = this.stage;
    const short = (value, most) => Math.max(0, margin - value) - Math.max(0, value - (most - margin));
    const [by, of] = [short(right, clientWidth), short(down, clientHeight)];
    if (by !== 0 || of !== 0) this.pan(by, of);
  }

  /** The place in the picture, in its pixels, of a point of the screen. */
  placeOf(at) {
    const { x, y } = this.within(at);
    return { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale };
  }

  fitting() {
    const { clientWidth, clientHeight } = this.stage;
    return Math.max(0.01, Math.min(MOST, clientWidth / this.width, clientHeight / this.height));
  }

  middle() {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return { clientX: left + width / 2, clientY: top + height / 2 };
  }

  within({ clientX, clientY }) {
    const { left, top } = this.stage.getBoundingClientRect();
    return { x: clientX - left - this.stage.clientLeft, y: clientY - top - this.stage.clientTop };
  }

  show() {
    this.isFitted = false;
    const [across, down] = [this.width * this.scale, this.height * this.scale];
    this.left = Math.min(this.stage.clientWidth - SEEN_PX, Math.max(SEEN_PX - across, this.left));
    this.top = Math.min(this.stage.clientHeight - SEEN_PX, Math.max(SEEN_PX - down, this.top));
    const { style } = this.sheet;
    [style.width, style.height] = [`${across}px`, `${down}px`];
    style.transform = `translate(${this.left}px, ${this.top}px)`;
    this.sheet.classList.toggle("squares", this.scale >= PIXELS_FROM);
    this.changed(this.scale);
  }
}
