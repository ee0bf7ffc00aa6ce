// Tokens that are refused before their time: which, until when, and the form that refuses more.

import { card, field, h, problemBox, say, setText } from "./dom.js";
import { plural, second } from "./format.js";
import { careful } from "./publish-card.js";
import { href } from "./route.js";
import { get, send } from "./service.js";
import { table } from "./table.js";

const POLL_MS = 2000;
const HOUR = 3600;
const DAY = 24 * HOUR;
const TIMES = { "an hour": HOUR, "a day": DAY, "a week": 7 * DAY, "30 days": 30 * DAY, "a year": 365 * DAY };

export function open(root, { query }, scope) {
  const about = h("p", { class: "hint", role: "status" });
  const problem = problemBox();
  const refused = problemBox();
  const rows = table(["Tokens", "Issued before", "Revoked", "Until", ""], "No token is revoked.");

  const poll = async () => {
    const { revocations } = await get("v1/revocations", {}, scope.signal);
    setText(about, revocations.length ? plural(revocations.length, "revocation") : "");
    rows.show([...revocations].sort((one, other) => other.created - one.created).map(row));
  };
  const refresh = scope.every(POLL_MS, () => scope.attempt(problem, poll));

  const row = ({ id, device, token, before, created, expires }) => [
    device ? h("span", {}, "of ", h("a", { href: href("device", device) }, device)) : h("span", {}, "with the id ", h("code", {}, token)),
    device ? second(before * 1000) : "–",
    second(created * 1000),
    second(expires * 1000),
    careful("Lift", `Accept these tokens again?`, () => scope.attempt(refused, () => send("DELETE", `v1/revocations/${id}`).then(refresh))),
  ];

  root.append(
    h("div", { class: "title" }, h("h1", {}, "Revocations")),
    problem,
    refused,
    card("Revoke", h("p", { class: "hint" }, "Connections that use such a token are closed on all nodes within two seconds, and the token is refused until the time is over."), form(query.get("device"), refresh)),
    card(null, about, rows.element),
  );
}

function form(device, refresh) {
  const kind = h("select", { name: "kind" }, h("option", { value: "device" }, "all of a device"), h("option", { value: "token" }, "one, by its id (jti)"));
  const name = h("input", { name: "name", required: true, value: device ?? "", maxlength: 200, spellcheck: "false", autocapitalize: "off" });
  const before = h("input", { name: "before", type: "datetime-local", step: 1, title: "Empty: until now" });
  const seconds = h("select", { name: "seconds" }, Object.entries(TIMES).map(([words, value]) => h("option", { value, selected: value === DAY }, words)));
  const problem = problemBox();
  const done = h("p", { class: "note", role: "status" });
  const button = h("button", { type: "submit" }, "Revoke");
  const issued = field("Issued before", before, "field grow");
  kind.addEventListener("change", () => (issued.hidden = kind.value === "token"));

  async function submit(event) {
    event.preventDefault();
    const asked = { [kind.value]: name.value.trim(), seconds: Number(seconds.value) };
    if (kind.value === "device" && before.value) asked.before = Date.parse(before.value) / 1000;
    button.disabled = true;
    try {
      const { expires } = await send("POST", "v1/revocations", asked);
      say(problem, null);
      setText(done, `Refused until ${second(expires * 1000)}.`);
      await refresh();
    } catch (error) {
      say(problem, error.message);
      setText(done, "");
    } finally {
      button.disabled = false;
    }
  }

  return h("form", { class: "publish-form", onsubmit: submit },
    h("div", { class: "fields" }, field("Tokens", kind, "field grow"), field("Name", name, "field grow"), issued, field("For", seconds), button),
    done,
    problem);
}
