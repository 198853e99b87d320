// What is counted at a threshold. Scores are float64 on both sides: a score that equals the threshold is bad.

const page = JSON.parse(document.getElementById("numbers").textContent);
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const own = { reject: page.threshold, accept: page.accept };
const now = { ...own };
const scores = [...new Set([...page.goodImages, ...page.badImages])].sort((a, b) => a - b);

/** How many numbers of a rising list lie below a level. */
function below(rising, level) {
  let low = 0;
  let high = rising.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rising[middle] < level) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What an image of this score is called. */
function verdictOf(score, levels) {
  if (score >= levels.reject) return "bad";
  return score >= levels.accept ? "unsure" : "good";
}

/** "escape", "false alarm", or "" where the verdict is not wrong. */
function mistakeOf(image, levels) {
  const verdict = verdictOf(image.score, levels);
  if (image.bad) return verdict === "good" ? "escape" : "";
  return verdict === "bad" ? "false alarm" : "";
}

function flips(image) {
  return verdictOf(image.score, now) !== verdictOf(image.score, own);
}

/** How far a score lies from a wrong verdict; negative where the verdict is wrong. */
function marginOf(image) {
  return image.bad ? image.score - now.accept : now.reject - image.score;
}

/** How many images of a rising list of scores are called good, unsure and bad. */
function countImages(rising) {
  const good = below(rising, now.accept);
  const notBad = below(rising, now.reject);
  return { good, unsure: notBad - good, bad: rising.length - notBad };
}

/**
 * Parts with a wrong verdict, and what their rate is at most. The exact bound holds for a threshold that was fixed
 * beforehand, so for the model's alone; elsewhere the one that holds at all thresholds at once.
 */
function countParts() {
  const rated = (wrong, total, exact, bounds, margin) => {
    const rate = total ? wrong / total : 0;
    return { wrong, total, rate, exact, bound: exact ? bounds[wrong] : Math.min(1, rate + margin) };
  };
  const alarms = page.goodParts.length - below(page.goodParts, now.reject);
  const escapes = below(page.badParts, now.accept);
  return {
    falseAlarms: rated(alarms, page.goodParts.length, now.reject === own.reject, page.goodBounds, page.goodMargin),
    escapes: rated(escapes, page.badParts.length, now.accept === own.accept, page.badBounds, page.badMargin),
  };
}

function costOf(falseAlarmRate, escapeRate) {
  const { falseAlarm, escape, badShare } = page.cost;
  return (1 - badShare) * falseAlarm * falseAlarmRate + badShare * escape * escapeRate;
}

const whole = (number) => number.toLocaleString("en-US");
const perCent = (rate) => `${(Math.floor(1000 * rate + 0.5) / 10).toFixed(1)} %`;
const atMost = (bound) => `${Math.ceil(bound * 1000 - 1e-9) / 10} %`;
const logit = (value) => value.toFixed(3).replace("-", "\u2212");
/** A score as in the tables of predictions: from 0 to 1, 0.5 at the model's threshold. */
const normalised = (value) => (1 / (1 + Math.exp(own.reject - value))).toFixed(3);
const plural = (number, thing) => `${whole(number)} ${thing}${number === 1 ? "" : "s"}`;

/** An element with attributes (those that are null or false are left out) and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}
