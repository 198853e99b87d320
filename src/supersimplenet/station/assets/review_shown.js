// What the page Review shows of a part that it asks about, and of how far one has come.

import { byId, element, pairs } from "./dom.js";
import { showDrawn } from "./mask_shown.js";
import { showPicture } from "./picture.js";
import { dayAndTime, minuteOf, text, whole } from "./texts.js";
import { nameOf, scoreText, showVerdict, verdictOf } from "./verdict.js";

const CHIPS = 9; // kinds of defects that have a button, and a digit as its key

/** The part, and why it is asked about. */
export function showPart({ result, reason }) {
  byId("reason").textContent = text(`queue.reason.${reason}`);
  showVerdict(byId("verdict"), verdictOf(result));
  showPicture(byId("stage"), byId("legend"), result);
  showDrawn(byId("stage"), result);
  byId("facts").replaceChildren(...pairs([
    [text("score"), result.score === null ? scoreText(result) : text("score.of", { score: scoreText(result) })],
    [text("name"), element("span", { id: "name" }, nameOf(result))],
    result.part === null ? null : [text("part"), result.part],
    [text("time"), dayAndTime(new Date(result.taken_at))],
  ]));
  byId("open").href = `/results/${result.id}`;
  byId("draw").disabled = !result.picture.kept || result.picture.width === null;
}

/** What was said here, and what a click would say: bad with the kind that stands in its field. */
export function showAnswer(own) {
  const kind = byId("kind").value.trim();
  for (const button of byId("answers").querySelectorAll("button")) {
    const verdict = button.dataset.answer;
    const isOwn = own?.verdict === verdict;
    const more = verdict !== "bad" ? "" : isOwn ? own.defect ?? "" : kind;
    button.setAttribute("aria-pressed", String(isOwn));
    button.replaceChildren(element("span", { class: "words" }, text(`verdict.${verdict}`), element("span", { class: "of-kind" }, more)));
  }
}

/** What somebody else said meanwhile; null for nothing. */
export function showOther(review) {
  const box = byId("other");
  box.hidden = review === null;
  if (review === null) return;
  const words = { verdict: text(`verdict.${review.verdict}`), by: review.by, time: minuteOf(new Date(review.at)) };
  const key = review.verdict === "disputed" ? "disputed" : review.by === "local" ? "local" : "by";
  box.textContent = text(`queue.other.${key}`, words);
}

/** Suggestions for the kind of the defect; `use` is called with the one that is chosen, or "" for none. */
export function showKinds(kinds, use) {
  byId("kinds").replaceChildren(...kinds.map((kind) => element("option", { value: kind })));
  const chosen = byId("kind").value.trim();
  byId("known").replaceChildren(...kinds.slice(0, CHIPS).map((kind, number) => element("button", {
    type: "button", "data-key": whole(number + 1), "aria-keyshortcuts": whole(number + 1), "aria-pressed": String(kind === chosen),
    onclick: () => use(kind === chosen ? "" : kind) }, kind)));
}

/** How far one has come, and how many of the verdicts are expected to be wrong. */
export function showProgress(entries, place, isEnd) {
  const number = entries.length;
  const done = entries.filter((entry) => entry.answer !== null).length;
  byId("advance").hidden = number === 0;
  byId("progress-text").textContent = isEnd ? text("queue.all", { count: number }) : text("queue.place", { place: place + 1, number, done });
  [byId("progress").max, byId("progress").value] = [Math.max(1, number), done];
  const known = entries.map((entry) => entry.wrong).filter((wrong) => wrong !== null);
  byId("expected").hidden = known.length === 0 || isEnd;
  if (known.length === 0) return;
  const expected = Math.round(known.reduce((sum, wrong) => sum + wrong, 0));
  byId("expected").textContent = expected === 0 ? text("queue.expected.none") : text("queue.expected", { count: expected });
}

/** To a screen reader. */
export function speakPart({ result, reason }, place, number) {
  byId("spoken").textContent = text("queue.spoken", { place, number, name: nameOf(result),
    reason: text(`queue.reason.${reason}`), verdict: text(`verdict.${verdictOf(result)}`) });
}

/** Answers that have not arrived, and why. */
export function showWaiting({ waiting, problem, refused }) {
  const isStuck = problem !== null || refused.length > 0;
  byId("waiting").hidden = !isStuck;
  if (!isStuck) return;
  const [first] = refused;
  byId("waiting-text").textContent = problem !== null
    ? text("queue.waiting", { count: waiting.length, reason: problem })
    : text("queue.refused", { count: refused.length, name: first.name, reason: first.refused });
  byId("drop-refused").hidden = refused.length === 0;
}
