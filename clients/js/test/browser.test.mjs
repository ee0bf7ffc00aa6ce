// The client in Chromium: pages of two nodes behind nginx, which are killed and started again.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect } from '../../../src/api/page/client/client.js';
import { launch } from './support/browser.mjs';
import { counter } from './support/judge.mjs';
import { SECRET, token } from './support/tokens.mjs';
import { eventually, folder, nginx, node, numbers, proxy, publish, publishAll, redis } from './support/world.mjs';

const suite = { ends: [], after: (end) => suite.ends.push(end) };
after(async () => {
  for (const end of suite.ends.reverse()) await end();
});

/** Two nodes that stay, behind a proxy, and two that are killed under their clients, behind another. */
let doomed;
let risky;
let front;
let browser;
before(async () => {
  const store = { WHIMBREL_REDIS_URL: await redis(suite), WHIMBREL_PING_SECONDS: '1', WHIMBREL_RETENTION: '*=100000/3600' };
  const nodes = await Promise.all([1, 2, 3, 4].map(() => node(suite, store)));
  doomed = nodes.splice(2);
  const files = folder(suite);
  writeFileSync(join(files, 'page.html'), '<!doctype html><title>page</title>');
  front = await nginx(suite, nodes, files);
  risky = await nginx(suite, doomed, files);
  browser = await launch(suite);
});

let count = 0;
const name = (kind = 'topic') => `${kind}:${kind}-${++count}`;

/** A browser profile of its own. */
async function profile(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return context;
}

/** A tab with a client, which keeps what it receives in `window.got`. */
async function tab(context, options, url = front.url) {
  const page = await context.newPage();
  page.on('pageerror', (error) => console.error('page:', error.message));
  await page.goto(`${url}/files/page.html`);
  await follow(page, options);
  return page;
}

async function follow(page, options) {
  await page.evaluate(async ({ storage, ...options }) => {
    const { connect } = await import('/client.js');
    window.got = [];
    window.errors = [];
    window.client = connect({
      ...options,
      storage: storage && window[storage],
      onError: (error) => window.errors.push(String(error)),
    });
    client.on('*', ({ stream, data }) => window.got.push([stream, data.n ?? data]));
  }, options);
}

const got = (page, stream) => page.evaluate((stream) => got.filter(([name]) => name == stream).map(([, n]) => n), stream);
const isOpen = (page) => eventually('the client is open', () => page.evaluate(() => client.status == 'open'));
const has = (page, stream, length) =>
  eventually(`${length} events`, async () => (await got(page, stream)).length >= length).catch(async (error) => {
    const state = await page.evaluate(() => ({ status: client.status, cursor: client.cursor, got, errors, stored: { ...localStorage } }));
    throw new Error(`${error.message}, but ${JSON.stringify(state)}`);
  });

/** How many connections follow a topic. */
async function followers(stream) {
  const answer = await fetch(`${front.url}/v1/topics/${stream.slice(6)}`);
  return answer.ok ? (await answer.json()).connections : undefined;
}

