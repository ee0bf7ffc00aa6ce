// The form that publishes to a stream.

import { action, field, h, problemBox, say } from "./dom.js";
import { plural } from "./format.js";
import { eventHref } from "./route.js";
import { publish } from "./service.js";

export function publishCard(stream, onPublished = () => {}) {
  const data = h("textarea", { name: "data", rows: 3, spellcheck: "false" }, '{"hello": "world"}');
  const type = h("input", { name: "type", placeholder: "message", maxlength: 128, spellcheck: "false", autocapitalize: "off" });
  const ttl = h("input", { name: "ttl", type: "number", min: 1, placeholder: "none" });
  const collapse = h("input", { name: "collapse", placeholder: "none", spellcheck: "false", autocapitalize: "off" });
  const kind = h("select", { name: "kind" }, h("option", { value: "json" }, "JSON"), h("option", { value: "text" }, "text"));
  const ephemeral = h("input", { type: "checkbox", name: "ephemeral" });
  const done = h("p", { class: "note", role: "status" });
  const problem = problemBox();
  const send = h("button", { type: "submit" }, "Publish");

  async function submit(event) {
    event.preventDefault();
    const body = data.value;
    if (kind.value === "json" && !isJson(body)) {
      return say(problem, "The data is not JSON. Choose text to publish it as a string.");
    }
    send.disabled = true;
    const sent = Date.now();
    try {
      const options = { type: type.value, ttl: ttl.value, collapse: collapse.value, ephemeral: ephemeral.checked || null };
      const published = await publish(stream, body, { ...options, asText: kind.value === "text" });
      say(problem, null);
      const nodes = plural(published.nodes, "node");
      const times = { sent, stored: Date.now() };
      done.replaceChildren(
        ...(published.id
          ? ["Stored as ", h("a", { class: "follow", href: eventHref(stream, published.id, times) }, published.id), `, ${nodes} notified. Follow it by its id.`]
          : [`Not stored; ${nodes} notified.`]),
      );
      onPublished(published);
    } catch (error) {
      say(problem, `Not published. ${error.message}`);
    } finally {
      send.disabled = false;
    }
  }

  const form = h(
    "form",
    { class: "publish-form", autocomplete: "off", onsubmit: submit },
    field("Data", data),
    h("div", { class: "fields" }, field("Sent as", kind), field("Type", type, "field grow"), field("TTL, seconds", ttl), field("Collapse key", collapse, "field grow")),
    h("div", { class: "row" }, h("label", { class: "check" }, ephemeral, "ephemeral: not stored"), send),
  );
  return h("section", { class: "card" }, h("h2", {}, "Publish"), form, done, problem);
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** A button that asks once more before it does what can't be undone. */
export function careful(text, question, run) {
  return action(text, async () => confirm(question) && run(), { class: "quiet small grave" });
}
