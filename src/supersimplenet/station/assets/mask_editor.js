// The dialog in which a person draws where a part is defective.

import { ask } from "./api.js";
import { byId } from "./dom.js";
import { showProblem } from "./frame.js";
import { keyOf, nameKeys } from "./keys.js";
import { MaskDocument } from "./mask_document.js";
import { addressOfMask, maskOf, paintMask, pngOf } from "./mask_paint.js";
import { listenToPointers } from "./mask_pointers.js";
import { MaskProposal } from "./mask_proposal.js";
import { MaskTools, SIZES, TOOLS } from "./mask_tools.js";
import { MaskView } from "./mask_view.js";
import { viewOf } from "./picture.js";
import { keepInTab, ofTab } from "./storage.js";
import { text } from "./texts.js";
import { nameOf } from "./verdict.js";

const SIDES = [1600, 8192]; // of pictures that the station sends
const FAR = 10; // px that the cross moves with shift
const ZOOM = 1.5;
const SEND_MS = 60000;
const ARROWS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };

export class MaskEditor {
  /** `me`: who draws. `saved` is called with a result whose mask was saved or removed, and which of both. */
  constructor(me, saved) {
    Object.assign(this, { me, saved, dialog: byId("mask"), result: null, mask: null, before: null, isSpace: false, hasPanned: false });
    this.stage = byId("mask-stage");
    this.view = new MaskView(this.stage, byId("mask-sheet"), () => this.tools?.show());
    this.tools = new MaskTools(this.view, byId("mask-marks"), { drawn: (box) => this.paint(box), ended: () => this.showState() });
    this.proposal = new MaskProposal(() => this.showState());
    listenToPointers(this.stage, this.view, {
      tool: this.tools, isPanning: () => this.isSpace, panned: () => (this.hasPanned = true),
    });
    this.actions = {
      brush: () => this.choose("brush"), eraser: () => this.choose("eraser"), polygon: () => this.choose("polygon"),
      shut: () => this.tools.closePolygon(), smaller: () => this.resize(-1), larger: () => this.resize(1),
      undo: () => this.step("undo"), redo: () => this.step("redo"), clear: () => this.step("clear"),
      in: () => this.view.zoom(ZOOM), out: () => this.view.zoom(1 / ZOOM), fit: () => this.view.fit(),
      accept: () => this.accept(),
      save: () => this.save(), remove: () => this.remove(), close: () => this.askToClose(),
      discard: () => this.close(), goon: () => this.showUnsaved(false),
    };
    for (const button of this.dialog.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.do(button.dataset.do));
    }
    nameKeys(this.dialog);
    byId("mask-size").max = SIZES.length - 1;
    byId("mask-size").addEventListener("input", ({ target }) => this.resize(Number(target.value) - SIZES.indexOf(this.tools.size)));
    document.addEventListener("keydown", (event) => this.dialog.open && this.press(event)); // also where a button has gone with the focus
    document.addEventListener("keyup", (event) => event.key === " " && this.release(event));
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.askToClose();
    });
    addEventListener("pagehide", () => this.keep());
  }

  /** The id of a result whose mask this tab keeps, as its page was left before it was saved. */
  get keptId() {
    const kept = ofTab("mask");
    return kept?.who === this.me.name ? kept.id : null;
  }

  /** Draw on a result; `before` is done before it is saved. */
  async open(result, before = null) {
    const { width, height } = result.picture;
    Object.assign(this, { result, before, mask: null });
    this.tools.use(null);
    showProblem(null, byId("mask-problem"));
    this.showUnsaved(false);
    byId("mask-name").textContent = nameOf(result);
    byId("mask-picture").src = viewOf(result, SIDES.find((side) => side >= Math.max(width, height)) ?? SIDES.at(-1));
    for (const canvas of [byId("mask-drawn"), byId("mask-proposal")]) Object.assign(canvas, { width, height });
    byId("mask-remove").hidden = !result.review?.mask;
    this.dialog.showModal();
    this.view.begin(width, height);
    this.choose(this.tools.name);
    this.stage.focus();
    this.stage.setAttribute("aria-busy", "true");
    try {
      const mask = await this.load(result);
      if (this.result !== result) return;
      this.mask = mask;
      this.tools.use(mask);
      this.paint(undefined);
      await this.proposal.begin(result, mask.isEmpty);
    } catch (error) {
      if (this.result === result) showProblem(error, byId("mask-problem"));
    }
    if (this.result === result) this.stage.setAttribute("aria-busy", "false");
    this.showState();
  }

  /** What was drawn here before the page was left, else the stored mask, else an empty one. */
  async load(result) {
    const { width, height } = result.picture;
    const kept = this.keptId === result.id ? ofTab("mask").address : null;
    keepInTab("mask", null);
    if (kept !== null) {
      const found = await maskOf(fileOf(kept));
      return Object.assign(new MaskDocument(width, height, found.pixels), { saved: null });
    }
    if (!result.review?.mask) return new MaskDocument(width, height);
    const found = await maskOf(await ask(`/v1/results/${result.id}/mask`, { file: true, withinMs: SEND_MS }));
    return new MaskDocument(width, height, found.pixels);
  }

  keep() {
    if (!this.dialog.open || this.mask === null || !this.mask.isChanged || this.mask.isEmpty) return;
    keepInTab("mask", { id: this.result.id, who: this.me.name, address: addressOfMask(this.mask) });
  }

  // ----- what a person does

  do(name) {
    if (this.mask === null && name !== "close") return;
    this.actions[name]();
    this.showState();
  }

  choose(name) {
    this.tools.choose(name);
    byId("mask-hint").textContent = text(`mask.hint.${name}`);
  }

  resize(by) {
    this.tools.resize(by);
  }

  step(name) {
    this.tools.dropPolygon();
    const box = this.mask[name]();
    if (box !== null) this.paint(box);
  }

  accept() {
    if (!this.proposal.isOn) return;
    this.paint(this.proposal.addTo(this.mask));
    this.stage.focus({ preventScroll: true });
  }

  press(event) {
    const isStage = event.target === this.stage;
    const control = (event.ctrlKey || event.metaKey) && !event.altKey ? event.key.toLowerCase() : null;
    const key = keyOf(event);
    if (control === "z") this.do(event.shiftKey ? "redo" : "undo");
    else if (control === "y") this.do("redo");
    else if (key === "escape") this.escape();
    else if (key === null || this.mask === null) return;
    else if (isStage && key in ARROWS) this.moveCross(ARROWS[key], event.shiftKey);
    else if (isStage && key === " ") this.isSpace = this.isSpace || this.hold();
    else if (isStage && key === "enter") this.do("shut");
    else if (isStage && key === "backspace") this.tools.removeCorner();
    else if (key === "l") byId("mask-propose").click();
    else if (key === "h") byId("mask-sheet").classList.toggle("bare");
    else {
      const button = this.dialog.querySelector(`[data-key="${CSS.escape(key.toUpperCase())}"]`);
      const isThere = button !== null && button.checkVisibility() && !button.disabled;
      if (!isThere || event.repeat && !["smaller", "larger", "in", "out", "undo", "redo"].includes(button.dataset.do)) return;
      this.do(button.dataset.do);
    }
    event.preventDefault();
    event.stopImmediatePropagation(); // the page has keys, too
  }

  hold() {
    this.hasPanned = false;
    return true;
  }

  /** A space key that moved nothing marks. */
  release(event) {
    const isMark = this.isSpace && !this.hasPanned && this.mask !== null;
    this.isSpace = false;
    if (isMark) this.tools.mark(event.shiftKey);
  }

  moveCross([right, down], isFar) {
    const step = isFar ? FAR : 1;
    const { x, y } = this.tools.moveCross(step * right, step * down);
    byId("mask-place").textContent = text("mask.place", { x, y });
  }

  escape() {
    if (!this.tools.dropPolygon()) this.askToClose();
    this.showState();
  }

  // ----- end

  async save() {
    const { result, mask } = this;
    if (mask.isEmpty) {
      showProblem({ message: text("mask.empty") }, byId("mask-problem"));
      return;
    }
    await this.send(async () => {
      await this.before?.();
      const body = await pngOf(mask);
      return [await ask(`/v1/results/${result.id}/mask`, { method: "PUT", body, withinMs: SEND_MS }), "saved"];
    });
  }

  async remove() {
    const { result } = this;
    await this.send(async () => [await ask(`/v1/results/${result.id}/mask`, { method: "DELETE" }), "removed"], "mask.not_yours");
  }

  /** Send what `send` sends, and close; where it fails all stays as it is. */
  async send(send, missing = null) {
    if (this.dialog.classList.contains("sends")) return;
    showProblem(null, byId("mask-problem"));
    this.showUnsaved(false);
    this.dialog.classList.add("sends");
    byId("mask-hint").textContent = text("mask.sends");
    try {
      const [found, what] = await send();
      this.close();
      this.saved(found, what);
    } catch (error) {
      const words = missing !== null && error.status === 404 ? text(missing) : text("mask.failed", { reason: error.message });
      showProblem({ message: words }, byId("mask-problem"));
    } finally {
      this.dialog.classList.remove("sends");
      byId("mask-hint").textContent = text(`mask.hint.${this.tools.name}`);
    }
  }

  askToClose() {
    if (this.mask?.isChanged) this.showUnsaved(true);
    else this.close();
  }

  close() {
    [this.result, this.mask] = [null, null];
    this.tools.use(null);
    this.dialog.close();
  }

  // ----- what is shown

  paint(box) {
    paintMask(byId("mask-drawn"), this.mask, "drawn", box);
  }

  showUnsaved(isShown) {
    byId("mask-unsaved").hidden = !isShown;
    if (isShown) byId("mask-unsaved").querySelector("button").focus();
    else if (this.dialog.open) this.stage.focus({ preventScroll: true });
  }

  showState() {
    const { tools, mask } = this;
    for (const name of TOOLS) this.button(name).setAttribute("aria-pressed", String(tools.name === name));
    byId("mask-size").value = SIZES.indexOf(tools.size);
    const isPolygon = tools.name === "polygon"; // nothing moves with the tool, so that the picture stays where it is
    this.dialog.classList.toggle("is-polygon", isPolygon);
    for (const field of byId("mask-size-row").querySelectorAll("button, input")) field.disabled = isPolygon;
    const words = text("mask.size.of", { count: tools.size });
    byId("mask-size-says").textContent = words;
    byId("mask-size").setAttribute("aria-valuetext", words);
    this.button("shut").disabled = tools.corners.length < 3;
    this.button("undo").disabled = !mask?.done.length;
    this.button("redo").disabled = !mask?.undone.length;
    this.button("clear").disabled = mask === null || mask.isEmpty;
    this.button("save").disabled = mask === null;
  }

  button(name) {
    return this.dialog.querySelector(`[data-do="${name}"]`);
  }
}

/** The file of a data address: pages may not fetch these. */
function fileOf(address) {
  const bytes = Uint8Array.from(atob(address.split(",")[1]), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}
