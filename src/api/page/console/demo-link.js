// The demo's connection: it can be cut at will, resumes behind the last event, and keeps the books on what that did.
//
// It does without a client, to show what one needs: a cursor, and `after=` with it.

import { Outage } from "./demo-outage.js";
import { openSource } from "./demo-source.js";
import { isAfter, later } from "./ids.js";
import { get, pathOf } from "./service.js";

const ANSWER_MS = 3000; // patience with the read that says how far a catch-up goes
const QUIET_MS = 2500; // no frame for so long, and nothing owed: the catch-up is over
const FIRST_WAIT_MS = 1000; // before a reconnect, unless the server said another time; doubled with each try
const LONGEST_WAIT_MS = 30_000;

export class Link {
  state = "starting"; // starting, live, catching, cut, lost (reconnects by itself), stopped
  cursor = null; // the position after everything handled so far
  received = 0;
  duplicates = 0;
  gaps = 0;
  outage = null;
  #newest = null; // the id of the newest event shown
  #close = null; // ends the connection, if there is one
  #reconnect = 0;
  #quiet = 0; // the timer that ends a catch-up
  #tries = 0; // since the server last said something
  #retry = null; // what the server last said about the time of the next try
  #held = null; // frames that wait while the extent of a catch-up is being read

  /** `on` has `state(state, words)`, `row(kind, event)`, `mark(kind, words)`, `verdict(words, mood)`, `problem(words)`. */
  constructor(topic, start, on) {
    Object.assign(this, { topic, start, on });
  }

  get stream() {
    return `topic:${this.topic}`;
  }

  open() {
    this.on.verdict("Cut the connection, publish a few events, and resume: the result appears here.", "");
    this.#connect();
  }

  close() {
    this.#disconnect();
    clearTimeout(this.#quiet);
  }

  cut() {
    this.#disconnect();
    this.#beginOutage("You cut the connection");
    this.#setState("cut", "Cut");
  }

  resume() {
    this.#connect();
  }

  get isConnected() {
    return this.#close !== null;
  }

  /** Enters an event that this page published. */
  published(id) {
    this.outage?.enter(id);
    this.on.change();
  }

  #setState(state, words) {
    this.state = state;
    this.on.state(state, words);
    this.on.change();
  }

