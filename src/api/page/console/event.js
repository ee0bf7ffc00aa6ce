// One event, from publish to acknowledgement, with times.

import { action, card, h, problemBox, setText } from "./dom.js";
import { clock, milliseconds } from "./format.js";
import { timeOf } from "./ids.js";
import { streamHref } from "./route.js";
import { get, pathOf, send } from "./service.js";

const WAIT_SECONDS = 30; // a request waits so long for the acknowledgement
const LOOK_MS = 500;

const STEPS = {
  sent: "Published",
  stored: "Stored and answered",
  told: "Sent to a connection server whose clients follow the stream",
  acknowledged: "Acknowledged by the device",
};

export function open(root, { rest: [stream, id], query }, scope) {
  const path = `${pathOf(stream)}/events/${encodeURIComponent(id)}`;
  const isDevice = stream.startsWith("device:");
  const opened = Date.now();
  // This page's clock, where the event was published on the page; otherwise only the store's is known.
  const times = { sent: Number(query.get("sent")) || null, stored: Number(query.get("stored")) || null };
  const list = h("ol", { class: "steps" });
  const facts = h("dl", { class: "facts" });
  const data = h("pre", { class: "whole", tabindex: 0, "aria-label": "The event's data" });
  const chip = h("span", { class: "chip", role: "status" }, "…");
  const problem = problemBox();
  const refused = problemBox();
  let reached = null;

  function enter({ status, type, time, data: value }) {
    const steps = Object.keys(STEPS);
    for (const step of steps.slice(1, steps.indexOf(status) + 1)) times[step] ??= Date.now();
    reached = status;
    setText(chip, status === "told" ? "sent to a connection server" : status);
    chip.className = status === "stored" ? "chip" : "chip good";
    setText(data, JSON.stringify(value, null, 2));
    const shown = { Stream: h("a", { href: streamHref(stream) }, stream), Type: type, "Stored at": clock(time), Id: id };
    facts.replaceChildren(...Object.entries(shown).map(([name, words]) => h("div", {}, h("dt", {}, name), h("dd", { class: "mono" }, words))));
    drawSteps(list, { times, reached, isDevice, opened, storedAt: timeOf(id) });
    acknowledge.hidden = !isDevice || status === "acknowledged";
  }

  const look = (wait) => scope.attempt(problem, async () => enter(await get(path, { wait }, scope.signal)));

  const acknowledge = action("Acknowledge as the device", () => scope.attempt(refused, () => send("POST", `${pathOf(stream)}/ack`, { id })));
  acknowledge.hidden = true;

  root.append(
    h("div", { class: "title" }, h("h1", {}, h("span", { class: "kind" }, "event"), id), chip, h("span", { class: "tools" }, acknowledge)),
    problem,
    refused,
    h("div", { class: "halves" }, card("How far it got", list), card("The event", facts, data)),
  );

  // A look sees when a connection server is reached; a request that waits brings the acknowledgement at once.
  scope.every(LOOK_MS, () => (reached === null || reached === "stored" ? look() : null));
  if (isDevice) scope.every(LOOK_MS, () => (reached === "acknowledged" ? null : look(WAIT_SECONDS)));
}

function drawSteps(list, { times, reached, isDevice, opened, storedAt }) {
  const begin = times.sent ?? storedAt;
  const names = Object.keys(STEPS).filter((step) => (step !== "acknowledged" || isDevice) && (step !== "sent" || times.sent));
  const done = (step) => step === "sent" || Object.keys(STEPS).indexOf(step) <= Object.keys(STEPS).indexOf(reached);
  const when = (step) => {
    if (!done(step)) return "not yet";
    if (step === "stored" && !times.sent) return `${clock(storedAt)} on the store's clock`;
    // What had been reached when this page opened was reached at a time that it can't know.
    const known = times.sent || times[step] - opened > 1500;
    const since = times[step] - begin;
    return known ? `${clock(times[step])}, after ${milliseconds(Math.max(0, since))}` : "before this page was opened";
  };
  list.replaceChildren(...names.map((step) => h("li", { class: done(step) ? "done" : "open" }, h("b", {}, STEPS[step]), h("span", {}, when(step)))));
}
