// Mark what is wider than its box, tables and code, so that the page can say that it scrolls; reachable with the keyboard.
function markBoxes() {
  for (const box of document.querySelectorAll("div.table-wrapper, div.highlight > pre")) {
    const scrolls = box.scrollWidth > box.clientWidth + 4;
    box.classList.toggle("scrolls", scrolls);
    if (!scrolls) {
      box.removeAttribute("tabindex");
      continue;
    }
    box.tabIndex = 0;
    const atEnd = () => box.classList.toggle("at-end", box.scrollLeft + box.clientWidth > box.scrollWidth - 4);
    atEnd();
    box.onscroll = atEnd;
  }
}
window.addEventListener("load", markBoxes);
window.addEventListener("resize", markBoxes);