  #query() {
    const after = this.cursor ?? this.start;
    return { topic: this.topic, after: after === "now" ? null : after };
  }

  #connect() {
    this.#disconnect();
    this.on.problem(null);
    this.#setState("starting", "Connecting");
    this.#close = openSource(this.#query(), {
      frame: (said, data) => {
        this.#tries = 0;
        this.#take(said, data);
      },
      end: (refusal) => this.#failed(refusal),
    });
  }

  /** Ends the connection. Frames that were not handled yet are not in `cursor`, and will come again. */
  #disconnect() {
    clearTimeout(this.#reconnect);
    this.#close?.();
    this.#close = this.#held = this.#retry = null;
  }

  /** What the server says, unless it has to wait for the extent of a catch-up. */
  #take(said, data) {
    if (said.op === "ready") this.#opened();
    const handle = {
      ready: () => this.#onPosition(said.positions?.[this.stream]),
      position: () => this.#onPosition(said.id),
      event: () => this.#onEvent(said, data),
      gap: () => this.#onGap(said),
      close: () => this.#onClose(said),
    }[said.op];
    if (!handle) return;
    if (this.#held) this.#held.push(handle);
    else handle();
  }

  async #opened() {
    if (!this.outage) {
      const beginning = { now: "new events", earliest: "all that are kept" }[this.start] ?? "the last 20";
      if (this.cursor === null) this.on.mark("live", `Following ${this.stream}, beginning with ${beginning}`);
      this.#setState("live", "Live");
      return;
    }
    // Everything up to the newest event was missed. Hold the frames until that is known, so that none is misjudged.
    const frames = (this.#held = []);
    this.#setState("catching", "Catching up");
    const last = await this.#newestId();
    if (this.#held !== frames) return;
    this.outage.resume(last);
    this.on.mark("resumed", `Resumed after ${this.outage.from}: what was missed follows`);
    this.#held = null;
    for (const handle of frames) handle();
    this.#settle();
  }

  /** The newest id in the topic; null if that can't be learned. The page then counts its own events only. */
  async #newestId() {
    try {
      return (await get(`${pathOf(this.stream)}/events`, { limit: 1 }, AbortSignal.timeout(ANSWER_MS))).last ?? null;
    } catch {
      return null;
    }
  }

  #failed(refusal) {
    const wait = this.#retry ?? Math.min(FIRST_WAIT_MS * 2 ** this.#tries, LONGEST_WAIT_MS) * (0.75 + Math.random() / 2);
    this.#tries += 1;
    this.#disconnect();
    this.#beginOutage(this.cursor === null ? "No connection could be made" : "The connection was lost");
    if (refusal) {
      this.#setState("stopped", "Stopped");
      this.on.problem(refusal);
      return;
    }
    this.#setState("lost", "Connection lost: trying again");
    this.#reconnect = setTimeout(() => this.resume(), wait);
  }

  #beginOutage(words) {
    if (this.outage?.isAway) return; // it goes on
    this.on.mark("cutting", this.cursor ? `${words}; position ${this.cursor}` : words);
    if (this.cursor === null) return; // no position yet: nothing can be missed after it
    clearTimeout(this.#quiet);
    this.outage = this.outage ? this.outage.next(this.cursor) : new Outage(this.cursor);
    this.on.verdict("What is published now waits in the stream. Resume to get it.", "");
  }

  #onEvent({ id, type }, data) {
    if (!id) return this.on.row("ephemeral", { type, data });
    const twice = this.#newest !== null && !isAfter(id, this.#newest);
    const back = this.outage?.missed(id) ?? false;
    if (this.outage && !this.outage.isAway && isAfter(id, this.outage.until)) this.#finish();
    if (twice) {
      this.duplicates += 1;
      if (this.outage) this.outage.duplicates += 1;
    } else {
      this.received += 1;
      this.#newest = this.cursor = id;
      if (back) this.outage.arrived.add(id);
    }
    this.on.row(twice ? "twice" : back ? "back" : "", { id, type, data });
    this.#settle();
  }

  #onPosition(id) {
    if (id) this.cursor = later(this.cursor, id);
    this.#settle();
  }

  #onGap({ reason, after, next }) {
    this.gaps += 1;
    if (this.outage) this.outage.gap = true;
    this.on.mark("gap", `Gap notice (${reason}): events after ${after} and before ${next} can't be delivered`);
    this.#settle();
  }

  #onClose({ reason, retry }) {
    if (Number.isFinite(retry)) this.#retry = retry;
    const again = Number.isFinite(retry) ? `, to be tried again after ${(retry / 1000).toFixed(1)} s` : "";
    this.#beginOutage(`Closed by the server (${reason}${again})`);
    this.on.change();
  }

  /** Called after each frame: shows the sum, and ends the catch-up when it is complete. */
  #settle() {
    const outage = this.outage;
    if (outage && !outage.isAway) {
      clearTimeout(this.#quiet);
      if (outage.isOver(this.cursor)) this.#finish();
      else {
        this.#showVerdict(false);
        // The newest event may have expired, or have been superseded: it never comes.
        this.#quiet = setTimeout(() => this.outage === outage && !outage.isAway && !outage.owed().length && this.#finish(), QUIET_MS);
      }
    }
    this.on.change();
  }

  #finish() {
    clearTimeout(this.#quiet);
    this.#showVerdict(true);
    const count = this.outage.arrived.size;
    this.outage = null;
    this.on.mark("live", count ? `Caught up: ${count} ${count === 1 ? "event" : "events"}. Live again.` : "Live again");
    this.#setState("live", "Live");
  }

  #showVerdict(complete) {
    const { words, mood } = this.outage.verdict(complete);
    this.on.verdict(words, mood);
  }
}
