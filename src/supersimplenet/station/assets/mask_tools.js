// The tools of a mask: brush, eraser and polygon, by pointer and by a cross that the arrow keys move.

import { svg } from "./dom.js";
import { drawStroke, fillPolygon, MARKED, strokePoint } from "./mask_shapes.js";

export const TOOLS = ["brush", "eraser", "polygon"];
export const SIZES = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 26, 34, 44, 56, 72, 92, 120]; // px of the picture
const CLOSE_PX = 12; // of the screen: a click this near to the first corner closes the polygon

export class MaskTools {
  /** `marks`: the drawing over the picture. `drawn` is called with the box of pixels that changed, `ended` after a step. */
  constructor(view, marks, { drawn, ended }) {
    Object.assign(this, { view, marks, drawn, ended, name: "brush", size: 12 });
    this.use(null);
    for (const call of ["begin", "move", "end", "cancel", "hover", "twice"]) this[call] = this[call].bind(this);
  }

  /** Draw in a mask from now on. */
  use(mask) {
    Object.assign(this, { mask, corners: [], from: null, isErasing: false, isDrawing: false, pointer: null, cross: null });
    if (mask !== null) this.show();
  }

  choose(name) {
    this.dropPolygon();
    this.name = name;
    this.show();
  }

  resize(by) {
    const place = SIZES.indexOf(this.size) + by;
    this.size = SIZES[Math.min(SIZES.length - 1, Math.max(0, place))];
    this.show();
  }

  // ----- by pointer

  begin(at, { shiftKey }, isEraser) {
    if (this.mask === null) return;
    this.cross = null;
    this.isDrawing = true;
    if (this.name === "polygon") this.addCorner(at);
    else this.beginStroke(at, shiftKey, isEraser || this.name === "eraser");
  }

  move(at) {
    this.pointer = at;
    if (this.isDrawing && this.name !== "polygon") this.stroke(at);
    else this.show();
  }

  end() {
    if (!this.isDrawing) return;
    this.isDrawing = false;
    if (this.name !== "polygon") this.endStroke();
  }

  cancel() {
    if (!this.isDrawing) return;
    this.isDrawing = false;
    if (this.name === "polygon") this.corners.pop();
    else this.drawn(this.mask.cancel());
    this.show();
  }

  hover(at) {
    this.pointer = at;
    this.show();
  }

  twice() {
    if (this.name === "polygon") this.closePolygon();
  }

  // ----- by keyboard

  /** Move the cross, from the middle of what is seen where there is none yet; returns where it is. */
  moveCross(right, down) {
    const { x, y } = this.cross ?? this.view.placeOf(this.view.middle());
    const most = (size) => (this.name === "polygon" ? size : size - 1); // a polygon has its corners between the pixels
    const inside = (value, size) => Math.min(most(size), Math.max(0, Math.floor(value)));
    this.cross = { x: inside(x + right, this.mask.width), y: inside(y + down, this.mask.height) };
    this.pointer = null;
    this.view.reveal(this.cross);
    this.show();
    return this.cross;
  }

  /** Mark where the cross is; with `isLine` all the way from the last mark. */
  mark(isLine) {
    const at = this.cross ?? this.moveCross(0, 0);
    if (this.name === "polygon") {
      this.addCorner(at);
      return;
    }
    this.beginStroke({ x: at.x + 0.5, y: at.y + 0.5 }, isLine, this.name === "eraser");
    this.endStroke();
  }

  // ----- strokes

  beginStroke(at, isLine, isErasing) {
    this.isErasing = isErasing;
    this.mask.begin();
    if (!isLine || this.from === null) this.from = strokePoint(at, this.size);
    this.stroke(at);
  }

  stroke(at) {
    const to = strokePoint(at, this.size);
    const from = strokePoint(this.from, this.size); // the width may have changed
    this.drawn(this.mask.draw((mask) => drawStroke(mask, from, to, this.size, this.isErasing ? 0 : MARKED)));
    this.from = to;
    this.show();
  }

  endStroke() {
    this.mask.end();
    this.ended();
  }

  // ----- polygons

  addCorner(at) {
    const inside = (value, most) => Math.min(most, Math.max(0, Math.round(value)));
    const corner = { x: inside(at.x, this.mask.width), y: inside(at.y, this.mask.height) };
    const [first] = this.corners;
    const last = this.corners.at(-1);
    const isNear = (other) => Math.hypot(corner.x - other.x, corner.y - other.y) * this.view.scale <= CLOSE_PX;
    if (this.corners.length > 2 && this.cross === null && isNear(first)) {
      this.closePolygon();
      return;
    }
    if (last === undefined || last.x !== corner.x || last.y !== corner.y) this.corners.push(corner);
    this.show();
    this.ended();
  }

  removeCorner() {
    this.corners.pop();
    this.show();
    this.ended();
  }

  closePolygon() {
    if (this.corners.length < 3) return;
    const corners = this.corners.splice(0);
    this.drawn(this.mask.change((mask) => fillPolygon(mask, corners)));
    this.show();
    this.ended();
  }

  /** Leave the polygon that was begun; returns whether there was one. */
  dropPolygon() {
    const isBegun = this.corners.length > 0;
    this.corners = [];
    if (isBegun) this.show();
    return isBegun;
  }

  // ----- what is seen of them

  show() {
    if (this.mask === null) return;
    this.marks.setAttribute("viewBox", `0 0 ${this.mask.width} ${this.mask.height}`);
    this.marks.replaceChildren(...(this.name === "polygon" ? this.polygon() : this.ring()), ...this.crossing());
  }

  ring() {
    const at = this.cross === null ? this.pointer : { x: this.cross.x + 0.5, y: this.cross.y + 0.5 };
    if (at === null) return [];
    const { x, y } = strokePoint(at, this.size);
    return twice("circle", { cx: x, cy: y, r: this.size / 2 });
  }

  polygon() {
    const next = this.cross ?? this.pointer;
    const path = [...this.corners, ...(next === null || this.corners.length === 0 ? [] : [next])].map(({ x, y }) => `${x} ${y}`);
    const dots = this.corners.map(({ x, y }) => `M${x} ${y}h0`).join("");
    if (path.length === 0) return [];
    return [...twice("path", { d: `M${path.join("L")}` }), svg("path", { class: "dots", d: dots })];
  }

  crossing() {
    if (this.cross === null) return [];
    const middle = this.name === "polygon" ? 0 : 0.5;
    const [x, y] = [this.cross.x + middle, this.cross.y + middle];
    const arm = 16 / this.view.scale;
    return twice("path", { d: `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}` });
  }
}

function twice(shape, place) {
  return ["under", "over"].map((layer) => svg(shape, { ...place, class: layer }));
}
