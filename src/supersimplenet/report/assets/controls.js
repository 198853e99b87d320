// Sliders, tables and figures that follow the threshold.

const listeners = [];
const byId = (id) => document.getElementById(id);

/** Take another threshold; the lower of the two never lies above the other. */
function setLevel(which, value) {
  now[which] = value;
  if (!page.greyZone) {
    now.accept = now.reject = value;
  } else if (now.accept > now.reject) {
    now[which === "reject" ? "accept" : "reject"] = value;
  }
  showAll();
}

function backToOwn() {
  Object.assign(now, own);
  showAll();
}

function showAll() {
  const parts = countParts();
  showControls(parts);
  showTables(parts);
  showFigures();
  for (const listener of listeners) listener();
}

function sentenceOf(parts) {
  const pieces = [];
  if (parts.escapes.total) {
    const { wrong, total } = parts.escapes;
    pieces.push(`${whole(wrong)} of ${plural(total, "bad part")} escape${wrong === 1 ? "s" : ""}`);
  }
  if (parts.falseAlarms.total) {
    const { wrong, total } = parts.falseAlarms;
    pieces.push(`${whole(wrong)} of ${plural(total, "good part")} ${wrong === 1 ? "is a false alarm" : "are false alarms"}`);
  }
  if (page.greyZone) {
    const unsure = countImages(page.goodImages).unsure + countImages(page.badImages).unsure;
    pieces.push(`${plural(unsure, "image")} unsure`);
  }
  const flipped = page.images.filter(flips);
  if (flipped.length) {
    const touched = new Set(flipped.map((image) => `${image.bad} ${image.part}`)).size;
    const ofParts = touched === flipped.length ? "" : ` of ${plural(touched, "part")}`;
    pieces.push(`${plural(flipped.length, "image")}${ofParts} flip${flipped.length === 1 ? "s" : ""}`);
  }
  return pieces.join("; ");
}

function showControls(parts) {
  const sentence = sentenceOf(parts);
  for (const which of page.greyZone ? ["accept", "reject"] : ["reject"]) {
    const slider = byId(which);
    slider.value = below(scores, now[which]);
    slider.setAttribute("aria-valuetext", `${logit(now[which])}`);
    byId(`${which}-number`).value = Number(now[which].toPrecision(5));
  }
  byId("live").textContent = `${sentence}.`;
  const moved = now.reject !== own.reject || now.accept !== own.accept;
  byId("back").disabled = !moved;
  document.body.classList.toggle("moved", moved);
  const level = `an anomaly score of ${logit(now.reject)} (a logit)`;
  const unsure = page.greyZone ? `; unsure from ${logit(now.accept)} on` : "";
  byId("where").textContent = moved
    ? `At threshold ${level}${unsure}; the model\u2019s is ${logit(own.reject)}.`
    : `At the model\u2019s threshold, ${level}${unsure}.`;
}

function showTables(parts) {
  for (const [kind, rising] of [["good", page.goodImages], ["bad", page.badImages]]) {
    const counts = countImages(rising);
    for (const cell of document.querySelectorAll(`#matrix tr[data-kind="${kind}"] [data-verdict]`)) {
      const { verdict } = cell.dataset;
      cell.textContent = whole(counts[verdict]);
      cell.classList.toggle("wrong", counts[verdict] > 0 && verdict !== kind && verdict !== "unsure");
    }
  }
  for (const [id, rates] of [["false-alarms", parts.falseAlarms], ["escapes", parts.escapes]]) {
    if (!rates.total) continue;
    const shown = {
      count: `${whole(rates.wrong)} of ${whole(rates.total)}`,
      rate: perCent(rates.rate),
      bound: atMost(rates.bound),
      kind: rates.exact ? "exact" : "at every threshold",
    };
    for (const [name, text] of Object.entries(shown)) byId(id).querySelector(`[data-cell="${name}"]`).textContent = text;
  }
  byId("bound-note").textContent = boundNote(parts);
  if (page.cost) {
    const cost = costOf(parts.falseAlarms.rate, parts.escapes.rate);
    const cheapest = page.cheapest;
    const alarms = (page.goodParts.length - below(page.goodParts, cheapest)) / page.goodParts.length;
    const least = costOf(alarms, below(page.badParts, cheapest) / page.badParts.length);
    byId("cost").querySelector('[data-cell="cost"]').textContent = Number(cost.toPrecision(3));
    byId("cost").querySelector('[data-cell="cheapest"]').textContent =
      `cheapest${page.greyZone ? " single threshold" : ""}: ${Number(least.toPrecision(3))} at ${logit(cheapest)}`;
  }
  const ofType = page.types.map(() => ({ good: 0, unsure: 0, bad: 0 }));
  for (const image of page.images) {
    if (image.bad) ofType[page.types.indexOf(image.type)][verdictOf(image.score, now)] += 1;
  }
  for (const cell of document.querySelectorAll("#types [data-type]")) {
    cell.textContent = whole(ofType[cell.dataset.type][cell.dataset.verdict]);
  }
}

