// The shell: which page is shown, who may see it, and whether the node can be reached.

import { h, say } from "./dom.js";
import { findForm } from "./find.js";
import { keep, key } from "./key.js";
import { current } from "./route.js";
import { Scope } from "./scope.js";
import { call, get, watchKey, watchReach } from "./service.js";

/** The pages, each in a module that is loaded when it is opened. */
const PAGES = {
  demo: () => import("./demo.js"),
  overview: () => import("./overview.js"),
  device: () => import("./device.js"),
  topic: () => import("./topic.js"),
  event: () => import("./event.js"),
  lifecycle: () => import("./lifecycle.js"),
  ingress: () => import("./ingress.js"),
  leases: () => import("./leases.js"),
  links: () => import("./links.js"),
  revocations: () => import("./revocations.js"),
};

const main = document.getElementById("page");
const banner = document.getElementById("banner");
const forget = document.getElementById("forget");
let scope = null;

async function show() {
  scope?.end();
  scope = new Scope();
  const mine = scope;
  const place = current();
  main.replaceChildren();
  for (const link of document.querySelectorAll("nav a")) {
    const there = link.getAttribute("href") === `#/${place.name}`;
    if (there) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const load = PAGES[place.name];
  if (!load) return main.append(h("h1", {}, "There is no such page"), h("p", {}, `The console has no page '${place.name}'.`));
  const needsName = { device: 1, topic: 1, event: 2 }[place.name] ?? 0;
  if (place.rest.length < needsName) return main.append(h("h1", {}, `Which ${place.name}?`), h("p", {}, "Give its name above."));
  const page = await load();
  if (mine.ended) return;
  await page.open(main, place, mine);
  document.title = `${main.querySelector("h1")?.textContent ?? "Console"} · Whimbrel`;
}

/** Whether the key in hand, or none, opens the console; the words of what is wrong otherwise. */
async function refusal() {
  try {
    const who = await (await call("GET", "v1/whoami", { quiet: true })).json();
    if (who.kind === "open" || who.scopes?.includes("admin")) return null;
    if (who.kind === "key") return `The key '${who.name}' has the scopes ${who.scopes.join(", ")}; the console needs admin.`;
    return key() ? "The console needs a key with the scope admin." : "";
  } catch ({ status, message }) {
    if (status === 401) return key() ? message : "";
    return message;
  }
}

async function enter() {
  const words = await refusal();
  forget.hidden = !key();
  if (words === null) {
    document.body.classList.remove("locked");
    return show();
  }
  askForKey(words);
}

function askForKey(words) {
  scope?.end();
  document.body.classList.add("locked");
  const input = h("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: "false" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const submit = (event) => {
    event.preventDefault();
    keep(input.value.trim());
    enter();
  };
  main.replaceChildren(
    h("form", { class: "card key-form", onsubmit: submit },
      h("h1", {}, "This service asks for a key"),
      h("p", {}, "The console needs a producer's key with the scope ", h("code", {}, "admin"), ". It is kept for this tab, until the tab is closed."),
      h("label", { class: "field" }, h("span", {}, "Key"), input),
      h("button", { type: "submit" }, "Open the console"),
      problem),
  );
  say(problem, words);
  input.focus();
}

watchReach((words) => say(banner, words));
// What was on its way when the key was refused must not take away what is being typed.
watchKey((words) => document.body.classList.contains("locked") || askForKey(words));
forget.addEventListener("click", () => {
  keep(null);
  enter();
});
// The address behind `#` is the page's.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("find").replaceWith(findForm());
addEventListener("hashchange", () => document.body.classList.contains("locked") || show());

// `/?topic=news` opens the first page on another topic.
const asked = new URLSearchParams(location.search).get("topic");
if (asked && !location.hash) history.replaceState(null, "", `${location.pathname}#/demo?topic=${encodeURIComponent(asked)}`);
enter();
