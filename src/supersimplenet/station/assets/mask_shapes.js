// What marks pixels of a mask: strokes, polygons and levels, each without antialiasing. A mask is a Uint8Array, row after
// row: 255 where a pixel is defective, else 0. Each function returns the box of what it may have changed.

export const MARKED = 255;

/** Where a stroke of a width passes: the centre of a pixel for an odd width, its corner for an even one. */
export function strokePoint({ x, y }, size) {
  const snapped = (value) => (size % 2 === 1 ? Math.floor(value) + 0.5 : Math.round(value));
  return { x: snapped(x), y: snapped(y) };
}

/** Set the pixels whose centre is at most half a width from the line between two points of `strokePoint`.
 *
 * Coordinates are doubled, so that all are whole numbers and no rounding decides.
 */
export function drawStroke({ pixels, width, height }, from, to, size, value) {
  const [ax, ay, bx, by] = [2 * from.x, 2 * from.y, 2 * to.x, 2 * to.y];
  const [dx, dy] = [bx - ax, by - ay];
  const length2 = dx * dx + dy * dy;
  const box = clipped({
    left: Math.floor((Math.min(ax, bx) - size - 1) / 2), right: Math.ceil((Math.max(ax, bx) + size + 1) / 2),
    top: Math.floor((Math.min(ay, by) - size - 1) / 2), bottom: Math.ceil((Math.max(ay, by) + size + 1) / 2),
  }, width, height);
  const reach2 = size * size;
  for (let y = box.top; y < box.bottom; y += 1) {
    for (let x = box.left; x < box.right; x += 1) {
      const [px, py] = [2 * x + 1 - ax, 2 * y + 1 - ay];
      const along = px * dx + py * dy;
      const across = px * dy - py * dx;
      const isNear = along <= 0 ? px * px + py * py <= reach2
        : along >= length2 ? (px - dx) ** 2 + (py - dy) ** 2 <= reach2
          : across * across <= reach2 * length2;
      if (isNear) pixels[y * width + x] = value;
    }
  }
  return box;
}

/** Mark the pixels whose centre is inside of a polygon with corners on corners of pixels; one on its left edge is.
 *
 * Where the outline crosses itself, what it goes around at all is inside.
 */
export function fillPolygon({ pixels, width, height }, corners) {
  const [xs, ys] = ["x", "y"].map((name) => corners.map((corner) => corner[name]));
  const box = clipped({ left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) }, width, height);
  for (let y = box.top; y < box.bottom; y += 1) {
    let winding = 0;
    const crossings = crossingsOf(corners, y);
    crossings.forEach(({ x, turn }, place) => {
      winding += turn;
      if (winding === 0) return;
      const [begin, end] = [x, crossings[place + 1].x].map((edge) => Math.min(width, Math.max(0, Math.ceil(edge - 0.5))));
      pixels.fill(MARKED, y * width + begin, y * width + Math.max(begin, end));
    });
  }
  return box;
}

/** Where the edges cross the middle of a row of pixels, from left to right, and whether they go down or up. */
function crossingsOf(corners, y) {
  const middle = 2 * y + 1;
  const found = corners.map((corner, place) => {
    const next = corners[(place + 1) % corners.length];
    const turn = Math.sign(next.y - corner.y);
    const [low, high] = turn > 0 ? [corner, next] : [next, corner];
    if (turn === 0 || middle < 2 * low.y || middle > 2 * high.y) return null;
    const quotient = ((middle - 2 * low.y) * (high.x - low.x)) / (high.y - low.y); // exact where it is a whole number
    return { x: low.x + quotient / 2, turn };
  });
  return found.filter((crossing) => crossing !== null).sort((one, other) => one.x - other.x);
}

/** Mark the pixels that reach a level. */
export function markLevels({ pixels, width, height }, levels, level) {
  for (let place = 0; place < pixels.length; place += 1) if (levels[place] >= level) pixels[place] = MARKED;
  return { left: 0, top: 0, right: width, bottom: height };
}

/** Levels of a smaller map at a picture's pixels, bilinear and rounded down: whole levels are compared with them. */
export function enlarged({ values, width, height }, toWidth, toHeight) {
  const found = new Uint8Array(toWidth * toHeight);
  const columns = placesOf(width, toWidth);
  placesOf(height, toHeight).forEach(({ first: top, second: bottom, share: down }, y) => {
    columns.forEach(({ first, second, share }, x) => {
      const [above, below] = [top, bottom].map((row) => {
        const [one, other] = [values[row * width + first], values[row * width + second]];
        return one + (other - one) * share;
      });
      found[y * toWidth + x] = Math.floor(above + (below - above) * down);
    });
  });
  return found;
}

/** Between which two pixels of a side each pixel of a longer one lies, and how far from the first. */
function placesOf(size, toSize) {
  return Array.from({ length: toSize }, (_, place) => {
    const at = Math.min(size - 1, Math.max(0, ((place + 0.5) * size) / toSize - 0.5));
    const first = Math.floor(at);
    return { first, second: Math.min(size - 1, first + 1), share: at - first };
  });
}

export function joined(one, other) {
  if (one === null || other === null) return one ?? other;
  return {
    left: Math.min(one.left, other.left), top: Math.min(one.top, other.top),
    right: Math.max(one.right, other.right), bottom: Math.max(one.bottom, other.bottom),
  };
}

export function clipped({ left, top, right, bottom }, width, height) {
  const inside = (value, most) => Math.min(most, Math.max(0, value));
  return { left: inside(left, width), right: inside(right, width), top: inside(top, height), bottom: inside(bottom, height) };
}