function boundNote(parts) {
  const sure = `${Number((page.confidence * 100).toPrecision(6))} % confidence each`;
  const rated = [parts.falseAlarms, parts.escapes].filter((rates) => rates.total);
  if (rated.every((rates) => rates.exact)) {
    return `The bounds are exact (Clopper and Pearson, one side, ${sure}): this threshold was fixed before these parts were scored.`;
  }
  const which = rated.some((rates) => rates.exact) ? "The bound marked so" : "Each bound";
  return `${which} holds at every threshold at once (Dvoretzky, Kiefer, Wolfowitz; ${sure}) and is wider: whoever moves the slider chooses by these very scores.`;
}

function showFigures() {
  for (const figure of document.querySelectorAll("svg[data-figure]")) {
    const [x0, x1, y0, y1] = figure.dataset.domain.split(" ").map(Number);
    const [left, right, bottom, top] = figure.dataset.range.split(" ").map(Number);
    const across = (x) => left + (Math.min(Math.max(x, x0), x1) - x0) / (x1 - x0) * (right - left);
    const down = (y) => bottom - (y - y0) / (y1 - y0) * (bottom - top);
    for (const line of figure.querySelectorAll("[data-line]")) {
      line.setAttribute("transform", `translate(${across(now[line.dataset.line]).toFixed(1)} 0)`);
    }
    for (const point of figure.querySelectorAll("[data-point]")) {
      const good = page.goodImages.length - below(page.goodImages, now[point.dataset.point]);
      const bad = page.badImages.length - below(page.badImages, now[point.dataset.point]);
      const found = bad / page.badImages.length;
      const [x, y] = figure.dataset.figure === "roc"
        ? [good / page.goodImages.length, found]
        : [found, good + bad ? bad / (good + bad) : NaN];
      point.style.display = Number.isNaN(y) ? "none" : "";
      if (!Number.isNaN(y)) {
        point.setAttribute("cx", across(x).toFixed(1));
        point.setAttribute("cy", down(y).toFixed(1));
      }
    }
  }
}

function startControls() {
  for (const which of page.greyZone ? ["accept", "reject"] : ["reject"]) {
    const slider = byId(which);
    slider.max = page.positions.length - 1;
    slider.addEventListener("input", () => {
      const place = Number(slider.value);
      // Both of the model's thresholds may lie between the same two scores; each slider comes back to its own.
      setLevel(which, place === below(scores, own[which]) ? own[which] : page.positions[place]);
    });
    const field = byId(`${which}-number`);
    field.addEventListener("change", () => {
      const value = field.value === "" ? NaN : Number(field.value);
      if (Number.isFinite(value)) setLevel(which, value);
      else showAll();
    });
  }
  byId("back").addEventListener("click", backToOwn);
  if (page.cost) {
    byId("to-cheapest").addEventListener("click", () => {
      now.accept = now.reject = page.cheapest;
      showAll();
    });
  }
}
