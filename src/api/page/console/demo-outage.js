// One interruption and the catch-up after it: what was missed, and what of it came.

import { isAfter, later } from "./ids.js";

export class Outage {
  /** `from`: the position at which the connection ended. `owed`: ids that are still to come from the one before. */
  constructor(from, owed = []) {
    this.from = from;
    this.until = null; // the newest id that counts as missed; null for as long as the connection is away
    this.own = new Set(owed); // ids in between that this page knows of, as it published them
    this.arrived = new Set(); // ids in between that came after the resume
    this.duplicates = 0;
    this.gap = false;
  }

  get isAway() {
    return this.until === null;
  }

  /** The connection is back; `last` is the newest id of the stream, null if it can't be learned. */
  resume(last) {
    this.until = [...this.own].reduce(later, later(this.from, last));
  }

  /** The next one, if the connection ends again at `cursor`: what this one still owes is owed by that. */
  next(cursor) {
    return new Outage(cursor, this.owed().filter((id) => isAfter(id, cursor)));
  }

  missed(id) {
    return !this.isAway && isAfter(id, this.from) && !isAfter(id, this.until);
  }

  isOver(cursor) {
    return !this.isAway && cursor !== null && !isAfter(this.until, cursor);
  }

  /** Enters an event that this page published. */
  enter(id) {
    if (isAfter(id, this.from) && (this.isAway || !isAfter(id, this.until))) this.own.add(id);
  }

  owed() {
    return [...this.own].filter((id) => !this.arrived.has(id));
  }

  /** The sum in words, and how it looks: `good`, `bad`, or `open` while more may come. */
  verdict(complete) {
    const absent = this.owed().length;
    const elsewhere = [...this.arrived].filter((id) => !this.own.has(id)).length;
    const from = elsewhere ? ` (${elsewhere} not published here)` : "";
    const sum = `Missed while cut: ${this.arrived.size + absent}${from}, received after resume: ${this.arrived.size}, duplicates: ${this.duplicates}`;
    const end = this.gap ? ". A gap notice named events that can't be delivered." : complete && absent ? `. ${absent} did not arrive.` : "";
    const bad = this.gap || this.duplicates > 0 || (complete && absent > 0);
    return { words: sum + end, mood: bad ? "bad" : complete ? "good" : "open" };
  }
}
