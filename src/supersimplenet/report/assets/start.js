/** What is scrolled to must not lie under the strip with the sliders. */
function makeRoom() {
  document.documentElement.style.scrollPaddingTop = `${document.querySelector(".strip").offsetHeight + 24}px`;
}

/** What scrolls sideways says so, and can be reached by keyboard. */
function showScrolling() {
  for (const region of document.querySelectorAll(".scroll")) {
    const wide = region.scrollWidth > region.clientWidth + 1;
    region.classList.toggle("wide", wide);
    if (wide) region.tabIndex = 0;
  }
}

startControls();
startGallery();
startViewer();
showAll();
showGallery();
openLinked();
document.body.classList.add("ready");
showScrolling();
addEventListener("resize", showScrolling);
makeRoom();
addEventListener("resize", makeRoom);
