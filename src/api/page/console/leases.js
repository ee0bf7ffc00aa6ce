// The leases of producers: who is at work on which stream, and until when.

import { card, h, problemBox, setText } from "./dom.js";
import { clock, duration, plural } from "./format.js";
import { streamHref } from "./route.js";
import { get } from "./service.js";
import { table } from "./table.js";

const POLL_MS = 1000;
const SHOWN = 200;

export function open(root, place, scope) {
  const rows = table(["Stream", "Holds for", "Renewed", "Lapses", ""], "No producer holds a lease.");
  const about = h("p", { class: "hint", role: "status" });
  const problem = problemBox();
  root.append(h("div", { class: "title" }, h("h1", {}, "Leases of producers")), problem, card(null, about, rows.element));

  const row = ({ stream, seconds, renewed, lapses, lapsed }) => [
    h("a", { href: streamHref(stream) }, stream),
    duration(seconds * 1000),
    clock(renewed),
    clock(lapses),
    h("span", { class: lapsed ? "tag bad" : "tag good" }, lapsed ? "lapsed" : "held"),
  ];
  scope.every(POLL_MS, () =>
    scope.attempt(problem, async () => {
      const { leases, total } = await get("v1/leases", { limit: SHOWN }, scope.signal);
      setText(about, total > leases.length ? `${plural(total, "lease")}; those that lapse first` : plural(total, "lease"));
      rows.show(leases.map(row));
    }),
  );
}
