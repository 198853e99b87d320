// The images that are shown: which ones, in which order, and how many at a time.

const PAGE = 48;
const BORDERLINE = { share: 0.1, most: 24 }; // of the right verdicts, those nearest to a wrong one
const PRINTED = 24;
const made = new Map();
const chosen = { kind: "all", limit: PAGE, list: [] };

/** Images of each kind at the present threshold, nearest to a wrong verdict first, the wrong ones before them. */
function sortKinds() {
  const margins = new Map(page.images.map((image) => [image.id, marginOf(image)]));
  const all = [...page.images].sort((a, b) => margins.get(a.id) - margins.get(b.id) || a.id - b.id);
  const unsure = all.filter((image) => verdictOf(image.score, now) === "unsure");
  const right = all.filter((image) => !mistakeOf(image, now) && verdictOf(image.score, now) !== "unsure");
  return {
    escapes: all.filter((image) => mistakeOf(image, now) === "escape"),
    "false-alarms": all.filter((image) => mistakeOf(image, now) === "false alarm"),
    unsure,
    borderline: right.slice(0, Math.min(Math.ceil(BORDERLINE.share * right.length), BORDERLINE.most)),
    all,
  };
}

function passes(image) {
  const type = byId("type").value;
  const text = byId("path").value.trim().toLowerCase();
  return (
    (!type || image.type === type) &&
    (!text || image.path.toLowerCase().includes(text)) &&
    (!byId("flipped").checked || flips(image))
  );
}

function showGallery() {
  const kinds = sortKinds();
  for (const [kind, images] of Object.entries(kinds)) {
    const count = document.querySelector(`[data-count="${kind}"]`);
    if (count) count.textContent = whole(images.length);
  }
  document.querySelector('[data-count="flipped"]').textContent = whole(page.images.filter(flips).length);
  chosen.list = kinds[chosen.kind].filter(passes);
  const cards = chosen.list.slice(0, chosen.limit).map((image) => {
    if (!made.has(image.id)) made.set(image.id, cardOf(image, openViewer));
    const entry = made.get(image.id);
    entry.refresh();
    return entry.card;
  });
  const holder = byId("cards");
  // Cards that stay where they are stay in the document, and keep the focus.
  if (cards.length !== holder.children.length || cards.some((card, place) => card !== holder.children[place])) {
    const focused = document.activeElement;
    holder.replaceChildren(...cards);
    if (focused && holder.contains(focused)) focused.focus();
  }
  const left = chosen.list.length - cards.length;
  byId("more").hidden = left <= 0;
  byId("more").textContent = `Show ${Math.min(left, PAGE)} more of ${whole(left)}`;
  const kind = chosen.kind === "all" ? "images" : chosen.kind.replace("-", " ");
  const what = chosen.kind === "borderline" ? `the tenth of the right verdicts (at most ${BORDERLINE.most})` : kind;
  const order = ["escapes", "false-alarms"].includes(chosen.kind) ? "the worst first" : "nearest to a wrong verdict first";
  byId("gallery-note").textContent = chosen.list.length
    ? `${whole(cards.length)} of ${whole(chosen.list.length)} shown: ${what}, ${order}.`
    : `No image: ${kind}${chosen.list.length === kinds[chosen.kind].length ? "" : ", with these filters"}.`;
  const printed = kinds.all.filter((image) => mistakeOf(image, now)).slice(0, PRINTED);
  byId("print-mistakes").hidden = !printed.length;
  byId("print-cards").replaceChildren(...printed.map((image) => cardOf(image, null).card));
}

function startGallery() {
  const kinds = sortKinds();
  chosen.kind = ["escapes", "false-alarms", "unsure", "borderline"].find((kind) => kinds[kind].length) || "all";
  byId("filters").querySelector(`[value="${chosen.kind}"]`).checked = true;
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      showGallery();
    });
  };
  const anew = () => {
    chosen.limit = PAGE;
    showGallery();
  };
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const radio of document.querySelectorAll('[name="kind"]')) {
    radio.addEventListener("change", () => {
      chosen.kind = radio.value;
      anew();
    });
  }
  for (const id of ["type", "flipped"]) byId(id).addEventListener("change", anew);
  byId("path").addEventListener("input", anew);
  byId("more").addEventListener("click", () => {
    const first = chosen.limit;
    chosen.limit += PAGE;
    showGallery();
    byId("cards").children[first].querySelector("button").focus();
  });
  for (const box of document.querySelectorAll("[data-layer]")) {
    box.addEventListener("change", () => {
      document.body.classList.toggle(`without-${box.dataset.layer}`, !box.checked);
      for (const twin of document.querySelectorAll(`[data-layer="${box.dataset.layer}"]`)) twin.checked = box.checked;
    });
  }
  listeners.push(soon);
}
