// Tables of the pages.

import { element } from "./dom.js";
import { text } from "./texts.js";

/** A table with the words of `caption.KIND` and, for each column, of `column.NAME`. */
export function table(kind, columns, rows) {
  const heads = columns.map((name) => element("th", { scope: "col", role: "columnheader", class: `for-${name}` },
    element("span", { class: name === "change" ? "unseen" : undefined }, text(`column.${name}`))));
  return element("table", { class: `list of-${kind}`, role: "table" },
    element("caption", { class: "unseen" }, text(`caption.${kind}`)),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, heads)),
    element("tbody", { role: "rowgroup" }, rows));
}

/** A row of cells by column. */
export function row(columns, attributes, cells) {
  return element("tr", { role: "row", ...attributes }, columns.map((column) =>
    element("td", { role: "cell", class: `of-${column}`, "data-name": text(`column.${column}`) }, cells[column])));
}
