// The field that finds a device or a topic, from anywhere with the key `/`.

import { h } from "./dom.js";
import { go, href } from "./route.js";

export function findForm() {
  const kind = h("select", { "aria-label": "What to find" }, h("option", { value: "device" }, "device:"), h("option", { value: "topic" }, "topic:"));
  const name = h("input", { type: "search", "aria-label": "Name of a device or topic", placeholder: "name", maxlength: 207, required: true, spellcheck: "false", autocapitalize: "off" });
  const form = h("form", { class: "find", role: "search", autocomplete: "off" }, kind, name, h("kbd", { "aria-hidden": "true" }, "/"), h("button", { type: "submit" }, "Find"));

  // A whole stream may be typed or pasted.
  name.addEventListener("input", () => {
    const [, given, rest] = /^(device|topic):(.*)$/.exec(name.value) ?? [];
    if (!given) return;
    kind.value = given;
    name.value = rest;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const to = href(kind.value, name.value.trim());
    name.value = "";
    name.blur();
    go(to);
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      name.focus();
    }
    if (event.key === "Escape" && event.target === name) name.blur();
  });
  return form;
}
