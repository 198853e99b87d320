// Masks between files and canvases: as they are seen over a picture, and as they are sent.

import { clipped, MARKED } from "./mask_shapes.js";

const WORD = (...bytes) => new Uint32Array(Uint8Array.of(...bytes).buffer)[0];
const [WHITE, BLACK] = [WORD(255, 255, 255, 255), WORD(0, 0, 0, 255)];
// Of the surface and of the edge: red, green, blue, opacity. Neither is a colour of the anomaly map or of its boxes.
const COLOURS = {
  drawn: [WORD(255, 40, 200, 95), WORD(255, 40, 200, 255)],
  proposal: [WORD(190, 255, 60, 70), WORD(190, 255, 60, 255)],
};

/** Show a mask's pixels within a box on a canvas of the picture's size. */
export function paintMask(canvas, { pixels, width, height }, kind, box = { left: 0, top: 0, right: width, bottom: height }) {
  const { left, top, right, bottom } = clipped( // the edge of what is beside it changes, too
    { left: box.left - 1, top: box.top - 1, right: box.right + 1, bottom: box.bottom + 1 }, width, height);
  if (right <= left || bottom <= top) return;
  const image = new ImageData(right - left, bottom - top);
  const words = new Uint32Array(image.data.buffer);
  const [surface, edge] = COLOURS[kind];
  let to = 0;
  for (let y = top; y < bottom; y += 1) {
    for (let x = left; x < right; x += 1, to += 1) {
      const place = y * width + x;
      if (pixels[place] !== MARKED) continue;
      const isInner = x > 0 && y > 0 && x < width - 1 && y < height - 1 && pixels[place - 1] === MARKED && pixels[place + 1] === MARKED
        && pixels[place - width] === MARKED && pixels[place + width] === MARKED;
      words[to] = isInner ? surface : edge;
    }
  }
  contextOf(canvas).putImageData(image, left, top);
}

/** The grey values of a PNG that has no more than these. */
export async function greyOf(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = contextOf(canvasOf(width, height));
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const values = new Uint8Array(width * height);
  for (let place = 0; place < values.length; place += 1) values[place] = data[4 * place];
  return { width, height, values };
}

/** The pixels of a mask's PNG, or of what this browser has kept of one. */
export async function maskOf(file) {
  const { width, height, values } = await greyOf(file);
  return { width, height, pixels: values.map((value) => (value >= 128 ? MARKED : 0)) };
}

/** A mask as a PNG, white on black, of exactly its pixels. */
export function pngOf(mask) {
  return new Promise((resolve) => {
    whiteOnBlack(mask).toBlob(resolve, "image/png");
  });
}

/** The same as a text, at once. */
export function addressOfMask(mask) {
  return whiteOnBlack(mask).toDataURL("image/png");
}

function whiteOnBlack({ pixels, width, height }) {
  const canvas = canvasOf(width, height);
  const image = new ImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  for (let place = 0; place < pixels.length; place += 1) words[place] = pixels[place] === MARKED ? WHITE : BLACK;
  contextOf(canvas).putImageData(image, 0, 0);
  return canvas;
}

function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** Of a canvas whose pixels come from this memory and go back to it. */
function contextOf(canvas) {
  return canvas.getContext("2d", { willReadFrequently: true });
}