describe('in a browser', { concurrency: true }, () => {
  describe('nodes are killed', { concurrency: 1 }, () => {
    test('pages get all in order and once by every transport, while the nodes are killed and started again', async (t) => {
      const stream = name();
      const context = await profile(t);
      const transports = ['sse', 'eventsource', 'websocket'];
      const pages = await Promise.all(transports.map((transport) => tab(context, { streams: [stream], transport }, risky.url)));
      await Promise.all(pages.map(isOpen));
      const publisher = connect({ url: risky.url, onError: () => {} });
      t.after(() => publisher.close());
      const counted = counter(publisher, stream);
      for (const node of doomed) {
        for (const page of pages) await has(page, stream, (await got(page, stream)).length + 10);
        await node.kill();
        await node.start();
      }
      const end = await counted.stop();
      for (const page of pages) {
        await has(page, stream, end);
        assert.deepEqual(await got(page, stream), numbers(end));
      }
    });

    test('a page whose timers stood still in the background comes back when it is looked at', async (t) => {
      const stream = name();
      const context = await profile(t);
      const page = await tab(context, { streams: [stream] }, risky.url);
      await isOpen(page);
      const debug = await context.newCDPSession(page);
      await debug.send('Page.setWebLifecycleState', { state: 'frozen' });
      await publishAll(front.url, stream, numbers(50));
      // Its connection ends meanwhile, and nothing in the page runs to notice.
      await Promise.all(doomed.map((node) => node.kill()));
      await Promise.all(doomed.map((node) => node.start()));
      await publishAll(front.url, stream, numbers(100, 50));
      await debug.send('Page.setWebLifecycleState', { state: 'active' });
      await has(page, stream, 100);
      assert.deepEqual(await got(page, stream), numbers(100));
    });
  });

  describe('a page', { concurrency: true }, () => {
    test('goes on after a reload where it was, with the cursor in its storage', async (t) => {
      const stream = name();
      const options = { streams: [stream], storage: 'localStorage' };
      const page = await tab(await profile(t), options);
      await isOpen(page);
      await publishAll(front.url, stream, numbers(10));
      await has(page, stream, 10);
      await page.reload();
      await publishAll(front.url, stream, numbers(20, 10));
      await follow(page, options);
      await has(page, stream, 10);
      assert.deepEqual(await got(page, stream), numbers(20, 10));
    });

    test('that lost its network comes back with it, and misses nothing', async (t) => {
      const stream = name();
      const context = await profile(t);
      const page = await tab(context, { streams: [stream] });
      await isOpen(page);
      await publish(front.url, stream, 0);
      await has(page, stream, 1);
      await context.setOffline(true);
      assert.equal(await page.evaluate(() => navigator.onLine), false);
      await publish(front.url, stream, 1);
      // What is published from the page meanwhile waits for the network too.
      await page.evaluate((stream) => void client.publish(stream, 2), stream);
      await context.setOffline(false);
      await has(page, stream, 3);
      assert.deepEqual(await got(page, stream), numbers(3));
    });
  });

  describe('a proxy, a lid', { concurrency: true }, () => {
    for (const transport of ['sse', 'websocket', 'eventsource']) {
      test(`${transport}: a proxy that answers a page with HTML during a deployment is waited for`, async (t) => {
        const stream = name();
        const balancer = await proxy(t, front.url);
        const page = await tab(await profile(t), { streams: [stream], transport }, balancer.url);
        await isOpen(page);
        await publish(front.url, stream, 0);
        await has(page, stream, 1);
        const before = balancer.connections;
        balancer.mode = 'html';
        balancer.cut();
        await eventually('it was refused twice', () => balancer.connections >= before + 2);
        await publish(front.url, stream, 1);
        balancer.mode = 'pass';
        await has(page, stream, 2);
        assert.deepEqual(await got(page, stream), [0, 1]);
      });

      test(`${transport}: after a sleep the page finds its connection dead, gets a new token, and misses nothing`, async (t) => {
        const whimbrel = await node(t, { WHIMBREL_JWT_SECRET: SECRET, WHIMBREL_PING_SECONDS: '1' });
        const network = await proxy(t, whimbrel.url);
        const page = await (await profile(t)).newPage();
        // The page's own clock, which jumps as one does behind a closed lid.
        await page.clock.install();
        await page.goto(`${network.url}/health/live`);
        const tokens = [];
        await page.exposeFunction('newToken', () => (tokens.push(token('sleeper', tokens.length ? 86_400 : 7200)), tokens.at(-1)));
        await page.evaluate(async (transport) => {
          const { connect } = await import('/client.js');
          window.got = [];
          window.client = connect({ streams: ['device:sleeper'], transport, token: () => newToken() });
          client.on('*', ({ data }) => got.push(data));
        }, transport);
        await isOpen(page);
        await page.evaluate(() => client.publish('device:sleeper', 0));
        await eventually('the first', () => page.evaluate(() => got.length == 1));
        assert.equal(tokens.length, 1);
        network.strand();
        const headers = { authorization: `Bearer ${tokens[0]}`, 'content-type': 'application/json' };
        assert.equal((await fetch(`${whimbrel.url}/v1/devices/sleeper/events`, { method: 'POST', body: '1', headers })).status, 201);
        await page.clock.fastForward('03:00:00');
        await eventually('the second', () => page.evaluate(() => got.length == 2));
        assert.deepEqual(await page.evaluate(() => got), [0, 1]);
        assert.equal(tokens.length, 2);
      });
    }
  });

  describe('tabs', { concurrency: true }, () => {
    test('share one connection, and the next one goes on where the leader was when its tab is closed', async (t) => {
      const stream = name();
      const context = await profile(t);
      const options = { streams: [stream], tabs: true };
      const tabs = [];
      // Over HTTP/1.1 a browser has six connections to a host.
      for (let n = 0; n < 8; n++) tabs.push(await tab(context, options));
      await Promise.all(tabs.map(isOpen));
      assert.equal(await followers(stream), 1);
      const publisher = connect({ url: front.url });
      t.after(() => publisher.close());
      const counted = counter(publisher, stream);
      for (let n = 0; n < 3; n++) {
        const { length } = await got(tabs.at(-1), stream);
        await has(tabs.at(-1), stream, length + 10);
        await tabs.shift().close();
      }
      const end = await counted.stop();
      for (const tab of tabs) {
        await has(tab, stream, end);
        assert.deepEqual(await got(tab, stream), numbers(end));
      }
      assert.equal(await followers(stream), 1);
    });

    test('follow what each of them wants, and no more than that', async (t) => {
      const [mine, yours] = [name(), name()];
      const context = await profile(t);
      const first = await tab(context, { streams: [mine], tabs: 'shared' });
      const second = await tab(context, { streams: [yours], tabs: 'shared' });
      await Promise.all([first, second].map(isOpen));
      for (const n of [0, 1]) for (const stream of [mine, yours]) await publish(front.url, stream, n);
      await has(first, mine, 2);
      await has(second, yours, 2);
      assert.deepEqual(await first.evaluate(() => got.length), 2);
      assert.deepEqual(await second.evaluate(() => got.length), 2);
      await second.close();
      await eventually('one is left', async () => (await followers(yours)) == 0);
      await publish(front.url, mine, 2);
      await has(first, mine, 3);
      assert.deepEqual(await got(first, mine), numbers(3));
    });

    test('are open once the connection has their streams, and not before', async (t) => {
      const [mine, yours] = [name(), name()];
      const context = await profile(t);
      const balancer = await proxy(t, front.url);
      const leader = await tab(context, { streams: [mine], tabs: true }, balancer.url);
      await isOpen(leader);
      balancer.hold = '/v1/sse';
      const second = await tab(context, { streams: [yours], tabs: true }, balancer.url);
      // On a busy machine the leader gives up the attempt meanwhile, and waits before the next.
      const status = await eventually('it knows its leader', () => second.evaluate(() => client.status != 'idle' && client.status));
      assert.ok(['connecting', 'waiting'].includes(status), status);
      balancer.hold = undefined;
      balancer.cut();
      await isOpen(second);
      await publish(front.url, yours, 0);
      await has(second, yours, 1);
    });

    test('get the history that one of them asks for, and the others nothing twice', async (t) => {
      const stream = name();
      await publishAll(front.url, stream, numbers(10));
      const context = await profile(t);
      const first = await tab(context, { streams: [stream], tabs: true, after: 'last:5' });
      await has(first, stream, 5);
      const second = await tab(context, { streams: [stream], tabs: true, after: 'earliest' });
      await has(second, stream, 10);
      await publish(front.url, stream, 10);
      for (const [tab, begin] of [[first, 5], [second, 0]]) {
        await has(tab, stream, 11 - begin);
        assert.deepEqual(await got(tab, stream), numbers(11, begin));
      }
    });

    test('that want different streams go on where they were, each after a reload', async (t) => {
      const [mine, yours] = [name(), name('device')];
      const context = await profile(t);
      const options = (stream) => ({ streams: [stream], tabs: true, storage: 'localStorage', ack: true });
      const first = await tab(context, options(mine));
      await isOpen(first);
      const second = await tab(context, options(yours));
      await isOpen(second);
      for (const n of [0, 1]) for (const stream of [mine, yours]) await publish(front.url, stream, n);
      await has(first, mine, 2);
      await has(second, yours, 2);
      // The first leads, and doesn't follow the inbox. What the second handled is acknowledged all the same.
      const inbox = async () => (await fetch(`${front.url}/v1/devices/${yours.slice(7)}`)).json();
      await eventually('all is acknowledged', async () => (await inbox()).pending === 0);
      const stored = (stream) => localStorage.getItem(`whimbrel:${location.origin}:${stream}`) == client.cursor;
      await eventually('all is stored', async () => (await first.evaluate(stored, mine)) && second.evaluate(stored, yours));
      // One that does not lead is loaded anew, and then the one that leads.
      for (const [page, stream] of [[second, yours], [first, mine]]) {
        await page.reload();
        await publish(front.url, stream, 2);
        await follow(page, options(stream));
        await has(page, stream, 1);
        assert.deepEqual(await got(page, stream), [2]);
      }
    });

    test('acknowledge what they handle, and no more than that', async (t) => {
      const [mine, yours] = [name(), name('device')];
      const context = await profile(t);
      const leader = await tab(context, { streams: [mine], tabs: true, ack: true });
      await isOpen(leader);
      const page = await context.newPage();
      await page.goto(`${front.url}/files/page.html`);
      await page.evaluate(async (stream) => {
        const { connect } = await import('/client.js');
        window.client = connect({ streams: [stream], tabs: true, ack: true });
        window.handling = [];
        client.on('*', ({ data }) => new Promise((done) => handling.push([data, done])));
      }, yours);
      await isOpen(page);
      const ids = [];
      for (const n of [0, 1]) ids.push(await publish(front.url, yours, n));
      const acked = async () => (await (await fetch(`${front.url}/v1/devices/${yours.slice(7)}`)).json()).acked;
      await eventually('it handles the first', () => page.evaluate(() => handling.length == 1));
      assert.equal(await acked(), null);
      await page.evaluate(() => handling[0][1]());
      await eventually('the first is acknowledged', async () => (await acked()) == ids[0]);
    });

    test('take over from a leader whose tab is frozen', async (t) => {
      const stream = name();
      const context = await profile(t);
      const leader = await tab(context, { streams: [stream], tabs: true });
      await isOpen(leader);
      const other = await tab(context, { streams: [stream], tabs: true });
      await isOpen(other);
      const debug = await context.newCDPSession(leader);
      await debug.send('Page.setWebLifecycleState', { state: 'frozen' });
      await publishAll(front.url, stream, numbers(5));
      await eventually('the other has them', async () => (await got(other, stream)).length == 5, 60_000);
      await debug.send('Page.setWebLifecycleState', { state: 'active' });
      await publish(front.url, stream, 5);
      for (const tab of [leader, other]) {
        await has(tab, stream, 6);
        assert.deepEqual(await got(tab, stream), numbers(6));
      }
      assert.equal(await followers(stream), 1);
    });
  });
});
