/** What is scrolled to must not lie under the strip with the sliders. */
function makeRoom() {
  document.documentElement.style.scrollPaddingTop = `${document.querySelector(".strip").offsetHeight + 24}px`;
}

startControls();
startGallery();
startViewer();
showAll();
showGallery();
openLinked();
// What scrolls sideways must be reachable by keyboard.
for (const region of document.querySelectorAll(".scroll")) {
  if (region.scrollWidth > region.clientWidth) region.tabIndex = 0;
}
document.body.classList.add("ready");
makeRoom();
addEventListener("resize", makeRoom);
