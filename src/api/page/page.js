// The page at `/`: follows a topic, publishes to it, cuts its own connection and resumes, and keeps the
// books on whether anything was missed or came twice.
//
// Everything shown here comes from the public API. What arrives from it is put into the page with
// textContent only. It follows over WebSocket: a browser has only six HTTP/1.1 connections for all tabs of
// a server, of which an EventSource takes one for as long as its tab is open.

const ROWS = 500; // rows that the list keeps
const SHOWN_CHARACTERS = 2000; // of one event's data
const BACKLOG = 60; // publishes waiting for their turn
const ANSWER_MS = 3000; // patience with the read that says how far a catch-up goes
const QUIET_MS = 2500; // no frame for so long, and nothing owed: the catch-up is over
const FIRST_WAIT_MS = 1000; // before a reconnect, unless the server said another time; doubled with each try
const LONGEST_WAIT_MS = 30000;
const FINAL_CODES = [4001, 4003, 4005]; // the server asks not to come back

const $ = (id) => document.getElementById(id);
const api = (path) => new URL(path, document.baseURI).href;

// ---- Event ids -------------------------------------------------------------------------------------

/** `ms-seq` as two BigInts (either may exceed what a Number holds exactly), or null. */
function parseId(text) {
  const parts = /^(\d+)-(\d+)$/.exec(text ?? "");
  return parts && [BigInt(parts[1]), BigInt(parts[2])];
}

/** Whether id `a` comes after id `b`; an id that is not there comes before all others. */
function isAfter(a, b) {
  const [x, y] = [parseId(a), parseId(b)];
  if (!x || !y) return Boolean(x);
  return x[0] === y[0] ? x[1] > y[1] : x[0] > y[0];
}

const later = (a, b) => (isAfter(b, a) ? b : a);

// ---- What the page knows ---------------------------------------------------------------------------

let topic = "demo";
let start = "now";
let socket = null; // the WebSocket
let reconnect = 0; // the timer of the next try
let tries = 0; // since the server last said something
let retry = null; // what the server last said about the time of the next try
let state = "starting"; // starting, live, catching, cut, lost (reconnects by itself), stopped
let cursor = null; // the position after everything handled so far
let newest = null; // id of the newest event shown
let received = 0;
let duplicates = 0;
let gaps = 0;
let held = null; // frames that wait while the extent of a catch-up is being read

// One interruption and the catch-up after it:
//   from      the position at which the connection ended
//   until     the newest id that counts as missed; null as long as the connection is away
//   own       ids that this page published in between, known from the answers to its publishes
//   arrived   ids in between that came after the resume
//   gap       whether a gap notice came among them
let outage = null;

function setState(next, words) {
  state = next;
  document.body.dataset.state = next;
  $("state").textContent = words;
  const cut = next === "live" || next === "catching" || next === "starting";
  $("cut").textContent = cut ? "Cut the connection" : "Resume";
  showFacts();
}

function showFacts() {
  $("cursor").textContent = cursor ?? "none yet";
  $("received").textContent = received;
  $("duplicates").textContent = duplicates;
  $("gaps").textContent = gaps;
  const away = outage && outage.until === null;
  $("waiting").hidden = !away;
  if (away) $("waiting").textContent = `${outage.own.size} waiting`;
  showCommands();
}

// ---- The connection --------------------------------------------------------------------------------

function listenUrl(path, after, more = {}) {
  const query = new URLSearchParams({ topic, ...more });
  if (after && after !== "now") query.set("after", after);
  return api(`v1/${path}?${query}`);
}

const sseUrl = (after) => listenUrl("sse", after);
const socketUrl = (after) => listenUrl("ws", after, { types: "message" }).replace(/^http/, "ws");

/** Follows a topic from the beginning: forgets all about the one before. */
function follow(nextTopic, nextStart) {
  disconnect();
  topic = nextTopic;
  start = nextStart;
  cursor = newest = outage = null;
  received = duplicates = gaps = 0;
  $("publish-to").textContent = $("wire-stream").textContent = `topic:${topic}`;
  sayVerdict(VERDICT_START);
  problem("publish-problem", null);
  clearRows();
  connect(start);
}

