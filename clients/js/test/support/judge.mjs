// What was published against what was received: in order, once, none lost.
import assert from 'node:assert/strict';
import { numbers } from './world.mjs';

export class Judge {
  received = [];

  /** Takes events whose data is `{ n }` or a number, by stream. */
  take({ stream, data }) {
    this.received.push([stream, data.n ?? data]);
  }

  of(stream) {
    return this.received.filter(([name]) => name == stream).map(([, n]) => n);
  }

  /** Of this stream, exactly the numbers from `first` up to `end` were received. */
  check(stream, end, first = 0) {
    assert.deepEqual(this.of(stream), numbers(end, first));
  }
}

/** Publishes numbers through a client until it is stopped; gives how many. */
export function counter(client, stream, pause = 5) {
  let going = true;
  const run = (async () => {
    let n = 0;
    for (; going; n++) {
      await client.publish(stream, { n });
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    return n;
  })();
  return { stop: () => ((going = false), run) };
}
