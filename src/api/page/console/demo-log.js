// A list of what came, newest first. Rows enter the document in bunches: a busy topic must not cost a layout for each.

import { h } from "./dom.js";

const ROWS = 500;
const SHOWN_CHARACTERS = 2000; // of one event's data
const TAGS = { twice: "duplicate", back: "caught up", ephemeral: "not stored" };

export class Log {
  #pending = []; // rows that are not in the document yet, oldest first
  #flushing = 0;

  constructor(label, emptyWords) {
    this.empty = h("p", { class: "empty" }, emptyWords);
    this.list = h("ol", { class: "log", role: "log", "aria-live": "off", "aria-label": label, tabindex: 0 });
  }

  row(kind, { id, type, data }) {
    const shown = data.length > SHOWN_CHARACTERS ? `${data.slice(0, SHOWN_CHARACTERS)}…` : data;
    const typed = type && type !== "message" && h("span", { class: "type" }, type);
    this.#queue(h("li", { class: kind }, h("span", { class: "id" }, id ?? "–"), typed, h("span", { class: "data" }, shown), TAGS[kind] && h("span", { class: "tag" }, TAGS[kind])));
  }

  mark(kind, words) {
    this.#queue(h("li", { class: `mark-row ${kind}` }, words));
  }

  clear() {
    this.#pending = [];
    this.list.replaceChildren();
    this.empty.hidden = false;
  }

  #queue(row) {
    this.#pending.push(row);
    if (this.#pending.length > ROWS) this.#pending.shift();
    this.#flushing ||= setTimeout(() => this.#flush(), 40);
  }

  #flush() {
    const { list } = this;
    this.#flushing = 0;
    const atTop = list.scrollTop < 8;
    const height = list.scrollHeight;
    list.prepend(...this.#pending.reverse());
    this.#pending = [];
    while (list.childElementCount > ROWS) list.lastElementChild.remove();
    // Whoever has scrolled down to read keeps the place.
    list.scrollTop = atTop ? 0 : list.scrollTop + Math.max(0, list.scrollHeight - height);
    this.empty.hidden = list.querySelector("li:not(.mark-row)") !== null;
  }
}
