// The history of a stream: newest first, a page at a time, with the events that come while it is open.

import { action, h, problemBox, say } from "./dom.js";
import { eventRow } from "./events.js";
import { plural } from "./format.js";
import { isAfter } from "./ids.js";
import { current, remember } from "./route.js";
import { get, pathOf } from "./service.js";

const PAGE = 50;
const SHOWN = 200; // rows of the newest page, which grows with what comes

/**
 * A card with the history. `extra(event)` gives what stands at the end of a row. `refresh` reads again, `add` puts a
 * live event in front while the newest page is shown.
 */
export function historyCard({ stream, title, scope, extra = () => [], empty }) {
  const list = h("ol", { class: "events tall", tabindex: 0, "aria-label": title });
  const problem = problemBox();
  const none = h("p", { class: "empty", hidden: true }, empty);
  const about = h("span", { class: "hint", role: "status" });
  const older = action("Older", () => turn(oldest), { class: "quiet small older" });
  const newest = action("Newest", () => turn(null), { class: "quiet small newest" });
  const filter = h("select", { "aria-label": "Type of the events that are shown", onchange: () => choose(filter.value) });
  let before = current().query.get("before");
  let wanted = current().query.get("type") ?? "";
  let oldest = null;
  let events = [];
  let serial = 0; // of the newest read: an answer that was overtaken is dropped

  const element = h(
    "section",
    { class: "card history" },
    h("div", { class: "heading" }, h("h2", {}, title), about, h("span", { class: "tools" }, filter, newest, older)),
    problem,
    none,
    list,
  );

  async function read() {
    const mine = ++serial;
    try {
      const page = await get(`${pathOf(stream)}/events`, { limit: PAGE, before: before ?? "now" }, scope.signal);
      if (mine !== serial) return;
      say(problem, page.gap && `Events after ${page.gap.after} and before ${page.gap.next} are gone (${page.gap.reason}).`);
      events = page.events.reverse();
      oldest = events.at(-1)?.id ?? null;
      show();
    } catch (error) {
      if (mine === serial && !scope.ended) say(problem, error.message);
    }
  }

  function show() {
    const types = [...new Set(events.map(({ type }) => type)), ...(wanted ? [wanted] : [])];
    const options = [["", "every type"], ...[...new Set(types)].sort().map((type) => [type, type])];
    filter.replaceChildren(...options.map(([value, text]) => h("option", { value, selected: value === wanted }, text)));
    const shown = events.filter(({ type }) => !wanted || type === wanted);
    list.replaceChildren(...shown.map(row));
    none.hidden = shown.length > 0;
    about.textContent = before ? `${plural(shown.length, "event")} before ${before}` : shown.length ? "newest first, live" : "";
    newest.hidden = !before;
    older.hidden = events.length < PAGE;
  }

  const row = (event) => eventRow(stream, event, ...[extra(event)].flat());

  function turn(to) {
    before = to;
    remember({ before });
    return read();
  }

  function choose(type) {
    wanted = type;
    remember({ type });
    show();
  }

  /** A live event, in its place in front. Ephemeral ones have no id and are shown as they come. */
  function add(event) {
    if (before || (event.id && !isAfter(event.id, events.find(({ id }) => id)?.id))) return;
    events.unshift(event);
    events.length = Math.min(events.length, SHOWN);
    oldest = events.at(-1)?.id ?? oldest;
    show();
  }

  return { element, refresh: read, redraw: show, add, isNewest: () => !before };
}
