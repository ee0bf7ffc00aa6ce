// A device: who is connected as it, what waits for it, and what can be done about it.

import { action, card, h, problemBox, say, setText } from "./dom.js";
import { clock, count, duration, short } from "./format.js";
import { historyCard } from "./history-card.js";
import { isAfter } from "./ids.js";
import { careful, publishCard } from "./publish-card.js";
import { call, get, pathOf } from "./service.js";
import { table } from "./table.js";

const POLL_MS = 1500;

export function open(root, { rest: [name] }, scope) {
  const stream = `device:${name}`;
  const state = { acked: null, last: null };
  const chip = h("span", { class: "chip" }, "…");
  const facts = Object.fromEntries(["Region", "Pending", "Acknowledged to", "Newest event"].map((label) => [label, h("dd", {}, "…")]));
  const problem = problemBox();
  const done = h("p", { class: "note", role: "status" });
  const connections = table(["Connection", "Node", "Transport", "Since"], "Nobody is connected as this device.");

  const history = historyCard({
    stream,
    title: "Inbox",
    scope,
    empty: "Nothing was published to this device, or nothing of it is kept.",
    extra: ({ id }) =>
      id && isAfter(id, state.acked)
        ? [h("span", { class: "tag wait" }, "pending"), action("Acknowledge", () => acknowledge(id), { title: "This event and all before it" })]
        : h("span", { class: "tag good" }, "acknowledged"),
  });

  /** Does something to the device and says what came of it. */
  async function act(run, words) {
    try {
      const said = await run();
      say(problem, null);
      setText(done, words(said));
      await poll();
    } catch (error) {
      say(problem, error.message);
    }
  }

  const json = async (answer) => (await answer).json();
  const acknowledge = (id) =>
    act(() => call("POST", `${pathOf(stream)}/ack`, { body: JSON.stringify({ id }), headers: { "Content-Type": "application/json" } }), () => `Acknowledged up to ${id}.`);
  const kick = () => act(() => json(call("DELETE", `${pathOf(stream)}/connections`)), ({ closed }) => `${closed} closed.`);
  const revoke = () =>
    act(
      () => json(call("POST", "v1/revocations", { body: JSON.stringify({ device: name }), headers: { "Content-Type": "application/json" } })),
      ({ expires }) => `Tokens that were issued until now are refused until ${clock(expires * 1000)}.`,
    );
  const erase = () =>
    act(() => call("DELETE", pathOf(stream)), () => {
      history.refresh();
      return "Erased.";
    });

  async function poll() {
    try {
      show(await get(pathOf(stream), {}, scope.signal));
    } catch (error) {
      if (!scope.ended) say(problem, error.message);
    }
  }

  function show(device) {
    setText(chip, device.online ? "online" : "offline");
    chip.className = device.online ? "chip good" : "chip";
    setText(facts.Region, device.region);
    setText(facts.Pending, count(device.pending));
    setText(facts["Acknowledged to"], device.acked ?? "nothing yet");
    setText(facts["Newest event"], device.last === "0-0" ? "none yet" : device.last);
    connections.show(device.connections.map(({ id, node, transport, since }) => [mono(short(id), id), mono(short(node), node), transport, `${clock(since)} (${duration(Date.now() - Date.parse(since))})`]));
    const moved = device.acked !== state.acked || device.last !== state.last;
    const newer = device.last !== state.last;
    Object.assign(state, { acked: device.acked, last: device.last });
    if (newer && history.isNewest()) history.refresh();
    else if (moved) history.redraw();
  }

  history.refresh();
  const refresh = scope.every(POLL_MS, poll);
  root.append(
    h("div", { class: "title" }, h("h1", {}, h("span", { class: "kind" }, "device:"), name), chip,
      h("span", { class: "tools" },
        careful("Kick", `Close all connections of ${stream}? Its clients are asked not to come back.`, kick),
        careful("Revoke tokens", `Refuse all tokens that ${stream} has now, for a day?`, revoke),
        careful("Erase", `Erase the events and the state of ${stream}?`, erase))),
    problem,
    done,
    h("div", { class: "columns" },
      h("div", {}, card(null, h("dl", { class: "facts" }, Object.entries(facts).map(([label, value]) => h("div", {}, h("dt", {}, label), value)))), card("Connections", connections.element), publishCard(stream, refresh)),
      history.element),
  );
}

export const mono = (text, title) => h("code", { title }, text);
