// What a person says a part is: one click, and one to take it back.

import { ask } from "./api.js";
import { byId, element } from "./dom.js";
import { minuteOf, text } from "./texts.js";
import { nameOf, reviewKind } from "./verdict.js";

const TOO_SOON_MS = 500; // whoever presses this soon after a part has changed meant the one before

/** The buttons below a part. `changed` is called with the result after a review. */
export class Review {
  constructor(box, changed) {
    this.changed = changed;
    this.box = box;
    this.current = null;
    this.changedAt = -TOO_SOON_MS;
    this.pressed = null;
    this.last = null; // the result that was reviewed last, which may not be the one that is shown
    this.words = element("span", { class: "words" });
    this.meaning = element("span", { class: "meaning" });
    this.main = element("button", { type: "button", class: "big review-button" }, this.words, this.meaning);
    this.undo = element("button", { type: "button", class: "big undo", hidden: true }, text("review.undo"));
    this.note = element("p", { class: "note", role: "status" });
    this.earlier = element("p", { class: "note earlier", hidden: true });
    box.replaceChildren(element("div", { class: "pair-of-buttons" }, this.main, this.undo), this.note, this.earlier);
    this.main.addEventListener("pointerdown", () => {
      const isTooSoon = performance.now() - this.changedAt < TOO_SOON_MS;
      this.pressed = { result: this.current, isTooSoon };
    });
    this.main.addEventListener("click", () => this.click());
    this.undo.addEventListener("click", () => this.send(this.current, null));
  }

  /** Show the buttons of a result; `byItself` where a new part came, not a person's choice. */
  show(result, byItself = false) {
    this.box.hidden = result.verdict === null; // nothing to contradict
    const isOther = this.current?.id !== result.id;
    if (isOther && byItself && this.current !== null) this.changedAt = performance.now();
    if (isOther || (this.current.review !== null && result.review === null)) this.note.textContent = "";
    this.current = result;
    const action = result.verdict === "good" ? "missed" : "false-call";
    const kind = reviewKind(result);
    this.words.textContent = text(`review.${action}`);
    this.meaning.textContent = text(`review.${action}.meaning`);
    this.main.setAttribute("aria-pressed", String(kind === action));
    this.main.setAttribute("aria-disabled", String(kind === action)); // what others said may be contradicted
    if (kind === null && document.activeElement === this.undo) this.main.focus();
    this.undo.hidden = kind === null;
    if (kind !== null) this.note.textContent = this.said(result);
    this.showEarlier();
  }

  /** What people say, and what is known of the defect. */
  said(result) {
    const { by, at, verdict, defect, mask } = result.review;
    const words = { name: nameOf(result), by, time: minuteOf(new Date(at)), verdict: text(`verdict.${verdict}`) };
    const kind = reviewKind(result);
    const isNamed = by !== "local" && kind !== "disputed";
    const known = [defect === null ? null : text("review.defect", { defect }), mask === null ? null : text("review.drawn")];
    return known.filter(Boolean).reduce((first, second) => text("sentences", { first, second }),
      text(isNamed ? `review.said.${kind}.by` : `review.said.${kind}`, words));
  }

  showEarlier() {
    const isOther = this.last !== null && this.last.id !== this.current.id && this.last.review !== null;
    this.earlier.hidden = !isOther;
    if (!isOther || this.earlier.dataset.result === this.last.id) return;
    const { last } = this;
    this.earlier.dataset.result = last.id;
    this.earlier.replaceChildren(
      element("span", {}, this.said(last)), " ",
      element("button", { type: "button", onclick: () => this.send(last, null) }, text("review.undo")),
    );
  }

  /** Take notice of a review that was made anywhere. */
  hear(result) {
    if (this.last?.id !== result.id) return;
    this.last = result.review === null ? null : result;
    delete this.earlier.dataset.result;
    if (this.current !== null) this.showEarlier();
  }

  click() {
    const { result, isTooSoon } = this.pressed ?? { result: this.current, isTooSoon: false };
    this.pressed = null;
    if (isTooSoon) {
      this.note.textContent = text("review.too_soon");
      return;
    }
    if (!["false-call", "missed"].includes(reviewKind(result))) this.send(result, result.verdict === "good" ? "bad" : "good");
  }

  async send(result, verdict) {
    try {
      const found = await ask(`/v1/results/${result.id}/review`, { method: "POST", body: { verdict } });
      this.last = verdict === null ? null : found;
      delete this.earlier.dataset.result;
      if (found.id === this.current.id) {
        this.show(found);
        if (verdict === null) this.note.textContent = text(found.review === null ? "review.taken_back" : "review.taken_back.others");
      } else this.showEarlier();
      this.changed(found);
    } catch (error) {
      this.note.textContent = text("review.failed", { reason: error.message });
    }
  }
}

/** The box of a page for reviews. */
export function reviewBox(changed) {
  return new Review(byId("review"), changed);
}
