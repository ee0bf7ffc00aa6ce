// The client in Node, against real nodes.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { WhimbrelError, connect } from '../../../src/api/page/client/client.js';
import { Judge, counter } from './support/judge.mjs';
import { eventually, nginx, node, numbers, proxy, publish, publishAll, redis, sleep } from './support/world.mjs';

const suite = { ends: [], after: (end) => suite.ends.push(end) };
after(async () => {
  for (const end of suite.ends.reverse()) await end();
});

/** Two nodes that stay, and two more, behind nginx, that are killed under their clients. */
let nodes;
let doomed;
let front;
before(async () => {
  const store = {
    WHIMBREL_REDIS_URL: await redis(suite),
    WHIMBREL_PING_SECONDS: '1',
    WHIMBREL_RETENTION: 'topic:short*=5/3600 *=100000/3600',
  };
  const all = await Promise.all([1, 2, 3, 4].map(() => node(suite, store)));
  nodes = all.slice(0, 2);
  doomed = all.slice(2);
  front = await nginx(suite, doomed);
});

let number = 0;
/** A name that no other test uses. */
const name = (kind = 'topic') => `${kind}:${kind}-${++number}`;

function client(t, options) {
  const made = connect({ url: nodes[0].url, WebSocket, EventSource, onError: () => {}, ...options });
  t.after(() => made.close());
  return made;
}

/** So many events of a client. */
async function take(client, count) {
  const taken = [];
  if (count) for await (const event of client) if (taken.push(event) == count) break;
  return taken;
}

const isOpen = (client) => eventually('the client is open', () => client.status == 'open');

for (const transport of ['sse', 'websocket', 'eventsource']) {
  describe(transport, { concurrency: true }, () => {
    test('events come in order, once, and none is lost, while nodes are killed and started again', async (t) => {
      const streams = [name(), name('device')];
      const judge = new Judge();
      const listener = client(t, { url: front.url, streams, transport });
      listener.on('*', (event) => judge.take(event));
      await isOpen(listener);
      const publisher = client(t, { url: front.url });
      const counters = streams.map((stream) => counter(publisher, stream));
      for (const node of [...doomed, doomed[0]]) {
        const { length } = judge.received;
        await eventually('events come', () => judge.received.length > length + 20);
        await node.kill();
        await node.start();
      }
      const counts = await Promise.all(counters.map((counter) => counter.stop()));
      await eventually('all are there', () => streams.every((stream, at) => judge.of(stream).length >= counts[at]));
      streams.forEach((stream, at) => judge.check(stream, counts[at]));
    });

    test('streams come and go while it runs, with as much of their history as is asked for', async (t) => {
      const [first, second] = [name(), name()];
      const listener = client(t, { streams: [first], transport });
      const judge = new Judge();
      listener.on('*', (event) => judge.take(event));
      await isOpen(listener);
      await publishAll(nodes[1].url, second, numbers(5));
      await publish(nodes[1].url, first, 0);
      const unsubscribe = listener.subscribe(second, 'last:3');
      await eventually('the history', () => judge.of(second).length == 3);
      await publish(nodes[1].url, second, 5);
      await publish(nodes[1].url, first, 1);
      await eventually('both', () => judge.received.length == 6);
      judge.check(second, 6, 2);
      unsubscribe();
      const followers = async () => (await (await fetch(`${nodes[0].url}/v1/topics/${second.slice(6)}`)).json()).connections;
      await eventually('nobody follows it', async () => (await followers()) === 0);
      await publish(nodes[1].url, second, 6);
      await publish(nodes[1].url, first, 2);
      await eventually('the first', () => judge.of(first).length == 3);
      judge.check(first, 3);
      judge.check(second, 6, 2);
    });

    test('data comes as it was published, whatever is in it', async (t) => {
      const stream = name();
      const listener = client(t, { streams: [stream], transport });
      await isOpen(listener);
      const data = ['line\nbreak\r\n', '\u2028\u2029\u0000', '🐦 naïve', { a: [1, null, 'x'.repeat(60_000)] }, '', 0, null];
      for (const one of data) await publish(nodes[1].url, stream, one);
      assert.deepEqual((await take(listener, data.length)).map((event) => event.data), data);
    });

    test('a proxy that answers with HTML during a deployment is waited for', async (t) => {
      const stream = name();
      const way = await proxy(t, nodes[0].url);
      const listener = client(t, { url: way.url, streams: [stream], transport });
      await isOpen(listener);
      way.mode = 'html';
      way.cut();
      const { connections } = way;
      await eventually('two attempts', () => way.connections > connections + 1);
      await publish(nodes[1].url, stream, 'meanwhile');
      way.mode = 'pass';
      assert.deepEqual((await take(listener, 1)).map((event) => event.data), ['meanwhile']);
    });

    test('a client that is kicked does not come back, and learns why', async (t) => {
      const stream = name('device');
      const listener = client(t, { streams: [stream], transport });
      await isOpen(listener);
      const answer = await fetch(`${nodes[0].url}/v1/devices/${stream.slice(7)}/connections`, { method: 'DELETE' });
      assert.ok(answer.ok);
      await assert.rejects(take(listener, 1), { code: 'kicked' });
      assert.equal(listener.status, 'closed');
    });

    test('what the service refuses ends the client with its words', async (t) => {
      const listener = client(t, { streams: ['topic:no spaces'], transport });
      const refused = (error) => error instanceof WhimbrelError && error.status == 400 && /no spaces/.test(error.message);
      await assert.rejects(take(listener, 1), refused);
    });

    if (transport != 'websocket') {
      // Over WebSocket signs of life are asked for, after a time that is too long for a test here.
      test('a connection that died silently is noticed by the missing pings', async (t) => {
        const stream = name();
        const way = await proxy(t, nodes[0].url);
        const listener = client(t, { url: way.url, streams: [stream], transport });
        await isOpen(listener);
        // Pings show how often they come.
        const opened = way.pieces;
        await eventually('some pings', () => way.pieces >= opened + 4);
        way.mode = 'hang';
        const { connections } = way;
        const id = await publish(nodes[1].url, stream, 'missed');
        await eventually('another connection', () => way.connections > connections);
        way.mode = 'pass';
        way.cut();
        assert.equal((await take(listener, 1))[0].id, id);
      });
    }
  });
}

