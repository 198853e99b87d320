// One image, large: layers, facts, defects; arrow keys go through the list that the gallery shows.

const seen = { image: null, list: [] };

function openViewer(image, list = chosen.list) {
  seen.list = list.includes(image) ? list : [image];
  showViewer(image);
  if (!byId("viewer").open) byId("viewer").showModal();
}

function showViewer(image) {
  seen.image = image;
  const place = seen.list.indexOf(image);
  const verdict = verdictOf(image.score, now);
  byId("viewer-title").replaceChildren(...nameOf(image.path));
  byId("stage").replaceChildren(pictureOf(image, true));
  showListed(byId("stage"), image);
  const facts = [
    ["Truth", image.bad ? `bad: ${image.type}` : "good"],
    ["Called", [verdict, mistakeOf(image, now), flips(image) ? "flips" : ""].filter(Boolean).join(", ")],
    ["Score", `${normalised(image.score)} from 0 to 1; the model\u2019s threshold is 0.5`],
    ["Score (logit)", `${logit(image.score)}; the model\u2019s threshold is ${logit(own.reject)}`],
  ];
  if (image.p !== null) facts.push(["p-value", `${pValue(image.p)}: with this one counted, the share of good parts that score at least so high`]);
  if (image.group !== null) facts.push(["Part", image.group]);
  if (pictures[image.id]) {
    const [height, width] = pictures[image.id].size;
    facts.push(["Size", `${width} \u00d7 ${height} px, width \u00d7 height`]);
    if (pictures[image.id].truth === null) facts.push(["Mask", "none: where the defect is, is not known"]);
  }
  byId("viewer-facts").replaceChildren(
    ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
  );
  byId("viewer-defects").replaceChildren(defectsOf(image));
  showScrolling();
  byId("viewer-place").textContent = `${whole(place + 1)} of ${whole(seen.list.length)}`;
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === seen.list.length - 1;
}

function defectsOf(image) {
  if (image.regions === null) return make("p", { class: "note" }, "No list of defects: the model is not calibrated.");
  const [defects, isPeak] = listedOf(image);
  if (!defects.length) return make("p", { class: "note" }, "Called good, so no defect is listed.");
  const cells = (tag, texts) => texts.map((text) => make(tag, tag === "th" ? { scope: "col" } : { class: "number" }, text));
  const rows = defects.map(([left, top, width, height, area, peak, x, y]) =>
    make("tr", {}, ...cells("td", [
      `${left}, ${top}`, `${width} \u00d7 ${height}`, whole(area), logit(peak), `${x.toFixed(1)}, ${y.toFixed(1)}`,
    ])));
  const table = make("table", {},
    make("caption", {}, isPeak
      ? "No region reaches the pixel threshold: the map\u2019s peak, in px of the image"
      : `${plural(defects.length, "defect")} found, in px of the image, at the pixel threshold; the outline lies further in`),
    make("thead", {}, make("tr", {}, ...cells("th", ["left, top", "width \u00d7 height", "area", "peak (logit)", "middle x, y"]))),
    make("tbody", {}, ...rows));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Found defects" }, table);
}

function step(by) {
  const next = seen.list[seen.list.indexOf(seen.image) + by];
  if (next) showViewer(next);
}

/** A link such as #image-12 opens that image, wherever it stands. */
function openLinked() {
  const found = /^#image-(\d+)$/.exec(location.hash);
  if (found && page.images[found[1]]) openViewer(page.images[found[1]], page.images);
}

function startViewer() {
  const viewer = byId("viewer");
  byId("close").addEventListener("click", () => viewer.close());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  viewer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    step(by);
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close(); // the backdrop
  });
  viewer.addEventListener("close", () => {
    if (location.hash.startsWith("#image-")) history.replaceState(null, "", location.pathname + location.search);
    const card = document.querySelector(`#cards [data-image="${seen.image.id}"] button`);
    if (card) card.focus();
  });
  listeners.push(() => {
    if (viewer.open) showViewer(seen.image);
  });
  addEventListener("hashchange", openLinked);
}
