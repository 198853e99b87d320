// The page to log in.

import { ask, Refused, Unreachable, whoAmI } from "./api.js";
import { byId } from "./dom.js";
import { beginFrame, showProblem } from "./frame.js";
import { text } from "./texts.js";

beginFrame();

/** Where to go after it: a path of this station alone, whatever the address says. */
function next() {
  const wanted = new URL(location.href).searchParams.get("next") ?? "/";
  try {
    const found = new URL(wanted, location.origin);
    const isOwn = wanted.startsWith("/") && found.origin === location.origin && found.pathname !== "/login";
    return isOwn ? found.pathname + found.search : "/";
  } catch {
    return "/";
  }
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const body = { name: form.elements.name.value.trim(), password: form.elements.password.value };
    await ask("/v1/login", { method: "POST", body, login: false });
    location.replace(next());
  } catch (error) {
    button.disabled = false;
    showProblem(new Error(reason(error)));
    form.elements.password.value = "";
    form.elements.password.focus();
  }
});
byId("login").querySelector("button").disabled = false; // until here the browser itself would send the form

function reason(error) {
  if (error instanceof Refused && error.status === 401) return text("login.wrong");
  if (error instanceof Refused && error.status === 429) return text("login.wait", { seconds: error.retryAfter ?? "60" });
  return error.message;
}

try {
  await whoAmI({ login: false });
  location.replace(next()); // logged in already, or a station without users
} catch (error) {
  if (error instanceof Unreachable || error.status === 503) showProblem(error);
}
