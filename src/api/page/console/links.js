// Links: how many events go from node to node past the store's channels.

import { Samples, chart } from "./chart.js";
import { card, facts, h, problemBox } from "./dom.js";
import { count } from "./format.js";
import { Rates, parseMetrics } from "./metrics.js";
import { text } from "./service.js";

const POLL_MS = 2000;
const FIGURES = {
  "Open from here": "link_open",
  "Open to here": "link_accepted",
  Opened: "link_opened_total",
  "Opened ahead": "link_opened_ahead_total",
  "Of these used": "link_opened_ahead_used_total",
  "Never used": "link_opened_unused_total",
  Evicted: "link_evicted_total",
  Failures: "link_failures_total",
};
const RATES = { "over a link": "link_hits_total", "over the channel": "link_misses_total", "own clients": "link_own_events_total", "fallen back": "link_fallbacks_total" };

const samples = new Samples();
const rates = new Rates();

export function open(root, place, scope) {
  const totals = facts(Object.keys(FIGURES));
  const problem = problemBox();
  const { element, draw } = chart({ title: "Events sent to nodes", note: "a second, this node", samples });
  root.append(
    h("div", { class: "title" }, h("h1", {}, "Links")),
    problem,
    card(null, totals.element, h("p", { class: "hint" }, "Nodes open links where they have WHIMBREL_LINK_LISTEN.")),
    element,
  );

  scope.every(POLL_MS, () =>
    scope.attempt(problem, async () => {
      const sums = parseMetrics(await text("metrics", scope.signal));
      for (const [name, figure] of Object.entries(FIGURES)) totals.set(name, count(sums.get(figure) ?? 0));
      const rate = rates.sample(sums);
      samples.push(Object.fromEntries(Object.entries(RATES).map(([name, figure]) => [name, rate(figure)])));
      draw();
    }),
  );
}
