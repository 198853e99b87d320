// Requests to the station: JSON, the session's token against other sites, login where it is needed, and its clock.

import { errorWords, text } from "./texts.js";

const LONGEST_MS = 8000;
let csrf = null;
let isLeaving = false; // for the login page: one request without a session is followed by others
addEventListener("pageshow", () => (isLeaving = false));
let clockAhead = 0; // of this computer's clock, in ms
let isClockKnown = false;

/** An answer that says no, in words for people. */
export class Refused extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** No answer at all. */
export class Unreachable extends Error {}

/** Ask the station; a body is JSON, or a Blob as it is. The answer is what its JSON holds, or with `file` a Blob. */
export async function ask(path, { method = "GET", body, login = true, withinMs = LONGEST_MS, file = false } = {}) {
  const headers = {};
  const isFile = body instanceof Blob;
  if (body !== undefined) headers["Content-Type"] = isFile ? "application/octet-stream" : "application/json";
  if (csrf !== null && method !== "GET") headers["X-CSRF-Token"] = csrf;
  const began = Date.now();
  let answer;
  let content;
  try {
    answer = await fetch(path, {
      method, headers, body: body === undefined || isFile ? body : JSON.stringify(body), signal: timeout(withinMs), cache: "no-store",
    });
    content = await (file && answer.ok ? answer.blob() : answer.text());
  } catch {
    throw new Unreachable(text("problem.unreachable"));
  }
  readClock(answer.headers.get("date"), began);
  if (answer.ok) return file ? content : content === "" ? null : JSON.parse(content);
  if (answer.status === 401 && login) return toLogin();
  const error = detail(content);
  throw new Refused(answer.status, error.code, errorWords(error) ?? text("problem.status", { status: answer.status }),
    answer.headers.get("retry-after"));
}

/** Who I am; remembers the token that a session needs to change anything. */
export async function whoAmI(options) {
  const me = await ask("/v1/me", options);
  csrf = me.csrf;
  return me;
}

/** Leave for the login page and come back here; never returns. */
export function toLogin() {
  const here = location.pathname + location.search;
  if (!isLeaving) location.replace(`/login?next=${encodeURIComponent(here)}`);
  isLeaving = true;
  return new Promise(() => {});
}

/** End the session and leave for the login page. */
export async function logOut() {
  isLeaving = true;
  await ask("/v1/logout", { method: "POST", login: false }).catch(() => {});
  location.assign("/login");
}

/** The station's time in ms since 1970: its clock and this computer's may differ. */
export function stationNow() {
  return Date.now() - clockAhead;
}

/** A query without what is empty, `?` in front. */
export function query(values) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== null && value !== undefined && value !== "") parameters.set(name, value);
  const found = parameters.toString();
  return found ? `?${found}` : "";
}

function timeout(ms) {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), ms);
  return controller.signal;
}

function detail(content) {
  try {
    return JSON.parse(content).error ?? {};
  } catch {
    return {};
  }
}

/** The header Date is cut to the second: the error is at most a second and the way; only clear differences count. */
function readClock(header, began) {
  const sent = Date.parse(header);
  if (Number.isNaN(sent) || isClockKnown) return;
  const ahead = (began + Date.now()) / 2 - (sent + 500);
  clockAhead = Math.abs(ahead) > 2000 ? ahead : 0;
  isClockKnown = true;
  setTimeout(() => (isClockKnown = false), 60000);
}
