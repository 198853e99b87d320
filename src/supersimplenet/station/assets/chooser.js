// The choice of one product, where there are several; it is in the address, so that it can be sent to others.

import { query } from "./api.js";
import { byId, element } from "./dom.js";

/** Offer the products and return the chosen one; `changed` is called with another one. */
export function chooseProduct(names, changed) {
  const named = new URL(location.href).searchParams.get("product");
  const choice = byId("product");
  choice.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  choice.value = names.includes(named) ? named : names[0];
  byId("chooser").hidden = names.length < 2;
  choice.addEventListener("change", () => {
    history.replaceState(null, "", `${location.pathname}${query({ product: choice.value })}`);
    changed(choice.value);
  });
  return choice.value;
}