describe('client', { concurrency: true }, () => {
  test('where SSE is held back WebSocket is used, and what comes goes on where it was', async (t) => {
    const [stream, other] = [name(), name()];
    const way = await proxy(t, nodes[0].url);
    const listener = client(t, { url: way.url, streams: [stream, other], transport: ['sse', 'websocket'] });
    const judge = new Judge();
    listener.on('*', (event) => judge.take(event));
    await isOpen(listener);
    await publish(nodes[1].url, stream, 0);
    await eventually('the first', () => judge.received.length == 1);
    way.refuse = '/v1/sse';
    way.cut();
    await publish(nodes[1].url, stream, 1);
    await publish(nodes[1].url, other, 0);
    await eventually('all', () => judge.received.length == 3);
    // And back again.
    way.refuse = '/v1/ws';
    way.cut();
    await publish(nodes[1].url, stream, 2);
    await publish(nodes[1].url, other, 1);
    await eventually('all', () => judge.received.length == 5);
    judge.check(stream, 3);
    judge.check(other, 2);
  });

  test('where answers to GET are held back, the client asks by POST, and goes on where it was', async (t) => {
    const [stream, other] = [name(), name()];
    const way = await proxy(t, nodes[0].url);
    const listener = client(t, { url: way.url, streams: [stream, other], types: ['number'], transport: ['sse', 'post'] });
    const judge = new Judge();
    listener.on('*', (event) => judge.take(event));
    await isOpen(listener);
    await publish(nodes[1].url, stream, 0, '?type=number');
    await eventually('the first', () => judge.received.length == 1);
    way.hold = '/v1/sse?';
    way.cut();
    for (const type of ['other', 'number']) await publish(nodes[1].url, stream, 1, `?type=${type}`);
    await publish(nodes[1].url, other, 0, '?type=number');
    await eventually('all', () => judge.received.length == 3);
    judge.check(stream, 2);
    judge.check(other, 1);
  });

  test('more streams than fit into an address are followed, and resumed on another node', async (t) => {
    const streams = numbers(60).map(() => `${name()}:${'long'.repeat(40)}`);
    const front = await nginx(t, nodes);
    const way = await proxy(t, front.url);
    const listener = client(t, { url: way.url, streams, transport: 'sse' });
    const judge = new Judge();
    listener.on('*', (event) => judge.take(event));
    await isOpen(listener);
    const round = (n) => Promise.all(streams.map((stream) => publish(nodes[1].url, stream, n)));
    await round(0);
    await eventually('the first of each', () => judge.received.length == streams.length);
    way.target = nodes[1].url;
    way.cut();
    await round(1);
    await eventually('all', () => judge.received.length == 2 * streams.length);
    for (const stream of streams) judge.check(stream, 2);
    // Short ones have a position each.
    const others = numbers(3).map(() => name());
    for (const stream of others) await publish(nodes[1].url, stream, 'before');
    for (const stream of others) listener.subscribe(stream, 'last:1');
    await eventually('what was before', () => others.every((stream) => judge.of(stream)[0] == 'before'));
  });

  test('where there is no WebSocket, SSE is tried on', async (t) => {
    const stream = name();
    const way = await proxy(t, nodes[0].url);
    way.mode = 'html';
    const listener = client(t, { url: way.url, streams: [stream], WebSocket: undefined });
    await eventually('attempts with both', () => way.connections > 2);
    way.mode = 'pass';
    await isOpen(listener);
  });

  test('what was handled is not delivered again after a reload, and what was not is', async (t) => {
    const streams = [name(), name()];
    const kept = new Map();
    for (const asynchronous of [false, true]) {
      const storage = {
        getItem: (key) => (asynchronous ? Promise.resolve(kept.get(key)) : kept.get(key)),
        setItem: (key, value) => (kept.set(key, value), asynchronous ? sleep(1) : undefined),
      };
      const judge = new Judge();
      let page = client(t, { streams, storage, after: 'earliest' });
      await isOpen(page);
      const first = asynchronous ? 60 : 0;
      for (const stream of streams) await publishAll(nodes[1].url, stream, numbers(first + 60, first));
      for (const events of [0, 1, 30, 59, 30]) {
        for (const event of await take(page, events)) judge.take(event);
        await sleep(10);
        page.close();
        page = client(t, { streams, storage, after: 'earliest' });
      }
      for (const stream of streams) judge.check(stream, first + 60, first);
    }
  });

  test('a gap is shown in its place, and what recovers it is awaited', async (t) => {
    const stream = `topic:short-${++number}`;
    const way = await proxy(t, nodes[0].url);
    const story = [];
    let attempts = 0;
    const recover = async (gap) => {
      // What fails is tried again.
      if (!attempts++) throw new Error('the backend is away');
      story.push([gap.stream, gap.reason]);
      await sleep(50);
      story.push('recovered');
    };
    const listener = client(t, { url: way.url, streams: [stream], recover });
    listener.on('*', ({ data }) => story.push(data));
    await isOpen(listener);
    await publish(nodes[1].url, stream, 0);
    await eventually('the first', () => story.length == 1);
    way.mode = 'html';
    way.cut();
    await publishAll(nodes[1].url, stream, numbers(300, 1));
    // This node has nothing of it in its memory.
    way.target = nodes[1].url;
    way.mode = 'pass';
    await eventually('the last', () => story.at(-1) === 299);
    assert.deepEqual(story.slice(0, 3), [0, [stream, 'trimmed'], 'recovered']);
    const rest = story.slice(3);
    assert.deepEqual(rest, Array.from(rest, (_, n) => 300 - rest.length + n));
  });

  test('from where a gap was recovered, events go on', async (t) => {
    const stream = `topic:short-${++number}`;
    const way = await proxy(t, nodes[0].url);
    const seen = [];
    let newest;
    const listener = client(t, { url: way.url, streams: [stream], recover: () => ({ cursor: newest }) });
    listener.on('*', ({ data }) => seen.push(data));
    await isOpen(listener);
    way.mode = 'html';
    way.cut();
    way.target = nodes[1].url;
    newest = (await publishAll(nodes[1].url, stream, numbers(300))).at(-1);
    way.mode = 'pass';
    await eventually('it is open again', () => listener.cursor.includes(newest));
    await publish(nodes[1].url, stream, 'next');
    await eventually('the next', () => seen.length > 0);
    assert.deepEqual(seen, ['next']);
  });

  test('a slow consumer gets everything, and the connection waits for it', async (t) => {
    const stream = name();
    const listener = client(t, { streams: [stream] });
    await isOpen(listener);
    await publishAll(nodes[1].url, stream, numbers(5_000));
    await eventually('the connection is let go', () => listener.status == 'idle');
    const judge = new Judge();
    for (const event of await take(listener, 5_000)) judge.take(event);
    judge.check(stream, 5_000);
  });

  test('the next event waits until the listeners are done with the one before', async (t) => {
    const stream = name();
    const listener = client(t, { streams: [stream] });
    const story = [];
    listener.on('*', async ({ data }) => {
      story.push(`begin ${data}`);
      await sleep(20);
      story.push(`end ${data}`);
    });
    await isOpen(listener);
    await Promise.all([0, 1].map((n) => publish(nodes[1].url, stream, n)));
    await eventually('both', () => story.length == 4);
    assert.deepEqual(story.map((line) => line.split(' ')[0]), ['begin', 'end', 'begin', 'end']);
  });

  test('a listener that throws is reported, and the events go on', async (t) => {
    const stream = name();
    const errors = [];
    const listener = client(t, { streams: [stream], onError: (error) => errors.push(error.message) });
    const seen = [];
    listener.on('*', ({ data }) => {
      seen.push(data);
      throw new Error(`${data}`);
    });
    await isOpen(listener);
    for (const n of [0, 1]) await publish(nodes[1].url, stream, n);
    await eventually('both', () => seen.length == 2);
    assert.deepEqual(errors, ['0', '1']);
  });

  test('a storage that fails is reported, and the events go on', async (t) => {
    const stream = name();
    const errors = [];
    const broken = () => {
      throw new Error('the storage is full');
    };
    const storage = { getItem: broken, setItem: broken };
    const listener = client(t, { streams: [stream], storage, onError: (error) => errors.push(error.message) });
    await isOpen(listener);
    await publishAll(nodes[1].url, stream, [1, 2]);
    assert.deepEqual((await take(listener, 2)).map(({ data }) => data), [1, 2]);
    assert.deepEqual(new Set(errors), new Set(['the storage is full']));
  });

  test('listeners of a type get that type', async (t) => {
    const stream = name();
    const listener = client(t, { streams: [stream] });
    const prices = [];
    listener.on('price', ({ data }) => prices.push(data));
    await isOpen(listener);
    for (const type of ['price', 'other', 'price']) await publish(nodes[1].url, stream, type, `?type=${type}`);
    await eventually('both', () => prices.length == 2);
  });

  test('a device goes on behind what it acknowledged, by itself if it is to', async (t) => {
    const stream = name('device');
    let listener = client(t, { streams: [stream] });
    await isOpen(listener);
    const ids = [];
    for (const n of [0, 1, 2, 3]) ids.push(await publish(nodes[1].url, stream, n));
    const events = await take(listener, 4);
    await Promise.all([listener.ack(events[1]), listener.ack(events[0])]);
    listener.close();
    listener = client(t, { streams: [stream], after: 'ack', ack: true });
    assert.deepEqual((await take(listener, 2)).map((event) => event.data), [2, 3]);
    const acked = async () => (await (await fetch(`${nodes[1].url}/v1/devices/${stream.slice(7)}`)).json()).acked;
    await eventually('all is acknowledged', async () => (await acked()) == ids[3]);
  });

  test('a program whose client is closed comes to its end', async () => {
    const program = `
      import { connect } from ${JSON.stringify(new URL('../../../src/api/page/client/client.js', import.meta.url).href)};
      const client = connect({ url: '${nodes[0].url}', streams: ['${name()}'], onStatus: (status) => status == 'open' && client.close() });
      const waits = () => process.getActiveResourcesInfo().some((resource) => resource == 'Timeout');
      setImmediate(async function look() {
        if (client.status != 'closed') setTimeout(look);
        else setImmediate(() => console.log(waits() ? 'waits for timers' : 'ends'));
      });
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [said] = await once(child.stdout, 'data');
    child.kill();
    assert.equal(`${said}`, 'ends\n');
  });

  test('what is published while no node answers is stored once, and in order', async (t) => {
    const stream = name();
    const way = await proxy(t, nodes[0].url);
    const publisher = client(t, { url: way.url });
    await publisher.publish(stream, 0);
    // What was stored and not answered is the hard case.
    way.mode = 'deaf';
    const published = [1, 2, 3].map((n) => publisher.publish(stream, n));
    const stored = async () => (await (await fetch(`${nodes[1].url}/v1/topics/${stream.slice(6)}/events`)).json()).events;
    await eventually('one is stored', async () => (await stored()).length == 2);
    way.mode = 'html';
    way.cut();
    const { connections } = way;
    await eventually('it is tried again', () => way.connections > connections);
    way.mode = 'pass';
    const answers = await Promise.all(published);
    assert.deepEqual((await stored()).map(({ data }) => data), [0, 1, 2, 3]);
    assert.deepEqual(answers.map(({ duplicate }) => duplicate), [true, false, false]);
  });

  test('what is not stored is published once, and refused where nobody answers', async (t) => {
    const stream = name();
    const way = await proxy(t, nodes[0].url);
    const [publisher, listener] = [client(t, { url: way.url }), client(t, { streams: [stream] })];
    await isOpen(listener);
    await publisher.publish(stream, 'typing', { ephemeral: true, type: 'typing' });
    const [event] = await take(listener, 1);
    assert.deepEqual([event.type, event.data, event.id], ['typing', 'typing', undefined]);
    way.mode = 'html';
    way.cut();
    await assert.rejects(publisher.publish(stream, 'lost', { ephemeral: true }));
  });

  test('a publish that can not be right is refused at once, with what is wrong', async (t) => {
    const publisher = client(t, {});
    await assert.rejects(publisher.publish('topic:a b', 1), (error) => error instanceof WhimbrelError && error.status == 400);
  });

  test('a snapshot and the events after it make one value, whatever happens in between, and again after a gap', async (t) => {
    const stream = `topic:short-${++number}`;
    const way = await proxy(t, nodes[0].url);
    // The application's own backend: a sum, and the cursor of the moment in which it has that value.
    let sum = 0;
    let cursor;
    const add = async (numbers) => {
      for (const number of numbers) sum += number;
      cursor = (await publishAll(nodes[1].url, stream, numbers)).at(-1);
    };
    await add([1, 2, 3]);
    let loads = 0;
    const listener = client(t, { url: way.url, streams: [stream] });
    const state = listener.state(
      async () => {
        loads++;
        const snapshot = { cursor, value: sum };
        // It is old by the time it arrives.
        await add([10, 20]);
        return snapshot;
      },
      (value, { data }) => value + data,
    );
    await eventually('the sum', () => state.value === sum);
    await isOpen(listener);
    await add([100]);
    await eventually('the sum', () => state.value === sum);
    way.mode = 'html';
    way.cut();
    way.target = nodes[1].url;
    await add(numbers(300));
    way.mode = 'pass';
    await eventually('the snapshot is loaded again', () => loads == 2);
    await eventually('the sum', () => state.value === sum);
  });

  test('a snapshot without a cursor of its own misses nothing that happens while it is loaded', async (t) => {
    const stream = name();
    const board = {};
    const set = async (key, value) => {
      board[key] = value;
      await publish(nodes[1].url, stream, { key, value });
    };
    await set('a', 1);
    const listener = client(t, { streams: [stream] });
    const state = listener.state(
      async () => {
        const value = { ...board };
        await set('b', 2);
        return { value };
      },
      (value, { data }) => ({ ...value, [data.key]: data.value }),
    );
    await eventually('both', () => state.value?.b == 2);
    assert.deepEqual(state.value, { a: 1, b: 2 });
  });

  test('subscriptions that change their mind in one turn cost no connection', async (t) => {
    const stream = name();
    const way = await proxy(t, nodes[0].url);
    const listener = client(t, { url: way.url });
    listener.subscribe(stream)();
    const unsubscribe = listener.subscribe(stream);
    await isOpen(listener);
    const { connections } = way;
    unsubscribe();
    listener.subscribe(stream);
    await publish(nodes[1].url, stream, 'still here');
    assert.deepEqual((await take(listener, 1)).map(({ data }) => data), ['still here']);
    assert.equal(way.connections, connections);
  });

  test('a client that is closed ends its iteration, and leaves no connection', async (t) => {
    const stream = name();
    const listener = client(t, { streams: [stream] });
    const ended = take(listener, 1);
    await isOpen(listener);
    listener.close();
    assert.deepEqual(await ended, []);
    const followers = async () => (await (await fetch(`${nodes[0].url}/v1/topics/${stream.slice(6)}`)).json()).connections;
    await eventually('nobody follows it', async () => (await followers()) === 0);
  });
});
