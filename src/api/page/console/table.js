// Tables whose rows are replaced as the service answers.

import { action, h } from "./dom.js";

export function table(heads, empty) {
  const body = h("tbody");
  const none = h("p", { class: "empty" }, empty);
  const grid = h("table", { hidden: true }, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), body);
  let shown = null;
  return {
    element: h("div", { class: "table", tabindex: 0, role: "region", "aria-label": heads.join(", ") }, grid, none),
    /** Cells are texts or elements. Rows that say the same stay, so that a selection survives. */
    show(rows) {
      const made = rows.map((cells) => h("tr", {}, cells.map((cell, at) => h("td", { "data-head": heads[at] }, cell))));
      const text = made.map((row) => row.innerHTML).join("\n");
      if (text === shown) return;
      shown = text;
      body.replaceChildren(...made);
      grid.hidden = rows.length === 0;
      none.hidden = rows.length > 0;
    },
  };
}

/** A table of what the service gives in pages: `read(after)` answers one, with `next` for the one behind it. */
export function pagedTable({ heads, empty, read, rows }) {
  const { element, show } = table(heads, empty);
  let after = null;
  let next = null;
  const turn = (to) => {
    after = to;
    return refresh();
  };
  const first = action("First page", () => turn(null));
  const more = action("Next page", () => turn(next));
  async function refresh() {
    const asked = after;
    const page = await read(asked);
    if (asked !== after) return;
    next = page.next;
    show(rows(page));
    first.hidden = !after;
    more.hidden = !next;
  }
  first.hidden = more.hidden = true;
  element.append(h("p", { class: "tools" }, first, more));
  return { element, refresh };
}
