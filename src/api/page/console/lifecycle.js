// Who comes and who leaves: the service's own lifecycle topic, live.

import { action, field, h, problemBox, say, setText } from "./dom.js";
import { clock, duration, plural, short } from "./format.js";
import { href, remember } from "./route.js";
import { follow } from "./service.js";

const STREAM = "topic:whimbrel:lifecycle";
const KEPT = 1000; // events, and connections that are open, that the page remembers
const SHOWN = 300; // rows

/** A row for an event of the topic; `lasted` is how long a connection was there, in milliseconds. */
export function lifecycleRow({ type, time, data }, { lasted, brief } = {}) {
  const came = type === "connected";
  const how = came ? data.transport : [data.reason, lasted !== undefined && `after ${duration(lasted)}`].filter(Boolean).join(", ");
  return h(
    "li",
    { class: `event life ${came ? "came" : "left"}` },
    h("span", { class: "when" }, clock(data.time ?? time)),
    h("span", { class: came ? "tag good" : "tag" }, type),
    h("a", { class: "device", href: href("device", data.device) }, data.device),
    h("span", { class: "how" }, how),
    !brief && h("code", { class: "where", title: `connection ${data.connection}, node ${data.node}` }, `${data.region} ${short(data.node ?? "")}`),
  );
}

export async function open(root, { query }, scope) {
  const events = [];
  const since = new Map(); // connection -> when it came
  let paused = false;
  let wanted = 0; // a drawing that is to come
  const list = h("ol", { class: "events tall", tabindex: 0, "aria-label": "Connects and disconnects, newest first" });
  const device = h("input", { name: "device", value: query.get("device") ?? "", placeholder: "all devices", spellcheck: "false", autocapitalize: "off" });
  const kinds = ["", "connected", "disconnected"];
  const kind = h("select", { name: "kind" }, kinds.map((value) => h("option", { value, selected: value === (query.get("type") ?? "") }, value || "both")));
  const about = h("span", { class: "hint", role: "status" });
  const chip = h("span", { class: "chip" }, "connecting");
  const problem = problemBox();
  const pause = action("Pause", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
    draw();
  }, { "aria-pressed": "false" });

  function draw() {
    wanted = 0;
    if (paused) return;
    const matches = ({ event: { type, data } }) => (!kind.value || type === kind.value) && String(data.device).includes(device.value.trim());
    const found = events.filter(matches);
    list.replaceChildren(...found.slice(0, SHOWN).map(({ event, lasted }) => lifecycleRow(event, { lasted })));
    setText(about, `${plural(found.length, "event")} of the newest ${events.length}`);
  }

  const filter = () => {
    remember({ device: device.value.trim(), type: kind.value });
    draw();
  };
  device.addEventListener("input", filter);
  kind.addEventListener("change", filter);

  root.append(
    h("div", { class: "title" }, h("h1", {}, "Connects and disconnects"), chip),
    problem,
    h("section", { class: "card" },
      h("div", { class: "heading fields" }, field("Device contains", device, "field grow"), field("Events", kind), pause),
      about,
      list),
  );

  const client = await follow({
    streams: [STREAM],
    after: "last:500",
    onStatus: (status) => {
      chip.textContent = status === "open" ? "live" : status;
      chip.className = status === "open" ? "chip good" : "chip warn";
      if (status === "closed" && client.error) say(problem, client.error.message);
    },
    onGap: ({ reason }) => say(problem, `Some events can't be shown any more (${reason}).`),
    onError: () => {},
  });
  scope.onEnd(() => {
    client.close();
    clearTimeout(wanted);
  });
  client.on("*", (event) => {
    const { connection, time } = event.data;
    let lasted;
    if (event.type === "connected") {
      since.set(connection, Date.parse(time));
      if (since.size > KEPT) since.delete(since.keys().next().value);
    } else if (since.has(connection)) {
      lasted = Date.parse(time) - since.get(connection);
      since.delete(connection);
    }
    events.unshift({ event, lasted });
    events.length = Math.min(events.length, KEPT);
    wanted ||= setTimeout(draw, 50);
  });
}
