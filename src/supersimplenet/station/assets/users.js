// The page of an admin: users, tokens of machines, and the audit trail.

import { ask, query } from "./api.js";
import { byId, element } from "./dom.js";
import { begin, showProblem, showSigns } from "./frame.js";
import { row, table } from "./list.js";
import { tokenForm, userForm } from "./user_forms.js";
import { dayAndTime, decimal, hasText, text, whole } from "./texts.js";

const ENTRIES = 20;
let next = null; // entries of the trail below this number are not shown yet

const me = await begin();
const isOpen = me.name === "local"; // nobody needs to log in yet
const users = userForm({ me, saved: changed });
const tokens = tokenForm({ saved: changed });

/** Show all anew after a change; `focus` finds the button at which it began. */
async function changed(words, focus) {
  await show();
  byId("done").textContent = words;
  document.querySelector(focus)?.focus();
}

async function show() {
  try {
    const [people, machines, page] = await Promise.all([ask("/v1/users"), ask("/v1/tokens"), entriesBefore(null)]);
    byId("users").replaceChildren(people.length > 0 ? table("users", COLUMNS.users, people.map(person)) : quiet("users.none"));
    byId("tokens").replaceChildren(machines.length > 0 ? table("tokens", COLUMNS.tokens, machines.map(machine)) : quiet("tokens.none"));
    byId("entries").replaceChildren(page.length > 0 ? table("audit", COLUMNS.audit, page.map(entry)) : quiet("audit.none"));
    byId("open-note").hidden = !isOpen;
    byId("machines").hidden = isOpen; // a first user comes first
    byId("people").hidden = byId("trail").hidden = false;
    showProblem(null);
  } catch (error) {
    showProblem(error);
  }
}

async function entriesBefore(before) {
  const page = await ask(`/v1/audit${query({ before, limit: ENTRIES })}`);
  next = page.next;
  byId("older").hidden = next === null;
  return page.entries;
}

byId("older").addEventListener("click", async () => {
  try {
    const rows = (await entriesBefore(next)).map(entry);
    byId("entries").querySelector("tbody").append(...rows);
    if (next !== null) return;
    rows[0].tabIndex = -1; // the button is gone
    rows[0].focus();
  } catch (error) {
    showProblem(error);
  }
});

// ----- tables

const COLUMNS = {
  users: ["name", "role", "state", "since", "change"],
  tokens: ["name", "role", "since", "change"],
  audit: ["number", "time", "who", "what", "details"],
};

function person(user) {
  const isSelf = user.name === me.name;
  return row(COLUMNS.users, { "data-user": user.name, class: user.disabled ? "is-disabled" : undefined }, {
    name: isSelf ? text("users.self", { name: user.name }) : user.name,
    role: text(`role.${user.role}`),
    state: text(user.disabled ? "users.state.disabled" : "users.state.active"),
    since: time(user.created_at),
    change: element("button", { type: "button", "aria-label": text("users.change.label", { name: user.name }),
      onclick: () => users.change(user) }, text("users.change")),
  });
}

function machine(token) {
  return row(COLUMNS.tokens, { "data-token": token.name }, {
    name: token.name,
    role: text(`role.${token.role}`),
    since: time(token.created_at),
    change: element("button", { type: "button", "aria-label": text("tokens.revoke.label", { name: token.name }),
      onclick: () => tokens.revoke(token) }, text("tokens.revoke")),
  });
}

function entry({ number, at, who, what, details }) {
  return row(COLUMNS.audit, {}, {
    number: whole(number), time: time(at),
    who: known(`audit.who.${who}`, who), what: known(`audit.what.${what}`, what),
    details: Object.entries(details).map(([name, value]) => element("span", { class: "detail" }, detail(name, value))),
  });
}

function detail(name, value) {
  const shown = shownDetail(name, value);
  return [`${known(`audit.detail.${name}`, name)}: `,
    name === "result" ? element("a", { href: `/results/${encodeURIComponent(shown)}` }, shown) : shown];
}

function shownDetail(name, value) {
  if (value === null) return text("none");
  if (typeof value === "boolean") return text(value ? "yes" : "no");
  if (typeof value === "number") return Number.isInteger(value) ? whole(value) : decimal(value, 3);
  if (name === "role" || name === "verdict") return known(`${name}.${value}`, value);
  if (name === "changed") return value.map((feature) => known(`drift.${feature}`, feature)).join(text("comma"));
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** The words for what the station names, such as "add user". */
function known(name, otherwise) {
  const key = name.replaceAll(" ", "_");
  return hasText(key) ? text(key) : otherwise;
}

function time(at) {
  const moment = new Date(at);
  return element("time", { datetime: moment.toISOString() }, dayAndTime(moment));
}

function quiet(key) {
  return element("p", { class: "quiet" }, text(key));
}

byId("add-user").addEventListener("click", () => users.add({ isFirst: isOpen }));
byId("add-token").addEventListener("click", () => tokens.add());
ask("/v1/status").then((status) => showSigns(status.signs)).catch(() => {});
await show();
