// What the console shows stands in the address: `#/device/42?before=…`.

export function current() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const segments = path.split("/").filter(Boolean).map(decode);
  return { name: segments[0] ?? "demo", rest: segments.slice(1), query: new URLSearchParams(query) };
}

function decode(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** The address of a page: `href("device", "42")`, with a query as the last argument if need be. */
export function href(...parts) {
  const query = typeof parts.at(-1) === "object" ? parts.pop() : {};
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(given).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${search && `?${search}`}`;
}

export const streamHref = (stream) => {
  const at = stream.indexOf(":");
  return href(stream.slice(0, at), stream.slice(at + 1));
};

export const eventHref = (stream, id, query = {}) => href("event", stream, id, query);

/** Goes to a page, so that Back comes back here. */
export const go = (address) => (location.hash = address.slice(1));

/** Writes down what the page shows now, in place of what the address said. */
export function remember(changes) {
  const { name, rest, query } = current();
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") query.delete(key);
    else query.set(key, value);
  }
  history.replaceState(null, "", href(name, ...rest, Object.fromEntries(query)));
}
