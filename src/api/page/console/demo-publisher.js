// The demo's publisher: one event after another, so that their order is the one intended.

import { publish } from "./service.js";

const BACKLOG = 60; // publishes waiting for those before them

export class Publisher {
  #number = 0; // counts what the burst and the ticker send
  #backlog = 0;
  #last = Promise.resolve();
  #ticking = 0;

  /** `on` has `stored(stream, answer)` and `failed(words)`. */
  constructor(on) {
    this.on = on;
  }

  /** Publishes to the stream that `next` names when its time has come. */
  publish({ stream, body, asText, type }) {
    if (this.#backlog >= BACKLOG) return;
    this.#backlog += 1;
    this.#last = this.#last.then(async () => {
      try {
        this.on.stored(stream, await publish(stream, body, { asText, type }));
      } catch (error) {
        this.on.failed(error.message);
      }
      this.#backlog -= 1;
    });
  }

  /** The same with a running number, so that the order can be seen; a JSON object gets it as `n`. */
  numbered(event) {
    this.#number += 1;
    return { ...event, body: event.asText ? `${event.body} ${this.#number}` : withNumber(event.body, this.#number) };
  }

  /** Publishes what `make` gives each second, or stops that. */
  tick(make) {
    clearInterval(this.#ticking);
    this.#ticking = 0;
    if (!make) return;
    this.publish(make());
    this.#ticking = setInterval(() => this.#backlog < 5 && this.publish(make()), 1000);
  }

  get isTicking() {
    return this.#ticking !== 0;
  }
}

function withNumber(body, number) {
  try {
    const value = JSON.parse(body);
    const isObject = value && typeof value === "object" && !Array.isArray(value);
    return isObject ? JSON.stringify({ ...value, n: number }) : body;
  } catch {
    return body;
  }
}
