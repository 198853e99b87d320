// Answers on their way to the station: one after another, kept in this tab until each has arrived.

import { ask, Refused, Unreachable } from "./api.js";
import { keepInTab, ofTab } from "./storage.js";

const LATER = [408, 429, 503, 504]; // refusals that say: not now

export class Answers {
  /** `me`: who answers. `arrived` is called with the id and the result, `changed` where something waits or no more. */
  constructor(me, { arrived, changed }) {
    Object.assign(this, { me, arrived, changed, running: null, current: null, problem: null, sent: new Map() });
    const kept = ofTab("answers");
    this.waiting = kept?.who === me.name ? kept.waiting : []; // another person's are not sent under this name
  }

  /** Send an answer, or with `undo` what was said before it. */
  put(answer) {
    this.waiting.push({ refused: null, ...answer });
    this.keep();
    return this.flush();
  }

  /** Take back what is not on its way yet about a result; returns whether there was any. */
  drop(id) {
    const before = this.waiting.length;
    this.waiting = this.waiting.filter((answer) => answer.id !== id || answer === this.current);
    this.keep();
    return this.waiting.length < before;
  }

  has(id) {
    return this.waiting.some((answer) => answer.id === id);
  }

  get refused() {
    return this.waiting.filter((answer) => answer.refused !== null);
  }

  /** Forget those that the station does not take. */
  dropRefused() {
    this.waiting = this.waiting.filter((answer) => answer.refused === null);
    this.keep();
  }

  /** Send also those once more that were refused. */
  again() {
    for (const answer of this.waiting) answer.refused = null;
    return this.flush();
  }

  /** Send what waits, in order; what does not arrive goes on waiting. */
  flush() {
    this.running ??= this.sendAll().finally(() => {
      this.running = null;
      this.keep();
    });
    return this.running;
  }

  async sendAll() {
    this.problem = null;
    for (let next = this.next(); next !== undefined && this.problem === null; next = this.next()) {
      this.current = next;
      const found = await this.send(next).catch((error) => this.fail(next, error));
      this.current = null;
      if (found !== null) this.arrive(next, found);
    }
  }

  next() {
    return this.waiting.find((answer) => answer.refused === null);
  }

  async send({ id, body, undo }) {
    const sent = undo ? await this.before(id) : body;
    return ask(`/v1/results/${id}/review`, { method: "POST", body: sent });
  }

  /** What this person had said before the answers of this page. */
  async before(id) {
    const { answers } = await ask(`/v1/results/${id}/answers`);
    const own = answers.filter((answer) => answer.who === this.me.name);
    const { verdict = null, defect = null, asked = null } = own.at(-1 - (this.sent.get(id) ?? 1)) ?? {};
    return { verdict, defect, asked };
  }

  arrive(answer, found) {
    this.waiting.splice(this.waiting.indexOf(answer), 1);
    this.count(answer.id, answer.undo ? null : 1);
    this.keep();
    this.arrived(answer.id, found, answer.undo === true);
  }

  /** Count an answer that was sent; null where all of them were undone. */
  count(id, number) {
    this.sent.set(id, number === null ? 0 : (this.sent.get(id) ?? 0) + number);
  }

  fail(answer, error) {
    const isLater = error instanceof Unreachable || (error instanceof Refused && (LATER.includes(error.status) || error.status >= 500));
    if (!isLater && !(error instanceof Refused)) throw error;
    if (isLater) this.problem = error.message;
    else answer.refused = error.message;
    return null;
  }

  keep() {
    keepInTab("answers", this.waiting.length === 0 ? null : { who: this.me.name, waiting: this.waiting });
    this.changed();
  }
}
