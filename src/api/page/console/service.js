// Calls of the service's own API, which is all that the console knows.

import { key } from "./key.js";

/** An answer that is not a success, in the service's words; `status` 0: there was none. */
export class Refusal extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

/** Notified with the words for an outage, or null when the node answers. */
let onReach = () => {};
export const watchReach = (listener) => (onReach = listener);

/** Notified when the key is missing or no longer good. */
let onUnauthorized = () => {};
export const watchKey = (listener) => (onUnauthorized = listener);

export const url = (path, query) => {
  const made = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "") made.searchParams.set(name, value);
  }
  made.hash = "";
  return made.href;
};

/** `v1/topics/news` of `topic:news`. */
export function pathOf(stream) {
  const at = stream.indexOf(":");
  return `v1/${stream.slice(0, at)}s/${encodeURIComponent(stream.slice(at + 1))}`;
}

/** Integers in events' data that no Number holds keep their digits, where the browser can do that. */
function parse(text) {
  const exact = (_, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
  return JSON.parse(text, exact);
}

async function words(response) {
  try {
    const body = await response.json();
    return body.detail ?? body.title;
  } catch {
    return null;
  }
}

export async function call(method, path, { query, body, headers, signal, quiet } = {}) {
  const secret = key();
  const all = { Accept: "application/json", ...(secret && { Authorization: `Bearer ${secret}` }), ...headers };
  let response;
  try {
    response = await fetch(url(path, query), { method, body, headers: all, signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (signal?.aborted) throw error;
    onReach("The node can't be reached. Trying again.");
    throw new Refusal(0, "The node can't be reached.");
  }
  onReach(null);
  if (response.ok) return response;
  const said = (await words(response)) ?? `The node answered ${response.status}.`;
  if (response.status === 401 && !quiet) onUnauthorized(said);
  throw new Refusal(response.status, said);
}

export const get = async (path, query, signal) => parse(await (await call("GET", path, { query, signal })).text());
export const text = async (path, signal) => (await call("GET", path, { signal })).text();

/** Sends a JSON value, if there is one, and gives what is answered. */
export async function send(method, path, value) {
  const json = { body: JSON.stringify(value), headers: { "Content-Type": "application/json" } };
  const response = await call(method, path, value === undefined ? {} : json);
  return response.status === 204 ? null : response.json();
}

/** Publishes to a stream; `options` are query parameters and `key`. */
export async function publish(stream, body, { asText, key: idempotency, ...query } = {}) {
  const headers = {
    "Content-Type": asText ? "text/plain" : "application/json",
    ...(idempotency && { "Idempotency-Key": idempotency }),
  };
  return (await call("POST", `${pathOf(stream)}/events`, { query, body, headers })).json();
}

/**
 * Follows streams with the service's own client: over WebSocket, as a browser has six HTTP/1.1 connections for all
 * tabs of a server; with a key over Server-Sent Events, as a key travels in a header.
 */
export async function follow(options) {
  const { connect } = await import("../client.js");
  const transport = key() ? "sse" : "websocket";
  return connect({ url: url(".").replace(/\/$/, ""), token: key() ?? undefined, transport, ...options });
}
