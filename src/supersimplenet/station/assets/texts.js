// The words of the pages, a file a language; the station has found out which one, and says it in the page.

const { lang: language } = document.documentElement;
const answer = await fetch(`/assets/texts/${language}.json`);
const words = await answer.json();
const plural = new Intl.PluralRules(language);

/** The words of a key, with {values} filled in, numbers as the language writes them; `count` also chooses the form. */
export function text(key, values = {}) {
  const form = "count" in values ? `${key}.${plural.select(values.count)}` : key;
  const found = words[form] ?? words[`${key}.other`] ?? words[key];
  if (found === undefined) throw new Error(`texts/${language}.json: no ${key}`);
  return found.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? whole(values[name]) : values[name]));
}

/** Whether there are words for a key that comes from the station. */
export function hasText(key) {
  return key in words || `${key}.other` in words;
}

/** The words for an error by its code; else the station's own, which are English and also say details. */
export function errorWords({ code, message }) {
  return hasText(`error.${code}`) ? text(`error.${code}`, { message }) : message;
}

/** Why something is away: in the page's language where the station gives its reason a code. */
export function reasonWords({ reason, reason_code: code, reason_values: values }) {
  return hasText(`reason.${code}`) ? text(`reason.${code}`, values) : reason;
}

/** The name of who did something: a person's, or the words for what else can. */
export function whoWords(who) {
  const key = `audit.who.${who.replaceAll(" ", "_")}`;
  return hasText(key) ? text(key) : who;
}

/** Fill what stands in a page: data-text is its words, data-label its name for a screen reader. */
export function fillTexts(within = document) {
  for (const element of within.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of within.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
  }
}

const wholes = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });

export function whole(number) {
  return wholes.format(number);
}

export function decimal(number, digits) {
  const format = new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return format.format(number).replace("-", "\u2212");
}

const digits = new Intl.NumberFormat(language, { maximumFractionDigits: 4 });

/** A number with the digits that it has: 5.1, 95. */
export function shortest(number) {
  return digits.format(number);
}

/** A share in per cent, rounded up: it is said to be at most this. */
export function shareWords(share) {
  return text("guarantee.percent", { number: shortest(Math.ceil(share * 1000 - 1e-9) / 10) });
}

const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const seconds = new Intl.DateTimeFormat(language, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const day = new Intl.DateTimeFormat(language, { year: "numeric", month: "short", day: "numeric" });
const dayAndSeconds = new Intl.DateTimeFormat(language, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

/** 12:01 */
export function minuteOf(moment) {
  return clock.format(moment);
}

/** 12:01:07 */
export function timeOf(moment) {
  return seconds.format(moment);
}

/** 30 Nov 2026 */
export function dayOf(moment) {
  return day.format(moment);
}

/** 30 Nov 2026, 12:01:07 */
export function dayAndTime(moment) {
  return dayAndSeconds.format(moment);
}

/** How long ago a moment was, in words; `now` is the station's time in ms. */
export function ago(moment, now) {
  const passed = Math.max(0, Math.round((now - moment) / 1000));
  if (passed < 60) return text("ago.seconds", { n: passed });
  if (passed < 3600) return text("ago.minutes", { n: Math.floor(passed / 60) });
  if (passed < 86400) return text("ago.hours", { n: Math.floor(passed / 3600) });
  return dayAndTime(moment);
}
