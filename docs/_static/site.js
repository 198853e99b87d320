// Mark each table that is wider than its box, so that the page can say that it scrolls; reachable with the keyboard.
function markTables() {
  for (const box of document.querySelectorAll("div.table-wrapper")) {
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
window.addEventListener("load", markTables);
window.addEventListener("resize", markTables);
