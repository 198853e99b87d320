// The datasets on the page Models: a table of versions each.

import { element } from "./dom.js";
import { row, table } from "./list.js";
import { dayAndTime, text, whoWords } from "./texts.js";

const KINDS = ["added", "changed", "removed"];
const COLUMNS = ["version", "time", "who", "why", "changes", "pictures", "change"];
const ROLES = ["train", "calibration", "golden"];

/** `changes` is called with a dataset's name and a version whose difference to earlier ones is wanted. */
export function showDatasets(box, datasets, changes) {
  box.replaceChildren(...(datasets.length === 0 ? [element("p", { class: "quiet" }, text("models.datasets.none"))]
    : datasets.map(({ name, versions }) => element("div", { class: "dataset", "data-dataset": name },
      element("h3", {}, name), table("versions", COLUMNS, versions.map((version) => versionRow(name, version, changes)))))));
}

/** How many pictures were added, changed and removed; what is none is left out. */
export function changeWords(numbers) {
  const words = KINDS.filter((kind) => numbers[kind] > 0).map((kind) => text(`models.changes.${kind}`, { n: numbers[kind] }));
  return words.length === 0 ? text("models.changes.none") : words.join(text("comma"));
}

function versionRow(dataset, version, changes) {
  const { number, at, who, why, added, changed, removed, counts } = version;
  const moment = new Date(at);
  return row(COLUMNS, { "data-version": number }, {
    version: text("models.version.number", { number }),
    time: element("time", { datetime: moment.toISOString() }, dayAndTime(moment)),
    who: whoWords(who),
    why,
    changes: changeWords({ added, changed, removed }),
    pictures: ROLES.map((role) => text(`models.role.${role}`, counts[role])).join(text("comma")),
    change: number === 1 ? "" : element("button", { type: "button", "aria-label": text("models.changes.label", { dataset, number }),
      onclick: () => changes(dataset, version) }, text("models.changes")),
  });
}
