// The counts of the shift, each a link to the parts that it counts.

import { query } from "./api.js";
import { byId, element } from "./dom.js";
import { decimal, text, whole } from "./texts.js";
import { mark } from "./verdict.js";

export function showCounts(counts, wanted, shiftHours) {
  const hours = Number.isInteger(shiftHours) ? whole(shiftHours) : decimal(shiftHours, 1);
  byId("shift-title").textContent = text("shift", { count: shiftHours, hours });
  const inspected = counts.good + counts.unsure + counts.bad + counts.failed;
  const entries = [
    ["inspected", inspected, {}, null],
    ["bad", counts.bad, { verdict: "bad" }, "bad"],
    ["unsure", counts.unsure, { verdict: "unsure" }, "unsure"],
    ["false_calls", counts.false_calls, { reviewed: "false-call" }, null],
    ["missed", counts.missed, { reviewed: "missed" }, null],
    ["failed", counts.failed, { verdict: "failed" }, "failed"],
  ];
  const box = byId("counts");
  if (box.children.length === 0) {
    box.append(...entries.map(([name, , , verdict]) => element("div", { "data-count": name },
      element("dt", {}, verdict === null ? null : mark(verdict), text(`counts.${name}`)),
      element("dd", {}, element("a", {})))));
  }
  for (const [name, number, filter] of entries) {
    const isShown = name !== "failed" || number > 0;
    box.querySelector(`[data-count="${name}"]`).hidden = !isShown;
    const link = box.querySelector(`[data-count="${name}"] a`);
    link.textContent = whole(number);
    link.href = `/history${query({ ...wanted, ...filter })}`;
    link.setAttribute("aria-label", text("counts.link", { name: text(`counts.${name}`), number: whole(number) }));
  }
  box.classList.toggle("has-failed", counts.failed > 0);
  byId("shift").hidden = false;
}
