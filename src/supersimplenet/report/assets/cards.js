// What one image looks like: the photograph under its anomaly map and outlines, and the words below it.

const SVG = "http://www.w3.org/2000/svg";

function wordsOf(image) {
  const verdict = verdictOf(image.score, now);
  const truth = image.bad ? `bad (${image.type})` : "good";
  return `${image.path}: ${truth}, called ${verdict}, anomaly score ${logit(image.score)} (logit)`;
}

/** A file's name that breaks behind "/", "_" and "-", and not within its last piece, or a long one's ending. */
function nameOf(path) {
  const pieces = path.split(/(?<=[/_-])/);
  let last = pieces.pop();
  if (last.length > 20) {
    pieces.push(last.slice(0, -8));
    last = last.slice(-8);
  }
  return [...pieces.flatMap((piece) => [piece, make("wbr")]), make("span", { class: "end" }, last)];
}

/** Photograph, anomaly map and outlines, one above the other. */
function pictureOf(image, large = false) {
  const picture = pictures[image.id];
  if (!picture) return make("div", { class: "layered empty" }, "no picture in this report");
  const [height, width] = picture.size;
  const frame = make("div", { class: "layered", style: `--ratio: ${width / height}` });
  frame.append(
    make("img", { class: "photograph", src: (large && picture.large) || picture.photograph, alt: wordsOf(image), decoding: "async" }),
    make("img", { class: "heat", src: picture.heat, alt: "", decoding: "async" }),
  );
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", `0 0 ${picture.drawn[1]} ${picture.drawn[0]}`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("aria-hidden", "true");
  for (const layer of ["ignored", "truth", "found", "peak"]) {
    if (!picture[layer]) continue;
    for (const part of ["halo", "stroke"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", picture[layer]);
      // The box of the layers that hides the regions hides the peak, too.
      path.setAttribute("class", layer === "peak" ? `found peak ${part}` : `${layer} ${part}`);
      drawing.append(path);
    }
  }
  frame.append(drawing);
  return frame;
}

/** Regions and peak are shown where the image is not called good, as `listed_defects` has it. */
function showListed(holder, image) {
  const frame = holder.querySelector(".layered");
  frame.classList.toggle("called-good", verdictOf(image.score, now) === "good");
}

/** The defects that are listed at the present threshold: [regions, or the peak alone, whether it is the peak]. */
function listedOf(image) {
  if (verdictOf(image.score, now) === "good") return [[], false];
  return image.regions.length ? [image.regions, false] : [[image.peak], true];
}

function badgesOf(image) {
  const badges = [];
  const mistake = mistakeOf(image, now);
  const verdict = verdictOf(image.score, now);
  if (mistake) badges.push(make("span", { class: "badge wrong" }, mistake));
  else if (verdict === "unsure") badges.push(make("span", { class: "badge unsure" }, "unsure"));
  if (flips(image)) badges.push(make("span", { class: "badge flips" }, "flips"));
  return badges;
}

const pValue = (p) => (p === null ? "" : p < 0.001 ? p.toExponential(1) : String(Number(p.toPrecision(2))));

/** The caption's pieces; what depends on the threshold is written anew each time. */
function captionOf(image) {
  const verdict = verdictOf(image.score, now);
  const score = [`score\u00a0${logit(image.score)} (logit)`];
  if (image.p !== null) score.push(`p\u00a0${pValue(image.p)}`);
  const part = image.group === null ? [] : [" \u00b7 part\u00a0", ...nameOf(image.group)];
  return [
    make(
      "span",
      { class: "verdict" },
      make("span", { class: `dot ${image.bad ? "bad" : "good"}`, "aria-hidden": "true" }),
      `${image.bad ? image.type : "good"}, called ${verdict} `,
      ...badgesOf(image),
    ),
    make("span", { class: "quiet" }, score.join(" \u00b7 "), ...part),
    make("span", { class: "path" }, ...nameOf(image.path)),
  ];
}

function cardOf(image, open) {
  const caption = make("div", { class: "caption" });
  const card = make("li", { class: "card", "data-image": image.id });
  let button = null;
  if (open) {
    button = make("button", { type: "button", class: "open" }, pictureOf(image));
    button.addEventListener("click", () => open(image));
    caption.classList.add("opens"); // for the mouse; by keyboard the button above does it
    caption.addEventListener("click", () => {
      if (String(getSelection()) === "") open(image);
    });
    card.append(button, caption);
  } else {
    card.append(pictureOf(image), caption);
  }
  const refresh = () => {
    showListed(card, image);
    caption.replaceChildren(...captionOf(image));
    const photograph = card.querySelector("img.photograph");
    if (photograph) photograph.alt = wordsOf(image);
    if (button) button.setAttribute("aria-label", `Open ${wordsOf(image)}`);
  };
  refresh();
  return { card, refresh };
}
