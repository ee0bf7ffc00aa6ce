// A device: who is connected as it, what waits for it, and what can be done about it.

import { action, card, facts, h, problemBox, setText } from "./dom.js";
import { clock, count, duration, short } from "./format.js";
import { historyCard } from "./history-card.js";
import { isAfter } from "./ids.js";
import { careful, publishCard } from "./publish-card.js";
import { href } from "./route.js";
import { get, pathOf, send } from "./service.js";
import { table } from "./table.js";

const POLL_MS = 1500;

export function open(root, { rest: [name] }, scope) {
  const stream = `device:${name}`;
  const state = { acked: null, last: null };
  const chip = h("span", { class: "chip" }, "…");
  const inbox = facts(["Region", "Pending", "Acknowledged to", "Newest event"]);
  const problem = problemBox();
  const refused = problemBox(); // what was asked for here, which the next poll does not answer
  const done = h("p", { class: "note", role: "status" });
  const connections = table(["Connection", "Node", "Transport", "Since"], "Nobody is connected as this device.");

  const history = historyCard({
    stream,
    title: "Inbox",
    scope,
    empty: "Nothing was published to this device, or nothing of it is kept.",
    extra: ({ id }) =>
      id && isAfter(id, state.acked)
        ? [h("span", { class: "tag wait" }, "unacknowledged"), action("Acknowledge", () => acknowledge(id), { title: "This event and all before it" })]
        : h("span", { class: "tag good" }, "acknowledged"),
  });

  /** Does something to the device and says what came of it. */
  const act = (run, words) =>
    scope.attempt(refused, async () => {
      done.replaceChildren(words(await run()));
      await poll();
    });
  const acknowledge = (id) => act(() => send("POST", `${pathOf(stream)}/ack`, { id }), () => `Acknowledged up to ${id}.`);
  const kick = () => act(() => send("DELETE", `${pathOf(stream)}/connections`), ({ closed }) => `${closed} closed.`);
  const revoke = () =>
    act(
      () => send("POST", "v1/revocations", { device: name }),
      ({ expires }) => h("span", {}, `Tokens that were issued until now are refused until ${clock(expires * 1000)}: `, h("a", { href: href("revocations", { device: name }) }, "revocations"), "."),
    );
  const erase = () => act(() => send("DELETE", pathOf(stream)).then(history.refresh), () => "Erased.");

  const poll = async () => show(await get(pathOf(stream), {}, scope.signal));

  function show(device) {
    setText(chip, device.online ? "online" : "offline");
    chip.className = device.online ? "chip good" : "chip";
    inbox.set("Region", device.region);
    inbox.set("Pending", count(device.pending));
    inbox.set("Acknowledged to", device.acked ?? "nothing yet");
    inbox.set("Newest event", device.last === "0-0" ? "none yet" : device.last);
    connections.show(device.connections.map(({ id, node, transport, since }) => [mono(short(id), id), mono(short(node), node), transport, `${clock(since)} (${duration(Date.now() - Date.parse(since))})`]));
    const moved = device.acked !== state.acked || device.last !== state.last;
    const newer = device.last !== state.last;
    Object.assign(state, { acked: device.acked, last: device.last });
    if (newer && history.isNewest()) history.refresh();
    else if (moved) history.redraw();
  }

  history.refresh();
  const refresh = scope.every(POLL_MS, () => scope.attempt(problem, poll));
  root.append(
    h("div", { class: "title" }, h("h1", {}, h("span", { class: "kind" }, "device:"), name), chip,
      h("span", { class: "tools" },
        careful("Kick", `Close all connections of ${stream}? Its clients are asked not to come back.`, kick),
        careful("Revoke tokens", `Refuse all tokens that ${stream} has now, for a day?`, revoke),
        careful("Erase", `Erase the events and the state of ${stream}?`, erase))),
    problem,
    refused,
    done,
    h("div", { class: "columns" },
      h("div", {}, card(null, inbox.element), card("Connections", connections.element), publishCard(stream, refresh)),
      history.element),
  );
}

const mono = (text, title) => h("code", { title }, text);