function connect(after) {
  disconnect();
  problem("link-problem", null);
  setState("starting", "Connecting");
  const mine = new WebSocket(socketUrl(after));
  socket = mine;
  let welcome = false;
  mine.addEventListener("message", ({ data }) => {
    if (socket !== mine) return;
    welcome = true;
    tries = 0;
    onMessage(data);
  });
  mine.addEventListener("close", ({ code }) => socket === mine && failed(code, welcome));
}

/** Ends the connection. Frames that were not handled yet are not in `cursor`, and will come again. */
function disconnect() {
  clearTimeout(reconnect);
  socket?.close();
  socket = held = retry = null;
}

/** What the server says, unless it has to wait for the extent of a catch-up. */
function onMessage(text) {
  const said = parsed(text);
  if (said.op === "ready") opened();
  const handle = {
    ready: () => onPosition(said.positions?.[`topic:${topic}`]),
    position: () => onPosition(said.id),
    event: () => onEvent(said.id, dataOf(text, said)),
    gap: () => onGap(said),
    close: () => onClose(said),
  }[said.op];
  if (!handle) return;
  if (held) held.push(handle);
  else handle();
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

async function opened() {
  if (!outage) {
    const beginning = { now: "new events", earliest: "all that are kept" }[start] ?? "the last 20";
    if (cursor === null) mark("live", `Following topic:${topic}, beginning with ${beginning}`);
    setState("live", "Live");
    return;
  }
  // Everything up to `until` was missed. Hold the frames until that is known, so that none is misjudged.
  const frames = (held = []);
  setState("catching", "Catching up");
  const last = await newestId();
  if (held === frames) release(last);
}

/** Sets how far the catch-up goes, and handles the frames that waited for it. */
function release(last) {
  outage.until = [...outage.own].reduce(later, later(outage.from, last));
  mark("resumed", `Resumed after ${outage.from}: what was missed follows`);
  const frames = held;
  held = null;
  frames.forEach((handle) => handle());
  settle();
}

/** The newest id in the topic; null if that can't be learned. The page then counts its own events only. */
async function newestId() {
  try {
    const response = await fetch(api(`v1/topics/${encodeURIComponent(topic)}/events?limit=1`), {
      headers: { Accept: "application/json" },
      cache: "no-store",
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    return response.ok ? ((await response.json()).last ?? null) : null;
  } catch {
    return null;
  }
}

async function failed(code, welcome) {
  const wait = retry ?? Math.min(FIRST_WAIT_MS * 2 ** tries, LONGEST_WAIT_MS) * (0.75 + Math.random() / 2);
  tries += 1;
  disconnect();
  beginOutage(cursor === null ? "No connection could be made" : "The connection was lost");
  setState("lost", "Connection lost: trying again");
  // A WebSocket does not tell why its handshake was refused.
  const refusal = welcome ? null : await refused(sseUrl(cursor ?? start));
  if (socket || state !== "lost") return;
  if (FINAL_CODES.includes(code) || refusal) {
    setState("stopped", "Stopped");
    problem("link-problem", refusal ?? "The server asked this client to stop.");
    return;
  }
  reconnect = setTimeout(resume, wait);
}

/** Why the server would refuse the same over HTTP; null if it would not, or can't be asked. */
async function refused(url) {
  const abort = new AbortController();
  try {
    const response = await fetch(url, { headers: { Accept: "text/event-stream" }, signal: abort.signal });
    return response.status >= 400 && response.status < 500 ? await detail(response) : null;
  } catch {
    return null;
  } finally {
    abort.abort();
  }
}

function cut() {
  disconnect();
  beginOutage("You cut the connection");
  setState("cut", "Cut");
}

function resume() {
  connect(cursor ?? start);
}

function beginOutage(words) {
  const before = outage;
  if (before && before.until === null) return; // it goes on
  mark("cutting", cursor ? `${words}; position ${cursor}` : words);
  if (cursor === null) return; // no position yet: nothing can be missed after it
  // What an unfinished catch-up still owes is owed by the next.
  const owed = before ? [...before.own].filter((id) => !before.arrived.has(id) && isAfter(id, cursor)) : [];
  outage = { from: cursor, until: null, own: new Set(owed), arrived: new Set(), duplicates: 0, gap: false, timer: 0 };
  if (before) clearTimeout(before.timer);
  sayVerdict(VERDICT_AWAY);
}

// ---- Frames ----------------------------------------------------------------------------------------

const missed = (id) => outage && outage.until !== null && isAfter(id, outage.from) && !isAfter(id, outage.until);

function onEvent(id, data) {
  if (!id) return addRow("", "", data, "not stored");
  const twice = newest !== null && !isAfter(id, newest);
  const back = missed(id);
  if (outage && outage.until !== null && isAfter(id, outage.until)) finish();
  if (twice) {
    duplicates += 1;
    if (outage) outage.duplicates += 1;
  } else {
    received += 1;
    newest = cursor = id;
    if (back) outage.arrived.add(id);
  }
  addRow(twice ? "twice" : back ? "back" : "", id, data, twice ? "duplicate" : back ? "caught up" : "");
  settle();
}

function onPosition(id) {
  if (id) cursor = later(cursor, id);
  settle();
}

function onGap(notice) {
  gaps += 1;
  if (outage) outage.gap = true;
  mark("gap", `Gap notice (${notice.reason}): events after ${notice.after} and before ${notice.next} can't be delivered`);
  settle();
}

function onClose(notice) {
  if (Number.isFinite(notice.retry)) retry = notice.retry;
  const again = Number.isFinite(notice.retry) ? `, to be tried again after ${(notice.retry / 1000).toFixed(1)} s` : "";
  beginOutage(`Closed by the server (${notice.reason}${again})`);
  showFacts();
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

// ---- The books on an interruption ------------------------------------------------------------------

const VERDICT_START = "Cut the connection, publish a few events, and resume: the sum will stand here.";
const VERDICT_AWAY = "What is published now waits in the stream. Resume to get it.";

const owed = () => [...outage.own].filter((id) => !outage.arrived.has(id));

/** Called after each frame: shows the sum, and ends the catch-up when it is complete. */
function settle() {
  if (outage && outage.until !== null) {
    clearTimeout(outage.timer);
    const reached = cursor !== null && !isAfter(outage.until, cursor);
    if (reached) finish();
    else {
      showVerdict();
      // The newest id may belong to an event of a type that this page doesn't hear.
      outage.timer = setTimeout(() => outage?.until != null && owed().length === 0 && finish(), QUIET_MS);
    }
  }
  showFacts();
}

function finish() {
  const current = outage;
  clearTimeout(current.timer);
  showVerdict(true);
  const count = current.arrived.size;
  outage = null;
  mark("live", count ? `Caught up: ${count} ${count === 1 ? "event" : "events"}. Live again.` : "Live again");
  setState("live", "Live");
}

function showVerdict(complete = false) {
  const absent = owed().length;
  const total = outage.arrived.size + absent;
  const elsewhere = [...outage.arrived].filter((id) => !outage.own.has(id)).length;
  const from = elsewhere ? ` (${elsewhere} not published here)` : "";
  const sum = `Missed while cut: ${total}${from}, received after resume: ${outage.arrived.size}, duplicates: ${outage.duplicates}`;
  let end = "";
  if (outage.gap) end = ". A gap notice told of events that can't be delivered.";
  else if (complete && absent) end = `. ${absent} did not arrive.`;
  const bad = outage.gap || outage.duplicates > 0 || (complete && absent > 0);
  sayVerdict(sum + end, bad ? "bad" : complete ? "good" : "open");
}

function sayVerdict(words, mood = "") {
  $("verdict").textContent = words;
  $("verdict").className = `verdict ${mood}`;
}

/** Enters an event that this page published, if the connection was away. */
function enterOwn(id) {
  if (!outage || !isAfter(id, outage.from)) return;
  if (outage.until === null || !isAfter(id, outage.until)) outage.own.add(id);
  showFacts();
}

// ---- Publishing ------------------------------------------------------------------------------------

let number = 0; // counts what the burst and the ticker send
let backlog = 0;
let turn = Promise.resolve(); // publishes go one after another, so that their order is the one intended
let ticking = 0;

const kind = () => document.querySelector("input[name=kind]:checked").value;
const publishUrl = (of) => api(`v1/topics/${encodeURIComponent(of)}/events`);

function publish(body) {
  if (backlog >= BACKLOG) return;
  backlog += 1;
  const to = topic;
  const type = kind() === "json" ? "application/json" : "text/plain";
  turn = turn.then(async () => {
    try {
      const response = await fetch(publishUrl(to), { method: "POST", headers: { "Content-Type": type }, body });
      if (!response.ok) throw new Error(await detail(response));
      const answer = await response.json();
      problem("publish-problem", null);
      const nodes = answer.nodes === 1 ? "1 node" : `${answer.nodes} nodes`;
      $("published").textContent = `Stored as ${answer.id}, ${nodes} told.`;
      if (to === topic) enterOwn(answer.id);
    } catch (error) {
      const words = error instanceof TypeError ? "The server can't be reached." : error.message;
      problem("publish-problem", `Not published. ${words}`);
    }
    backlog -= 1;
  });
}

/** The text with a running number, so that the order can be seen; a JSON object gets it as `n`. */
function numbered() {
  number += 1;
  const body = $("data").value;
  if (kind() === "text") return `${body} ${number}`;
  const value = parsed(body);
  return value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length
    ? JSON.stringify({ ...value, n: number })
    : body;
}

function tick(on) {
  clearInterval(ticking);
  ticking = on ? setInterval(() => backlog < 5 && publish(numbered()), 1000) : 0;
  $("ticker").setAttribute("aria-pressed", String(on));
  if (on) publish(numbered());
}

/** What went wrong, in the words of the server where it has some. */
async function detail(response) {
  const body = parsed(await response.text().catch(() => ""));
  return body.detail ?? body.title ?? `The server answered ${response.status}.`;
}

function problem(where, words) {
  $(where).textContent = words ?? "";
  $(where).hidden = !words;
}

// ---- The list --------------------------------------------------------------------------------------

let pending = []; // rows not in the document yet, oldest first
let flushing = 0;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function addRow(className, id, data, tag) {
  const row = element("li", className);
  const shown = data.length > SHOWN_CHARACTERS ? `${data.slice(0, SHOWN_CHARACTERS)}…` : data;
  row.append(element("span", "id", id), element("span", "data", shown));
  if (tag) row.append(element("span", "tag", tag));
  queueRow(row);
}

function mark(className, words) {
  queueRow(element("li", `mark-row ${className}`, words));
}

/** Rows enter the document in bunches: a busy topic must not cost a layout for each event. */
function queueRow(row) {
  pending.push(row);
  if (pending.length > ROWS) pending.shift();
  flushing ||= setTimeout(flush, 40);
}

function flush() {
  flushing = 0;
  const log = $("log");
  const atTop = log.scrollTop < 8;
  const height = log.scrollHeight;
  log.prepend(...pending.reverse());
  pending = [];
  while (log.childElementCount > ROWS) log.lastElementChild.remove();
  // Who has scrolled down to read keeps the place.
  log.scrollTop = atTop ? 0 : log.scrollTop + Math.max(0, log.scrollHeight - height);
  $("empty").hidden = log.querySelector("li:not(.mark-row)") !== null;
}

function clearRows() {
  pending = [];
  $("log").replaceChildren();
  $("empty").hidden = false;
}

// ---- curl ------------------------------------------------------------------------------------------

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function showCommands() {
  const header = kind() === "text" ? "-H 'Content-Type: text/plain' " : "";
  const commands = {
    "command-follow": `curl -N ${quoted(sseUrl("now"))}`,
    "command-publish": `curl ${header}--data-raw ${quoted($("data").value)} ${quoted(publishUrl(topic))}`,
    "command-resume": `curl -N ${quoted(sseUrl(cursor ?? "now"))}`,
  };
  for (const [id, text] of Object.entries(commands)) {
    if ($(id).textContent !== text) $(id).textContent = text;
  }
}

async function copy(button) {
  const code = $(button.dataset.of);
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

// ---- Wiring ----------------------------------------------------------------------------------------

$("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  follow($("topic").value, $("start").value);
});
$("publish").addEventListener("submit", (event) => {
  event.preventDefault();
  publish($("data").value);
});
$("publish").addEventListener("input", showCommands);
$("burst").addEventListener("click", () => {
  for (let n = 0; n < 20; n += 1) publish(numbered());
});
$("ticker").addEventListener("click", () => tick(!ticking));
$("cut").addEventListener("click", () => (socket ? cut() : resume()));
$("clear").addEventListener("click", clearRows);
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", () => copy(button));

// `/?topic=news` opens the page on another topic.
$("topic").value = new URLSearchParams(location.search).get("topic") || "demo";
follow($("topic").value, $("start").value);
