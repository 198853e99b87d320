// Elements from scripts. What comes from outside becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`on…`: a listener; undefined, null and false are left out) and children. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

/** Pairs of a description list. */
export function pairs(entries) {
  return entries
    .filter(Boolean)
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}
