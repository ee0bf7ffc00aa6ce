// The ingress stream: how much waits, and what was rejected, with the reason.

import { action, card, facts, h, problemBox } from "./dom.js";
import { clock, count } from "./format.js";
import { parseMetrics } from "./metrics.js";
import { remember } from "./route.js";
import { get, text } from "./service.js";

const POLL_MS = 3000;
const PAGE = 50;
const FIGURES = {
  Waiting: "ingress_lag_entries",
  "Oldest, seconds": "ingress_lag_seconds",
  "Held back": "ingress_held",
  Placed: "ingress_published_total",
  Rejected: "ingress_rejected_total",
};

export function open(root, { query }, scope) {
  let before = query.get("before");
  let next = null;
  const figures = facts(Object.keys(FIGURES));
  const list = h("ol", { class: "events" });
  const none = h("p", { class: "empty" }, "Nothing was rejected.");
  const problem = problemBox();
  const turn = (to) => {
    before = to;
    remember({ before });
    return poll();
  };
  const newest = action("Newest", () => turn(null));
  const older = action("Older", () => turn(next));

  const poll = () =>
    scope.attempt(problem, async () => {
      const read = [get("v1/ingress/rejected", { before, limit: PAGE }, scope.signal), text("metrics", scope.signal)];
      const [page, sums] = await Promise.all([read[0], read[1].then(parseMetrics)]);
      for (const [name, figure] of Object.entries(FIGURES)) figures.set(name, count(sums.get(figure) ?? 0));
      next = page.next;
      newest.hidden = !before;
      older.hidden = !next;
      none.hidden = page.rejected.length > 0;
      const ids = page.rejected.map(({ id }) => id).join();
      if (ids !== list.dataset.ids) list.replaceChildren(...page.rejected.map(row));
      list.dataset.ids = ids;
    });

  root.append(
    h("div", { class: "title" }, h("h1", {}, "Ingress")),
    problem,
    card(null, figures.element, h("p", { class: "hint" }, "One node of a region drains what producers add; the counts are of the node that this page asks.")),
    h("section", { class: "card" }, h("div", { class: "heading" }, h("h2", {}, "Rejected entries"), h("span", { class: "hint" }, "newest first"), h("span", { class: "tools" }, newest, older)), none, list),
  );
  scope.every(POLL_MS, poll);
}

function row({ time, entry, reason, fields }) {
  const shown = fields.map(({ name, value }) => `${name} ${value}`).join("  ");
  return h("li", { class: "event rejected" }, h("span", { class: "when", title: `entry ${entry}` }, clock(time)), h("b", { class: "data" }, reason), h("code", { class: "fields-of" }, shown || "a large entry, whose fields are not kept"));
}
