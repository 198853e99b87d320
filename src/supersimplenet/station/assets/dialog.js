// Dialogs with a form.

import { showProblem } from "./frame.js";

/** Open the dialog of a form. */
export function openDialog(form) {
  showProblem(null, form.querySelector(".problem"));
  form.closest("dialog").showModal();
}

/** `send` does what the form says, and returns what follows when the dialog is closed. */
export function onSubmit(form, send) {
  const dialog = form.closest("dialog");
  const button = form.querySelector("[type=submit]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const then = await send();
      dialog.close();
      then();
    } catch (error) {
      showProblem(error, form.querySelector(".problem"));
    } finally {
      button.disabled = false;
    }
  });
  form.querySelector(".cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => form.reset()); // passwords are not left in it
}
