// The demo's wire, in one shape whether it is WebSocket or Server-Sent Events: frames as `{ op, … }`, then an end.
//
// Without a key it is WebSocket: a browser has six HTTP/1.1 connections for all tabs of a server, of which Server-Sent
// Events take one for as long as a tab is open. A key travels in a header, which a page can't give a WebSocket.

import { key } from "./key.js";
import { Refusal, call, url } from "./service.js";

const FINAL_CODES = [4001, 4003, 4005]; // replaced, kicked, revoked: the server asks not to come back
const FINAL_REASONS = ["replaced", "kicked", "revoked"];
const STOPPED = "The server asked this client to stop.";

/**
 * Opens a connection. `frame(said, data)` is given what the server says, and an event's data as it was published;
 * `end(refusal)` is called once, with why it is no use to come again. Returns what closes it.
 */
export const openSource = (query, on) => (key() ? overSse(query, on) : overWebSocket(query, on));

function overWebSocket(query, { frame, end }) {
  const socket = new WebSocket(url("v1/ws", query).replace(/^http/, "ws"), ["whimbrel.v1"]);
  let welcome = false;
  let closed = false;
  socket.addEventListener("message", ({ data }) => {
    welcome = true;
    const said = JSON.parse(data);
    if (!closed) frame(said, said.op === "event" ? dataOf(data, said) : null);
  });
  socket.addEventListener("close", async ({ code }) => {
    // A WebSocket does not say why its handshake was refused.
    const refusal = FINAL_CODES.includes(code) ? STOPPED : welcome || closed ? null : await refused(query);
    if (!closed) end(refusal);
  });
  return () => {
    closed = true;
    socket.close();
  };
}

/** Why the server would refuse the same over SSE; null if it would not, or can't be asked. */
async function refused(query) {
  const abort = new AbortController();
  try {
    await listen(query, abort.signal);
    return null;
  } catch (error) {
    return final(error);
  } finally {
    abort.abort();
  }
}

const listen = (query, signal) => call("GET", "v1/sse", { query, headers: { Accept: "text/event-stream" }, signal });

const final = (error) => (error instanceof Refusal && error.status >= 400 && error.status < 500 ? error.message : null);

function overSse(query, { frame, end }) {
  const abort = new AbortController();
  const run = async () => {
    const response = await listen(query, abort.signal);
    if (response.status === 204) return STOPPED;
    let refusal = null;
    const feed = blocks(`topic:${query.topic}`, (said, data) => {
      if (FINAL_REASONS.includes(said.reason)) refusal = STOPPED;
      if (!abort.signal.aborted) frame(said, data);
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return refusal;
      feed(value);
    }
  };
  run()
    .catch(final)
    .then((refusal) => abort.signal.aborted || end(refusal));
  return () => abort.abort();
}

/** Reads `text/event-stream`, however it is cut into pieces. Lines of the service end with LF. */
function blocks(stream, take) {
  let rest = "";
  let ready = false;
  return (text) => {
    const parts = (rest + text).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n").map((line) => /^(\w*):? ?(.*)$/s.exec(line));
      const of = (name) => lines.filter(([, known]) => known === name).map(([, , value]) => value);
      const [type = "message"] = of("event");
      const [id] = of("id");
      const data = of("data").join("\n");
      if (type === "whimbrel:position") {
        take(ready ? { op: "position", id } : { op: "ready", positions: { [stream]: id } });
        ready = true;
      } else if (type === "whimbrel:gap" || type === "whimbrel:close") take({ ...JSON.parse(data), op: type.slice(9) });
      else if (data) take({ op: "event", id, type }, data);
    }
  };
}

/** The data as it was published: written anew, its numbers and white space could be others. */
function dataOf(text, said) {
  const raw = /"data":(.*)\}$/s.exec(text)?.[1];
  try {
    JSON.parse(raw);
    return raw;
  } catch {
    return JSON.stringify(said.data);
  }
}
