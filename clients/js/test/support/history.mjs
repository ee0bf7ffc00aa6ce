// A history of what was published and received, which the program itself judges: `whimbrel check --history`.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROGRAM } from './world.mjs';

const payloadOf = (data) => createHash('sha256').update(JSON.stringify(data)).digest('base64');

export class History {
  #lines = [];
  #sessions = 0;
  /** What each producer published so far, in all and by stream. */
  #published = new Map();

  #record(record, fields) {
    this.#lines.push(JSON.stringify({ record, ...fields }));
  }

  /** Publishes by a client, which repeats it until it is answered. */
  async publish(client, producer, stream, data) {
    const counts = this.#published.get(producer) ?? new Map();
    this.#published.set(producer, counts.set('', (counts.get('') ?? 0) + 1).set(stream, (counts.get(stream) ?? 0) + 1));
    const sequence = counts.get('');
    this.#record('publish', { producer, sequence, stream, stream_sequence: counts.get(stream), payload: payloadOf(data) });
    const { id } = await client.publish(stream, data);
    this.#record('outcome', { producer, sequence, outcome: 'ok', id });
  }

  /** A client listens from these positions on. All that it is given is one session, whatever its connections do. */
  session(client, positions) {
    const session = ++this.#sessions;
    this.#record('session', { session, client, streams: Object.keys(positions), after: positions });
    this.#record('position', { session, at: positions });
    return {
      event: ({ stream, id, data }) => this.#record('event', { session, stream, id, payload: payloadOf(data) }),
      gap: (gap) => this.#record('gap', { session, ...gap }),
    };
  }

  /** What the service keeps of a stream now. */
  async log(url, stream) {
    const [kind, ...name] = stream.split(':');
    const ids = [];
    for (let more = true; more; ) {
      const after = ids.length ? `&after=${ids.at(-1)}` : '';
      const { events } = await (await fetch(`${url}/v1/${kind}s/${name.join(':')}/events?limit=1000${after}`)).json();
      ids.push(...events.map(({ id }) => id));
      more = events.length > 0;
    }
    this.#record('log', { stream, ids });
  }

  /** Fails with each promise that was broken. Everybody has read to the end. */
  check(folder) {
    this.#record('quiet');
    const file = join(folder, 'history.jsonl');
    writeFileSync(file, this.#lines.join('\n'));
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WHIMBREL_')));
    const { status, stdout, stderr } = spawnSync(PROGRAM, ['check', '--history', file], { env, encoding: 'utf8', maxBuffer: 1e8 });
    assert.equal(status, 0, stdout + stderr);
    return stdout.trim();
  }
}
