// Links: which are open, and how many events go from node to node past the store's channels.

import { Samples, chart } from "./chart.js";
import { card, facts, h, problemBox, setText } from "./dom.js";
import { compact, count, duration, second, short } from "./format.js";
import { Rates, parseMetrics } from "./metrics.js";
import { get, text } from "./service.js";
import { table } from "./table.js";

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

// Why a link failed, in words for people.
const REASONS = {
  "no-address": "the node takes no links",
  store: "the store did not say where the node is",
  connect: "the node's address can't be reached",
  late: "the node did not answer in time",
  nonsense: "what answered is no node",
  secret: "the node has another secret",
  "other-node": "another node answered",
};

const samples = new Samples();
const rates = new Rates();

export function open(root, place, scope) {
  const totals = facts(Object.keys(FIGURES));
  const links = table(["Node", "Address", "State", "Since", "Last event", "Queue"], "No link is open.");
  const hint = h("p", { class: "hint" });
  const problem = problemBox();
  const { element, draw } = chart({ title: "Events sent to nodes", note: "a second, this node", samples });
  root.append(
    h("div", { class: "title" }, h("h1", {}, "Links")),
    problem,
    card("From this node", hint, links.element),
    element,
    card("Since the node started", totals.element),
  );

  scope.every(POLL_MS, () =>
    scope.attempt(problem, async () => {
      const asked = [get("v1/links", {}, scope.signal), get("v1/nodes", {}, scope.signal), text("metrics", scope.signal)];
      const [known, { nodes }, figures] = await Promise.all(asked);
      const addresses = new Map(nodes.map(({ node, address }) => [node, address]));
      links.show(known.links.map((link) => row(link, addresses.get(link.node))));
      setText(hint, known.enabled ? "A node opens links to the nodes that its events go to, and closes those that are idle." : "Links are off: nodes open them where they have WHIMBREL_LINK_LISTEN.");
      const sums = parseMetrics(figures);
      for (const [name, figure] of Object.entries(FIGURES)) totals.set(name, count(sums.get(figure) ?? 0));
      const rate = rates.sample(sums);
      samples.push(Object.fromEntries(Object.entries(RATES).map(([name, figure]) => [name, rate(figure)])));
      draw();
    }),
  );
}

function row({ node, state, since, used, waiting, ahead, until, reason }, address) {
  const tag = {
    open: () => h("span", { class: "tag good", title: ahead ? "opened for a device before it published" : "" }, "open"),
    opening: () => h("span", { class: "tag wait" }, "opening"),
    resting: () => h("span", {}, h("span", { class: "tag bad" }, "failed"), ` ${REASONS[reason] ?? reason}; next attempt ${Date.parse(until) > Date.now() ? `after ${second(until)}` : "with the next event"}`),
  }[state]();
  return [
    h("code", { title: node }, short(node)),
    address ?? "–",
    tag,
    since ? second(since) : "–",
    used ? `${duration(Date.now() - Date.parse(used))} ago` : state === "open" ? "none yet" : "–",
    state === "open" ? `${compact(waiting)} B` : "–",
  ];
}
