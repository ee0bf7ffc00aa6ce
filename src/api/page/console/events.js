// Events in a list: when, of which type, with what data.

import { h } from "./dom.js";
import { clock } from "./format.js";
import { timeOf } from "./ids.js";
import { eventHref } from "./route.js";

const LONG = 160; // characters that stand in one line

/** The data of an event; what is long can be opened. */
export function dataView(data, text = JSON.stringify(data)) {
  if (text.length <= LONG) return h("code", { class: "data" }, text);
  const pretty = JSON.stringify(data, null, 2) ?? text;
  return h("details", { class: "data" }, h("summary", {}, h("code", {}, `${text.slice(0, LONG)}…`)), h("pre", { tabindex: 0 }, pretty));
}

export const typeTag = (type) => h("span", { class: type === "message" ? "type plain" : "type" }, type);

/** One event of a stream; `extra` stands at the end of the row. */
export function eventRow(stream, { id, type, time, data }, ...extra) {
  const when = clock(time ?? timeOf(id));
  return h(
    "li",
    { class: "event", "data-id": id ?? "" },
    id ? h("a", { class: "when", href: eventHref(stream, id), title: id }, when) : h("span", { class: "when" }, "not stored"),
    typeTag(type ?? "message"),
    dataView(data),
    h("span", { class: "extra" }, ...extra),
  );
}
