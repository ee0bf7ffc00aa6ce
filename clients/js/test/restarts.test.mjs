// Rolling restarts under many clients: two nodes behind nginx are stopped, killed, and away at the same time. The
// checker of the fault tests judges what was received. `npm run restarts` is the large version.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { connect } from '../../../src/api/page/client/client.js';
import { launch } from './support/browser.mjs';
import { History } from './support/history.mjs';
import { eventually, folder, nginx, node, numbers, other, redis, sleep } from './support/world.mjs';

/** Clients in Node, and tabs in Chromium. */
const CLIENTS = Number(process.env.RESTARTS_CLIENTS ?? 6);
const TABS = Number(process.env.RESTARTS_TABS ?? 3);
/** How often all nodes are restarted. */
const ROUNDS = Number(process.env.RESTARTS_ROUNDS ?? 1);
const PATIENCE = 60_000 + 500 * CLIENTS;

const TOPIC = 'topic:news';
const TRANSPORTS = ['sse', 'websocket', 'eventsource'];

/** Which node answers. */
async function idOf({ url }) {
  return (await (await fetch(`${url}/health/ready`)).json()).node;
}

test(`${CLIENTS} clients, ${TABS} tabs and one in Python lose nothing while nodes are restarted one after the other`, async (t) => {
  const settings = {
    WHIMBREL_REDIS_URL: await redis(t),
    WHIMBREL_PING_SECONDS: '1',
    WHIMBREL_RETENTION: '*=100000/3600',
    WHIMBREL_DRAIN_DELAY_SECONDS: '0',
    WHIMBREL_DRAIN_SECONDS: '1',
    WHIMBREL_LOG: 'warn,whimbrel=info',
  };
  const nodes = await Promise.all([1, 2].map(() => node(t, settings)));
  const files = folder(t);
  writeFileSync(join(files, 'page.html'), '<!doctype html><title>page</title>');
  const front = await nginx(t, nodes, files);
  const history = new History();
  const errors = [];

  const streamsOf = (n) => [TOPIC, `device:${n}`];
  /** By listener: up to which number it received what was published to the topic. */
  const reached = new Map();
  const gaps = [];
  const session = async (name, streams) => {
    const query = new URLSearchParams(streams.map((stream) => stream.split(':')));
    const { cursor, positions } = await (await fetch(`${front.url}/v1/cursor?${query}`)).json();
    const seen = history.session(name, positions);
    reached.set(name, -1);
    const event = (event) => {
      seen.event(event);
      if (event.stream == TOPIC) reached.set(name, event.data);
    };
    return { cursor, event, gap: (gap) => (gaps.push(gap), seen.gap(gap)) };
  };

  for (const n of numbers(CLIENTS)) {
    const { cursor, event, gap } = await session(`node-${n}`, streamsOf(n));
    const client = connect({
      url: front.url,
      streams: streamsOf(n),
      after: cursor,
      transport: TRANSPORTS[n % 3],
      WebSocket,
      EventSource,
      onGap: gap,
      onError: (error) => errors.push(error),
    });
    t.after(() => client.close());
    client.on('*', event);
  }

  // It takes the topic from its beginning, and that is now.
  const python = await session('python', [TOPIC]);
  other(t, 'python', 'whimbrel', front.url, 'news', ({ id, data }) => python.event({ stream: TOPIC, id, data: JSON.parse(data) }));

  const browser = await launch(t);
  const tabs = [];
  for (const n of numbers(TABS)) {
    const { cursor, event, gap } = await session(`tab-${n}`, streamsOf(CLIENTS + n));
    // A profile of its own, or they would share six connections.
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.exposeFunction('received', event);
    await page.exposeFunction('missing', gap);
    await page.goto(`${front.url}/files/page.html`);
    const options = { streams: streamsOf(CLIENTS + n), after: cursor, transport: TRANSPORTS[n % 3] };
    await page.evaluate(async (options) => {
      const { connect } = await import('/client.js');
      window.client = connect({ ...options, onGap: (gap) => window.missing(gap) });
      window.client.on('*', ({ stream, id, data }) => window.received({ stream, id, data }));
    }, options);
    tabs.push({ name: `tab-${n}`, context, page });
  }

  const publisher = connect({ url: front.url, onError: (error) => errors.push(error) });
  t.after(() => publisher.close());
  let going = true;
  let published = 0;
  const publishing = Promise.all([
    (async () => {
      for (; going; published++) {
        await history.publish(publisher, 'topic', TOPIC, published);
        await sleep(20);
      }
    })(),
    (async () => {
      for (let n = 0; going; n++) {
        const device = n % (CLIENTS + TABS);
        await history.publish(publisher, 'devices', `device:${device}`, `${device}: ${n}`);
        await sleep(5);
      }
    })(),
  ]);

  /** Everybody but these received what is published from now on. */
  const caughtUp = async (what, but = []) => {
    const now = published;
    const behind = () => [...reached].filter(([name, number]) => number < now && !but.includes(name)).map(([name]) => name);
    await eventually(`${what}: ${behind().length} are behind`, () => published > now && !behind().length, PATIENCE);
  };

  await caughtUp('all are connected');
  // One tab sleeps meanwhile, and another one's network is gone.
  const [sleeper, traveller] = tabs;
  const debug = await sleeper.context.newCDPSession(sleeper.page);
  await debug.send('Page.setWebLifecycleState', { state: 'frozen' });
  await traveller?.context.setOffline(true);
  const away = [sleeper.name, traveller?.name];
  for (const round of numbers(ROUNDS)) {
    for (const [n, node] of nodes.entries()) {
      const signal = (round + n) % 2 ? 'SIGKILL' : 'SIGTERM';
      await node.kill(signal);
      await caughtUp(`after ${signal}`, away);
      await node.start();
      // Whoever restarts the next one has seen that the proxy uses this one again.
      await eventually('the proxy uses it', async () => (await idOf(front)) == (await idOf(node)));
    }
  }
  await debug.send('Page.setWebLifecycleState', { state: 'active' });
  await traveller?.context.setOffline(false);
  await caughtUp('after sleep');

  // Nobody is there: the proxy answers in HTML.
  await Promise.all(nodes.map((node) => node.kill()));
  const html = await fetch(`${front.url}/v1/sse?topic=news`);
  assert.deepEqual([html.status, html.headers.get('content-type')], [502, 'text/html']);
  await Promise.all(nodes.map((node) => node.start()));
  await caughtUp('after both were away');

  going = false;
  await publishing;
  await eventually('all have the last', () => [...reached.values()].every((number) => number == published - 1), PATIENCE);
  for (const stream of [TOPIC, ...numbers(CLIENTS + TABS).map((n) => `device:${n}`)]) await history.log(front.url, stream);
  assert.deepEqual([gaps, errors], [[], []]);
  t.diagnostic(history.check(folder(t)));
});
