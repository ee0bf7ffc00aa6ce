// How the service is: nodes, regions, what this node does, and who comes and goes.

import { Samples, chart } from "./chart.js";
import { card, facts, h, problemBox, say, setText } from "./dom.js";
import { compact, count, short } from "./format.js";
import { latencyCard } from "./latency-card.js";
import { lifecycleRow } from "./lifecycle.js";
import { Rates, parseMetrics } from "./metrics.js";
import { href } from "./route.js";
import { follow, get, text } from "./service.js";
import { table } from "./table.js";

const POLL_MS = 2000;
const NODES_IN_CHART = 6;
const LATEST = 8;

// What was sampled before stays when the page is left and opened again.
const connections = new Samples();
const published = new Samples();
const delivered = new Samples();
const rates = new Rates();

const TILES = ["Nodes", "Connections", "Streams", "Published", "Delivered", "Store"];

export async function open(root, place, scope) {
  const tiles = facts(TILES, "tiles");
  const problem = problemBox();
  const trouble = problemBox();
  const nodes = table(["Node", "Region", "Address", "Version", "Connections", "Streams"], "No node has a lease.");
  const regions = table(["Region", "Store", "State", "Nodes"], "No region.");
  const charts = [
    chart({ title: "Connections", note: "by node", samples: connections }),
    chart({ title: "Published", note: "events a second, this node", samples: published }),
    chart({ title: "Delivered", note: "events a second, this node", samples: delivered }),
  ];
  const latest = h("ol", { class: "events" });
  const none = h("p", { class: "empty" }, "No device has connected yet.");

  root.append(
    h("div", { class: "title" }, h("h1", {}, "Overview")),
    problem,
    trouble,
    tiles.element,
    h("div", { class: "charts" }, charts.map(({ element }) => element), latencyCard(place, scope)),
    card("Nodes", nodes.element),
    h("div", { class: "halves" },
      card("Regions", regions.element),
      h("section", { class: "card" }, h("div", { class: "heading" }, h("h2", {}, "Latest connects and disconnects"), h("a", { href: href("lifecycle") }, "all")), none, latest)),
  );

  async function poll() {
    const asked = [get("v1/nodes", {}, scope.signal), get("v1/regions", {}, scope.signal), text("metrics", scope.signal), readiness(scope)];
    const [known, places, figures, ready] = await Promise.allSettled(asked);
    if (scope.ended) return;
    const failed = [known, places, figures].find(({ status }) => status === "rejected");
    say(problem, failed?.reason.message);
    if (known.value) showNodes(known.value, tiles, nodes);
    if (places.value) showRegions(places.value, known.value?.nodes ?? [], regions);
    if (figures.value) showRates(parseMetrics(figures.value), tiles);
    if (ready.value) showStore(ready.value, tiles.values.Store, trouble);
    for (const { draw } of charts) draw();
  }
  scope.every(POLL_MS, poll);

  const feed = await follow({ streams: ["topic:whimbrel:lifecycle"], after: `last:${LATEST}`, onStatus: (status) => status === "closed" && feed.error && setText(none, feed.error.message), onGap: () => {}, onError: () => {} });
  scope.onEnd(() => feed.close());
  feed.on("*", (event) => {
    none.hidden = true;
    latest.prepend(lifecycleRow(event, { brief: true }));
    while (latest.childElementCount > LATEST) latest.lastElementChild.remove();
  });
}

/** A node that is not ready answers 503, with the same body. */
async function readiness({ signal }) {
  return (await fetch(new URL("health/ready", document.baseURI), { signal, cache: "no-store" })).json();
}

function showNodes({ nodes: all, silent }, tiles, rows) {
  const sum = (field) => all.reduce((total, node) => total + node[field], 0);
  tiles.set("Nodes", silent.length ? `${count(all.length)} + ${count(silent.length)} silent` : count(all.length));
  tiles.set("Connections", compact(sum("connections")));
  tiles.set("Streams", compact(sum("streams")));
  const code = (words, title) => h("code", { title }, words);
  rows.show([
    ...all.map(({ node, region, address, version, ...load }) => [code(short(node), node), region, address, version, count(load.connections), count(load.streams)]),
    ...silent.map((node) => [code(short(node), node), "–", "gives no answer", "–", "–", "–"]),
  ]);
  connections.push(byNode(all));
}

/** The busiest nodes by name, and the others as one. */
function byNode(all) {
  const busiest = all.length > NODES_IN_CHART ? [...all].sort((a, b) => b.connections - a.connections) : all;
  const own = busiest.slice(0, all.length > NODES_IN_CHART ? NODES_IN_CHART - 1 : NODES_IN_CHART);
  const others = busiest.slice(own.length);
  const values = Object.fromEntries(own.map(({ address, connections: open }) => [address, open]));
  return others.length ? { ...values, others: others.reduce((total, node) => total + node.connections, 0) } : values;
}

function showRegions({ regions: all }, nodes, rows) {
  const inRegion = ({ name }) => nodes.filter(({ region }) => region === name).length;
  const state = ({ up, error, down_seconds: seconds }) =>
    up === null
      ? h("span", { class: "tag" }, "not needed so far")
      : up
        ? h("span", { class: "tag good" }, "up")
        : h("span", { class: "tag bad", title: error }, seconds ? `down for ${seconds} s: ${error}` : `down: ${error}`);
  rows.show(all.map((region) => [region.home ? `${region.name} (home)` : region.name, h("code", {}, region.store), state(region), count(region.nodes ?? inRegion(region))]));
}

function showRates(sums, tiles) {
  const rate = rates.sample(sums);
  const [events, ephemeral, deliveries] = ["published_total", "ephemeral_total", "deliveries_total"].map(rate);
  published.push({ stored: events, ephemeral });
  delivered.push({ deliveries });
  if (events !== null) tiles.set("Published", `${compact(events)}/s`);
  if (deliveries !== null) tiles.set("Delivered", `${compact(deliveries)}/s`);
}

function showStore({ store, draining }, tile, trouble) {
  setText(tile, draining ? "draining" : store.up ? "up" : "down");
  tile.className = store.up && !draining ? "good" : "bad";
  const refused = (store.refuses ?? []).map(({ what, reason }) => `${what}: ${reason}`);
  say(trouble, !store.up ? `The store does not answer: ${store.error}` : refused.length ? `The store refuses ${refused.join("; ")}` : null);
}
