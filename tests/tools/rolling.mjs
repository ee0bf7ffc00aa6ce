// EventSources and a publisher behind a balancer, while nodes restart behind it.
//
//   node rolling.mjs URL CLIENTS
//
// Says `open` once every client is there. At the first line of standard input it stops publishing, waits until each
// client has everything, and prints what happened.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

// What scripts/test installed.
const installed = createRequire(new URL('../../target/tools/package.json', import.meta.url));
const { EventSource } = installed('eventsource');

const [url, count] = process.argv.slice(2);
const PATIENCE = 20_000;

class Client {
  closes = 0;
  gaps = 0;
  pauses = [];
  seen = new Map();
  #away = performance.now();

  constructor() {
    this.source = new EventSource(`${url}/v1/sse?topic=rolling`);
    this.placed = new Promise((resolve) => this.source.addEventListener('whimbrel:position', resolve, { once: true }));
    this.source.addEventListener('whimbrel:position', () => {
      if (this.#away && this.closes > 0) this.pauses.push(performance.now() - this.#away);
      this.#away = null;
    });
    this.source.addEventListener('error', () => {
      if (this.#away) return;
      this.#away = performance.now();
      this.closes += 1;
    });
    this.source.addEventListener('whimbrel:gap', () => { this.gaps += 1; });
    this.source.addEventListener('message', ({ data }) => this.seen.set(data, (this.seen.get(data) ?? 0) + 1));
  }
}

let published = 0;
let publishing = true;

async function publish() {
  for (; publishing; published += 1) {
    const headers = { 'content-type': 'application/json', 'idempotency-key': `rolling-${published}` };
    for (let status = 0; status !== 200 && status !== 201;) {
      // What becomes of it is unknown after a failure: the key makes it safe to repeat.
      const answer = await fetch(`${url}/v1/topics/rolling/events`, { method: 'POST', body: `${published}`, headers }).catch(() => null);
      await answer?.text();
      status = answer?.status ?? 0;
      await sleep(status ? 50 : 100);
    }
  }
}

const clients = Array.from({ length: Number(count) }, () => new Client());
await Promise.all(clients.map(({ placed }) => placed));
const publisher = publish();
console.log('open');

const lines = createInterface({ input: process.stdin });
await new Promise((resolve) => lines.once('line', resolve));
publishing = false;
await publisher;
const deadline = performance.now() + PATIENCE;
while (clients.some(({ seen }) => seen.size < published) && performance.now() < deadline) await sleep(20);

const sum = (of) => clients.reduce((total, client) => total + of(client), 0);
const pauses = clients.flatMap((client) => client.pauses).sort((a, b) => a - b);
console.log(JSON.stringify({
  published,
  most_closes: Math.max(...clients.map(({ closes }) => closes)),
  closes: sum(({ closes }) => closes),
  lost: sum(({ seen }) => published - seen.size),
  twice: sum(({ seen }) => [...seen.values()].filter((times) => times > 1).length),
  gaps: sum(({ gaps }) => gaps),
  pause_p50_ms: Math.round(pauses[Math.floor(pauses.length / 2)] ?? 0),
  pause_max_ms: Math.round(pauses.at(-1) ?? 0),
}));
process.exit(0);
