// What all pages have: texts, who I am, log out, language, light and dark, signs.

import { logOut, Refused, Unreachable, whoAmI } from "./api.js";
import { byId, element } from "./dom.js";
import { remember, remembered } from "./storage.js";
import { fillTexts, hasText, reasonWords, text } from "./texts.js";

const YEAR_S = 365 * 86400;
const AGAIN_MS = 3000;
const THEMES = ["system", "light", "dark"];
const THEME_MARKS = { system: "◐", light: "☀", dark: "☾" };

/** Fill the frame of a page; returns who I am. */
export async function begin() {
  beginFrame();
  showPlace();
  const me = await known();
  showWho(me);
  return me;
}

/** Who I am, as soon as the station can say it; until then a sign says why not. */
async function known() {
  for (;;) {
    try {
      const me = await whoAmI();
      showLost(null);
      return me;
    } catch (error) {
      if (!(error instanceof Unreachable || (error instanceof Refused && error.status === 503))) throw error;
      showLost(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** On a phone the pages are a row that scrolls: show where one is. */
function showPlace() {
  const here = document.querySelector("nav [aria-current]");
  const beyond = here === null ? 0 : here.getBoundingClientRect().right - here.parentElement.getBoundingClientRect().right;
  if (beyond > 0) here.parentElement.scrollLeft += beyond;
}

/** Whether who uses this page may choose models and thresholds, and accept pictures that changed. */
export function isEngineer(me) {
  return me.role === "engineer" || me.role === "admin";
}

export function showWho(me) {
  const isLocal = me.name === "local";
  byId("to-users").hidden = me.role !== "admin";
  byId("who").textContent = isLocal ? "" : text("who", { name: me.name, role: text(`role.${me.role}`) });
  byId("who").hidden = byId("logout").hidden = isLocal;
  byId("logout").addEventListener("click", logOut);
}

/** What also a page has on which nobody has logged in. */
export function beginFrame() {
  fillTexts();
  beginLanguage();
  beginTheme();
}

/** The chosen language is in a cookie, so that the station sends its next pages in it; without cookies, in the address. */
function beginLanguage() {
  const chooser = byId("language");
  chooser.addEventListener("change", ({ target }) => {
    document.cookie = "language-visit=; path=/; max-age=0";
    document.cookie = `language=${target.value}; path=/; max-age=${YEAR_S}; samesite=lax`;
    const address = new URL(location.href);
    if (document.cookie.includes(`language=${target.value}`)) address.searchParams.delete("lang");
    else address.searchParams.set("lang", target.value);
    address.hash = ""; // with one, the browser would stay on this page
    location.replace(address);
  });
  chooser.disabled = false; // until here a choice would be lost
}

function beginTheme() {
  const button = byId("theme");
  let theme = THEMES.includes(remembered("theme")) ? remembered("theme") : "system";
  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const words = text("theme.label", { theme: text(`theme.${theme}`) });
    button.replaceChildren(
      element("span", { "aria-hidden": "true" }, THEME_MARKS[theme]), element("span", { class: "words" }, words));
    button.setAttribute("aria-label", words);
    button.title = words;
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remember("theme", theme === "system" ? null : theme);
    show();
  });
  show();
}

/** Show what is not as it should be; the same again changes nothing, so that it is spoken once. */
export function showSigns(signs) {
  const box = byId("signs");
  const wanted = new Map(signs.map((sign) => [`${sign.code} ${sign.text}`, sign]));
  for (const shown of [...box.querySelectorAll("[data-sign]")]) {
    if (wanted.has(shown.dataset.sign)) wanted.delete(shown.dataset.sign);
    else shown.remove();
  }
  for (const [key, sign] of wanted) {
    const title = hasText(`sign.${sign.code}`) ? text(`sign.${sign.code}`) : text("sign.unknown");
    const made = element("div", { class: "sign", role: "status" }, element("strong", {}, title), " ", signWords(sign));
    made.dataset.sign = key;
    box.append(made);
  }
}

/** In the page's language where it knows the sign; else the station's own words, which are English. */
function signWords(sign) {
  const { code, text: own, values } = sign;
  if (values === undefined || !hasText(`sign.${code}.text`)) return own;
  return text(`sign.${code}.text`, { ...values, reason: reasonWords({ ...sign, reason: values.reason }) });
}

/** The sign of a lost connection; null takes it away. */
export function showLost(words) {
  document.body.classList.toggle("is-lost", words !== null);
  const shown = byId("lost");
  if (words === null) return shown?.remove();
  if (shown) {
    if (shown.textContent !== words) shown.textContent = words;
    return undefined;
  }
  byId("signs").prepend(element("div", { id: "lost", class: "sign grave", role: "alert" }, words));
  return undefined;
}

export function showProblem(error, box = byId("problem")) {
  box.hidden = error === null;
  box.textContent = error === null ? "" : error.message;
}
