// Elements, made without markup: whatever comes from the service enters the page as text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** `h("a", { href }, "text", child)`; attributes that begin with `on` are listeners. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Sets a text only if it is another one, so that a selection survives. */
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Shows or hides a message. */
export function say(element, words) {
  setText(element, words ?? "");
  element.hidden = !words;
}

/** Named values: `set` shows one. */
export function facts(names, className = "facts") {
  const values = Object.fromEntries(names.map((name) => [name, h("dd", {}, "…")]));
  const element = h("dl", { class: className }, names.map((name) => h("div", {}, h("dt", {}, name), values[name])));
  return { element, values, set: (name, text) => setText(values[name], text) };
}

export const problemBox = () => h("p", { class: "problem", role: "alert", hidden: true });

/** A labelled field. */
export const field = (label, control, className = "field") => h("label", { class: className }, h("span", {}, label), control);

export const card = (title, ...children) =>
  h("section", { class: "card" }, title && h("h2", {}, title), ...children);

/** A button that is disabled while what it started goes on. */
export function action(text, run, attributes = {}) {
  const button = h("button", { type: "button", class: "quiet small", ...attributes }, text);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await run(button);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}
