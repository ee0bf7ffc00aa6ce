// A topic: who follows it, who is a member, and its events as they come.

import { action, card, facts, h, problemBox } from "./dom.js";
import { clock, count, short } from "./format.js";
import { historyCard } from "./history-card.js";
import { careful, publishCard } from "./publish-card.js";
import { href } from "./route.js";
import { follow, get, pathOf, send } from "./service.js";
import { pagedTable } from "./table.js";

const POLL_MS = 3000;
const RESERVED = "whimbrel:"; // topics that only the service publishes to

export async function open(root, { rest: [name] }, scope) {
  const stream = `topic:${name}`;
  const path = pathOf(stream);
  const chip = h("span", { class: "chip", role: "status" }, "connecting");
  const counts = facts(["Connections", "Nodes", "Silent nodes"]);
  const problem = problemBox();
  const refused = problemBox();
  const history = historyCard({ stream, title: "Events", scope, empty: "Nothing was published to this topic, or nothing of it is kept." });
  const code = (text, title) => h("code", { title }, text);
  const device = (id) => (id ? h("a", { href: href("device", id) }, id) : "–");
  const followers = pagedTable({
    heads: ["Device", "Transport", "Node", "Connection"],
    empty: "Nobody follows this topic.",
    read: (after) => get(`${path}/connections`, { limit: 10, after }, scope.signal),
    rows: ({ connections }) => connections.map(({ id, node, transport, device: of }) => [device(of), transport, code(short(node), node), code(short(id), id)]),
  });
  const members = pagedTable({
    heads: ["Device", "Connections", "Since", "Info"],
    empty: "No device is a member.",
    read: (after) => get(`${path}/members`, { limit: 10, after }, scope.signal),
    rows: ({ members: all }) => all.map(({ device: of, connections, since, info }) => [device(of), count(connections), clock(since), info ? code(JSON.stringify(info)) : "–"]),
  });

  const poll = () =>
    scope.attempt(problem, async () => {
      const topic = await get(path, {}, scope.signal);
      counts.set("Connections", count(topic.connections));
      counts.set("Nodes", count(topic.nodes));
      counts.set("Silent nodes", topic.silent.length ? topic.silent.map(short).join(", ") : "none");
      await Promise.all([followers.refresh(), members.refresh()]);
    });
  const erase = () => scope.attempt(refused, () => send("DELETE", path).then(history.refresh));

  root.append(
    h("div", { class: "title" }, h("h1", {}, h("span", { class: "kind" }, "topic:"), name), chip,
      h("span", { class: "tools" }, action("Cut and resume", () => location.assign(href("demo", { topic: name }))), careful("Erase", `Erase the events of ${stream}?`, erase))),
    problem,
    refused,
    h("div", { class: "columns" },
      h("div", {},
        card(null, counts.element, h("p", { class: "hint" }, "This page is one of the connections.")),
        name.startsWith(RESERVED) ? null : publishCard(stream),
        card("Members", members.element),
        card("Followers", followers.element)),
      history.element),
  );
  history.refresh();
  scope.every(POLL_MS, poll);
  const client = await follow({
    streams: [stream],
    onStatus: (status) => {
      chip.textContent = status === "open" ? "live" : status;
      chip.className = status === "open" ? "chip good" : "chip warn";
      if (status === "open") history.refresh();
    },
    onGap: () => history.refresh(),
    onError: () => {},
  });
  scope.onEnd(() => client.close());
  client.on("*", history.add);
}
