/** Where a client stands in each stream, as values of `after`: each overrides those before it. */

import type { Frame } from './transport/frame.js';

/** `STREAM/ID`, or a cursor of several streams: it stands for itself. */
const COMPLETE = /^(.+)\/|^c1\./;

export class Position {
  /** By stream, or by itself where it is a cursor of several. */
  #entries = new Map<string, string>();

  /** Becomes a copy. */
  set(from: Position): void {
    this.#entries = new Map(from.#entries);
  }

  /** Takes a word, an id, a cursor, or several values separated by spaces, for these streams. */
  put(after: string, streams: string[]): void {
    for (const part of after.split(' ')) {
      const text = part.replace(/\.stop$/, '');
      const complete = COMPLETE.exec(text);
      if (complete) this.#enter(complete[1] ?? text, text);
      else if (text) for (const stream of streams) this.#enter(stream, stream + '/' + text);
    }
  }

  drop(stream: string): void {
    this.#entries.delete(stream);
  }

  /** Moves over a frame. */
  move({ cursor, positions, stream, id }: Frame): void {
    if (cursor || positions) this.#entries.clear();
    if (cursor) this.put(cursor, []);
    for (const name in positions) this.put(positions[name]!, [name]);
    if (!cursor && stream && id) this.put(id, [stream]);
  }

  list(): string[] {
    return [...this.#entries.values()];
  }

  toString(): string {
    return this.list().join(' ');
  }

  #enter(key: string, value: string): void {
    this.drop(key);
    this.#entries.set(key, value);
  }
}

/** Whether event id `a` comes after `b`. Either number of an id may exceed what a Number holds exactly. */
export function isAfter(a: string, b = ''): boolean {
  const padded = (id: string) => id.split('-').map((number) => number.padStart(20, '0')).join();
  return padded(a) > padded(b);
}
