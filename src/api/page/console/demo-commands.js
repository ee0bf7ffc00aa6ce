// The demo's steps as curl commands.

import { h, setText } from "./dom.js";
import { pathOf, url } from "./service.js";
import { key } from "./key.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A card with three commands; they name an environment variable in place of the key. */
export function commandsCard() {
  const codes = Object.fromEntries(["Follow", "Publish", "Resume from here"].map((name) => [name, h("code")]));
  const command = ([name, code]) =>
    h("div", { class: "command" }, h("h3", {}, name), h("button", { type: "button", class: "quiet small", "aria-label": `Copy: ${name}`, onclick: ({ target }) => copy(target, code) }, "Copy"), h("pre", { tabindex: 0, "aria-label": name }, code));
  return {
    element: h("section", { class: "card commands" }, h("h2", {}, "The same with curl"), ...Object.entries(codes).map(command)),
    show({ topic, cursor, body, asText, type }) {
      const secret = key() ? `-H "Authorization: Bearer $WHIMBREL_KEY" ` : "";
      const header = `${secret}${asText ? "-H 'Content-Type: text/plain' " : ""}`;
      const follow = (after) => `curl -N ${secret}${quoted(url("v1/sse", { topic, after }))}`;
      setText(codes.Follow, follow(null));
      setText(codes.Publish, `curl ${header}--data-raw ${quoted(body)} ${quoted(url(`${pathOf(`topic:${topic}`)}/events`, { type }))}`);
      setText(codes["Resume from here"], follow(cursor));
    },
  };
}

async function copy(button, code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    // No clipboard outside a secure context: select the text for the person to copy.
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
