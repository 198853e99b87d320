// The dialogs of the page Users: a user, a token of a machine.

import { ask } from "./api.js";
import { onSubmit, openDialog } from "./dialog.js";
import { byId, element } from "./dom.js";
import { text } from "./texts.js";

const ROLES = ["operator", "engineer", "admin"];

/** The dialog to add and to change a user; `saved` is called with what to say, and where the focus belongs. */
export function userForm({ me, saved }) {
  const form = byId("user-form");
  let user = null; // null: a new one

  const open = (title, roles, role) => {
    const isNew = user === null;
    const isSelf = user?.name === me.name;
    form.reset();
    offerRoles("user-role", roles, role);
    byId("user-title").textContent = title;
    byId("user-name-field").hidden = !isNew;
    byId("user-name").required = isNew;
    byId("user-disabled-field").hidden = isNew;
    byId("user-disabled").checked = user?.disabled ?? false;
    byId("user-old-field").hidden = !isSelf;
    byId("user-password").required = byId("user-again").required = isNew;
    byId("user-password-label").textContent = text(isNew ? "users.password" : "users.password.new");
    byId("user-password-hint").textContent = text(isNew ? "users.password.hint" : "users.password.stays");
    openDialog(form);
  };
  onSubmit(form, async () => {
    const role = byId("user-role").value;
    const password = byId("user-password").value;
    if (password !== byId("user-again").value) {
      byId("user-again").value = "";
      byId("user-again").focus();
      throw new Error(text("users.password.differ"));
    }
    if (user === null) {
      const name = byId("user-name").value;
      await ask("/v1/users", { method: "POST", body: { name, role, password } });
      return () => saved(text("users.added", { name }), "#add-user");
    }
    const disabled = byId("user-disabled").checked;
    const body = {
      ...(role !== user.role && { role }),
      ...(disabled !== user.disabled && { disabled }),
      ...(password !== "" && { password }),
      ...(password !== "" && user.name === me.name && { old_password: byId("user-old").value }),
    };
    const { name } = user;
    const isChanged = Object.keys(body).length > 0;
    if (isChanged) await ask(`/v1/users/${encodeURIComponent(name)}`, { method: "PATCH", body });
    const words = text(isChanged ? "users.changed" : "users.unchanged", { name });
    return () => saved(words, `[data-user="${CSS.escape(name)}"] button`);
  });
  return {
    add: ({ isFirst }) => {
      user = null;
      if (isFirst) open(text("users.add"), ["admin"], "admin");
      else open(text("users.add"), ROLES, "operator");
    },
    change: (chosen) => {
      user = chosen;
      open(text("users.change.label", { name: user.name }), ROLES, user.role);
    },
  };
}

/** The dialogs to add a token, which is shown once, and to revoke one. */
export function tokenForm({ saved }) {
  const form = byId("token-form");
  const shown = byId("shown-token");
  let name = null;

  onSubmit(form, async () => {
    const body = { name: byId("token-name").value, role: byId("token-role").value };
    const added = await ask("/v1/tokens", { method: "POST", body });
    return () => {
      shown.value = added.token;
      byId("shown-title").textContent = text("tokens.shown.title", { name: added.name });
      byId("copied").textContent = "";
      byId("shown-dialog").showModal();
      byId("copy").focus();
      byId("shown-dialog").addEventListener("close", () => {
        shown.value = "";
        saved(text("tokens.added", { name: added.name }), "#add-token");
      }, { once: true });
    };
  });
  byId("copy").addEventListener("click", async () => {
    shown.select();
    // Without TLS, browsers offer the clipboard to pages of this computer alone; the older way works there.
    const isCopied = await (navigator.clipboard?.writeText(shown.value).then(() => true, () => false) ?? false)
      || document.execCommand("copy");
    byId("copied").textContent = text(isCopied ? "tokens.copied" : "tokens.uncopied");
  });
  onSubmit(byId("revoke-form"), async () => {
    await ask(`/v1/tokens/${encodeURIComponent(name)}`, { method: "DELETE" });
    return () => saved(text("tokens.revoked", { name }), "#add-token");
  });
  return {
    add: () => {
      form.reset();
      offerRoles("token-role", ROLES, "operator");
      openDialog(form);
    },
    revoke: (token) => {
      ({ name } = token);
      byId("revoke-title").textContent = text("tokens.revoke.ask", { name });
      openDialog(byId("revoke-form"));
    },
  };
}

/** The roles that may be chosen, and what the chosen one may do; after a reset of the form, which takes the first. */
function offerRoles(id, roles, chosen) {
  const choice = byId(id);
  const explain = () => (byId(`${id}-hint`).textContent = text(`role.${choice.value}.may`));
  choice.replaceChildren(...roles.map((role) => element("option", { value: role }, text(`role.${role}`))));
  choice.value = chosen;
  choice.onchange = explain;
  explain();
}
