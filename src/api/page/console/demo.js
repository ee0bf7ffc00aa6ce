// The first page: follow a topic, publish to it, cut the connection, resume, and see that nothing was missed.

import { commandsCard } from "./demo-commands.js";
import { facts, field, h, problemBox, say, setText } from "./dom.js";
import { Link } from "./demo-link.js";
import { Log } from "./demo-log.js";
import { Publisher } from "./demo-publisher.js";
import { remember } from "./route.js";

const STARTS = { now: "new events", "last:20": "the last 20", earliest: "all that are kept" };

export function open(root, { query }, scope) {
  const view = build(query.get("topic") || "demo", query.get("after"));
  let link = null;
  const log = view.log;
  const publisher = new Publisher({
    stored(stream, { id, nodes }) {
      say(view.publishProblem, null);
      setText(view.published, `Stored as ${id}, ${nodes} ${nodes === 1 ? "node" : "nodes"} notified.`);
      if (stream === link.stream) link.published(id);
    },
    failed: (words) => say(view.publishProblem, `Not published. ${words}`),
  });
  const draft = () => ({ stream: link.stream, body: view.data.value, asText: view.kind() === "text", type: view.type.value || null });

  function follow() {
    link?.close();
    log.clear();
    say(view.publishProblem, null);
    remember({ topic: view.topic.value === "demo" ? null : view.topic.value, after: view.start.value === "now" ? null : view.start.value });
    link = new Link(view.topic.value, view.start.value, {
      state(state, words) {
        root.dataset.state = state;
        setText(view.state, words);
        setText(view.cut, ["live", "catching", "starting"].includes(state) ? "Cut the connection" : "Resume");
      },
      row: (kind, event) => log.row(kind, event),
      mark: (kind, words) => log.mark(kind, words),
      verdict(words, mood) {
        setText(view.verdict, words);
        view.verdict.className = `verdict ${mood}`;
      },
      problem: (words) => say(view.linkProblem, words),
      change: () => show(view, link, draft),
    });
    for (const place of view.streams) setText(place, link.stream);
    link.open();
  }

  view.followForm.addEventListener("submit", (event) => {
    event.preventDefault();
    follow();
  });
  view.publishForm.addEventListener("submit", (event) => {
    event.preventDefault();
    publisher.publish(draft());
  });
  view.publishForm.addEventListener("input", () => show(view, link, draft));
  view.burst.addEventListener("click", () => {
    for (let n = 0; n < 20; n += 1) publisher.publish(publisher.numbered(draft()));
  });
  view.ticker.addEventListener("click", () => {
    publisher.tick(publisher.isTicking ? null : () => publisher.numbered(draft()));
    view.ticker.setAttribute("aria-pressed", String(publisher.isTicking));
  });
  view.cut.addEventListener("click", () => (link.isConnected ? link.cut() : link.resume()));
  scope.onEnd(() => {
    publisher.tick(null);
    link.close();
    delete root.dataset.state;
  });

  root.append(...view.elements);
  follow();
}

function show(view, link, draft) {
  if (!link) return;
  const { cursor, received, duplicates, gaps, outage } = link;
  const known = { Position: cursor ?? "none yet", Received: received, Duplicates: duplicates, "Gap notices": gaps };
  for (const [name, value] of Object.entries(known)) view.facts.set(name, value);
  view.waiting.hidden = !outage?.isAway;
  if (outage?.isAway) setText(view.waiting, `${outage.own.size} waiting`);
  view.commands.show({ ...draft(), topic: link.topic, cursor });
}

function build(topicName, after) {
  const view = {
    log: new Log("Events, newest first", "Events appear here as they arrive. Publish one, or run the curl command."),
    commands: commandsCard(),
    topic: h("input", { name: "topic", id: "topic", value: topicName, maxlength: 200, required: true, spellcheck: "false", autocapitalize: "off" }),
    start: h("select", { name: "start" }, Object.entries(STARTS).map(([value, text]) => h("option", { value, selected: value === after }, text))),
    data: h("textarea", { name: "data", id: "data", rows: 2, spellcheck: "false" }, "Low tide at Wells"),
    type: h("input", { name: "type", placeholder: "message", maxlength: 128, spellcheck: "false", autocapitalize: "off" }),
    burst: h("button", { type: "button", class: "quiet" }, "Burst of 20"),
    ticker: h("button", { type: "button", class: "quiet", "aria-pressed": "false" }, "One every second"),
    published: h("p", { class: "note", role: "status" }, "Nothing published yet."),
    publishProblem: problemBox(),
    linkProblem: problemBox(),
    cut: h("button", { type: "button", class: "big", id: "cut" }, "Cut the connection"),
    state: h("span", {}, "Starting"),
    verdict: h("p", { class: "verdict", role: "status" }),
    waiting: h("span", { class: "waiting", hidden: true }),
    facts: facts(["Position", "Received", "Duplicates", "Gap notices"]),
    streams: [h("span", { class: "mono" }), h("span", { class: "mono" })],
  };
  view.facts.values.Position.className = "mono";
  const radio = (value, checked) => h("label", {}, h("input", { type: "radio", name: "kind", value, checked }), value === "json" ? "JSON" : value);
  view.followForm = h("form", { class: "fields", autocomplete: "off" }, field("Topic", view.topic, "field grow"), field("Begin with", view.start), h("button", { type: "submit" }, "Follow"));
  view.publishForm = h(
    "form",
    { class: "publish-form", autocomplete: "off" },
    h("label", { class: "field" }, h("span", {}, "Event for ", view.streams[0]), view.data),
    h("div", { class: "row" },
      h("fieldset", { class: "choice" }, h("legend", {}, "Sent as"), radio("text", true), radio("json", false)),
      h("label", { class: "field inline" }, h("span", {}, "Type"), view.type)),
    h("div", { class: "buttons" }, h("button", { type: "submit" }, "Publish"), view.burst, view.ticker),
  );
  view.kind = () => view.publishForm.querySelector("input[name=kind]:checked").value;
  view.elements = [h("div", { class: "title" }, h("h1", {}, "Cut the connection, publish, resume: nothing is missed")), h("div", { class: "demo" }, ...cards(view))];
  return view;
}

function cards(view) {
  const wire = h(
    "div",
    { class: "wire", "aria-hidden": "true" },
    h("span", { class: "stop" }, "Publisher"),
    h("span", { class: "line" }),
    h("span", { class: "stop store" }, view.streams[1]),
    h("span", { class: "line last" }, view.waiting),
    h("span", { class: "stop" }, "This page"),
  );
  const clear = h("button", { type: "button", class: "quiet small", onclick: () => view.log.clear() }, "Clear the list");
  return [
    h("section", { class: "card follow" }, h("h2", {}, "1. Follow a topic"), view.followForm),
    h("section", { class: "card publish" }, h("h2", {}, "2. Publish to it"), view.publishForm, view.published, view.publishProblem),
    h("section", { class: "card link" },
      h("h2", {}, "3. Cut, and resume"),
      wire,
      h("div", { class: "switch" }, view.cut, h("p", { class: "state", role: "status" }, h("span", { class: "dot", "aria-hidden": "true" }), view.state)),
      view.verdict,
      view.linkProblem,
      view.facts.element),
    h("section", { class: "card received" },
      h("div", { class: "heading" }, h("h2", {}, "Events"), h("span", { class: "hint" }, "of every type, newest first"), clear),
      view.log.empty,
      view.log.list),
    view.commands.element,
  ];
}
