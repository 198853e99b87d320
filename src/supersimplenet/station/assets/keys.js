// Keys of the pages: a letter is that of the layout, or where it writes no Latin letters, that of the key's place.

/** The key of an event in small letters; null for one that is meant for the browser or system. */
export function keyOf(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return null;
  const key = event.key.toLowerCase();
  const isOther = key === "process" || (key.length === 1 && key.codePointAt(0) > 127);
  return isOther && event.code.startsWith("Key") ? event.code.slice(3).toLowerCase() : key;
}

/** Tell screen readers the keys that buttons show. */
export function nameKeys(within) {
  for (const button of within.querySelectorAll("[data-key]")) button.setAttribute("aria-keyshortcuts", button.dataset.key);
}
