// Holds a running node to what its /asyncapi.json says: every frame that stock clients receive has to be
// one of the described messages, and every described message has to come.
//
//   node asyncapi.mjs URL PID CLOSED TOKEN OTHER
//
// The node is stopped in the end, to hear how it says goodbye. CLOSED is a node that lets in nobody without a token:
// TOKEN is one of device 42 for topic:a that ends within a minute, OTHER one that lasts and covers no topic.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// What scripts/test installed.
const installed = createRequire(new URL('../../target/tools/package.json', import.meta.url));
const { Parser } = installed('@asyncapi/parser');
const Ajv = installed('ajv/dist/2020').default;
const formats = installed('ajv-formats').default;
const { EventSource } = installed('eventsource');
const WebSocket = installed('ws');

const [url, pid, closed, token, other] = process.argv.slice(2);
const document = await (await fetch(`${url}/asyncapi.json`)).text();
const { diagnostics } = await new Parser().parse(document);
assert.deepEqual(diagnostics.filter(({ severity }) => severity <= 1).map(({ message }) => message), []);

const ajv = new Ajv({ strict: false });
formats(ajv);
const { components } = JSON.parse(document);
ajv.addSchema({ $id: 'doc', components });
// What is spoken to Redis, and what comes only after a fault: both are tested elsewhere.
const elsewhere = (message) => message.startsWith('redis.') || message.endsWith('.members');
const described = Object.keys(components.messages).filter((message) => !elsewhere(message));
const seen = new Set();
const missing = () => described.filter((message) => !seen.has(message));
setTimeout(() => assert.fail(`still waiting after a minute; never came: ${missing()}`), 60_000).unref();

function check(message, payload) {
  const validate = ajv.getSchema(`doc#/components/messages/${message}/payload`);
  assert.ok(validate, `${message} is not described: ${JSON.stringify(payload)}`);
  assert.ok(validate(payload), `${message} ${JSON.stringify(payload)}: ${ajv.errorsText(validate.errors)}`);
  seen.add(message);
}

async function publish(stream, data) {
  const answer = await fetch(`${url}/v1/${stream}/events`, { method: 'POST', body: JSON.stringify(data) });
  assert.equal(answer.status, 201);
  return (await answer.json()).id;
}

// Everything a WebSocket gets, checked as it comes; `frame(op)` waits for the next of a kind.
function webSocket(query, base = url) {
  const socket = new WebSocket(`${base.replace('http', 'ws')}/v1/ws?${query}`);
  const frames = [];
  let arrived = () => {};
  socket.on('message', (text) => {
    const frame = JSON.parse(text);
    check(`ws.server.${frame.op}`, frame);
    frames.push(frame);
    arrived();
  });
  socket.on('error', (error) => { throw error; });
  return {
    ask(operation) {
      check(`ws.client.${operation.op}`, operation);
      socket.send(JSON.stringify(operation));
    },
    async frame(op) {
      for (;;) {
        const at = frames.findIndex((frame) => frame.op === op);
        if (at >= 0) return frames.splice(at, 1)[0];
        await new Promise((resolve) => { arrived = resolve; });
      }
    },
  };
}

// The next SSE event of a kind.
const sse = (source, kind) =>
  new Promise((resolve) => { source.addEventListener(kind, ({ data }) => resolve(JSON.parse(data)), { once: true }); });

const first = await publish('topics/news', { n: 0 });
for (let n = 1; n <= 20; n += 1) await publish('topics/news', { n });

const socket = webSocket('device=42&topic=sport');
await socket.frame('ready');
socket.ask({ op: 'subscribe', stream: 'topic:news', after: first, ref: 1 });
await socket.frame('ok');
await socket.frame('gap');
await socket.frame('event');
socket.ask({ op: 'unsubscribe', stream: 'topic:sport', ref: 2 });
await socket.frame('ok');
socket.ask({ op: 'publish', stream: 'device:42', data: { a: 1 }, type: 'note', ttl: 60, collapse: 'c', echo: true, ref: 3 });
const { id } = await socket.frame('ok');
socket.ask({ op: 'publish', stream: 'device:42', data: 1, ephemeral: true, ref: 4 });
await socket.frame('ok');
socket.ask({ op: 'ack', stream: 'device:42', id, ref: 5 });
await socket.frame('ok');
socket.ask({ op: 'subscribe', stream: 'topic:news', ref: 6 });
await socket.frame('error');
socket.ask({ op: 'ping', ref: 7 });
await socket.frame('pong');
const filtered = webSocket('topic=filtered&types=wanted');
await filtered.frame('ready');
await publish('topics/filtered', 'unwanted');
await filtered.frame('position');

const single = new EventSource(`${url}/v1/sse?topic=news&after=${first}&heartbeat=1`);
const several = new EventSource(`${url}/v1/sse?topic=news&topic=sport`);
const soon = [sse(single, 'whimbrel:position'), sse(single, 'whimbrel:gap'), sse(single, 'message'), sse(single, 'whimbrel:ping')];
const [position, gap, event, ping] = await Promise.all([...soon, sse(several, 'whimbrel:position')]);
check('sse.position', position);
check('sse.gap', gap);
check('sse.event', event);
check('sse.ping', ping);
const enveloped = sse(several, 'message');
await publish('topics/sport', 1);
check('sse.envelope', await enveloped);
const asCloudEvents = new EventSource(`${url}/v1/sse?topic=clouds&format=cloudevents`);
const socketOfCloudEvents = webSocket('topic=clouds&format=cloudevents');
await Promise.all([sse(asCloudEvents, 'whimbrel:position'), socketOfCloudEvents.frame('ready')]);
const cloudEvent = sse(asCloudEvents, 'message');
await publish('topics/clouds', 1);
check('sse.cloudevent', await cloudEvent);
assert.equal((await socketOfCloudEvents.frame('event')).cloudevent.data, '1');

const room = new EventSource(`${url}/v1/sse?topic=room&members=1`);
await sse(room, 'whimbrel:position');
const watcher = webSocket('topic=room&members=1');
await watcher.frame('ready');
const [joined, gone] = [sse(room, 'whimbrel:joined'), sse(room, 'whimbrel:left')];
const guest = new WebSocket(`${url.replace('http', 'ws')}/v1/ws?device=43&topic=room&members=1`);
const welcome = new Promise((resolve) => { guest.on('open', resolve); });
check('sse.joined', await joined);
await watcher.frame('joined');
await welcome;
guest.close();
check('sse.left', await gone);
await watcher.frame('left');

const lifecycle = new EventSource(`${url}/v1/sse?topic=whimbrel:lifecycle`);
await sse(lifecycle, 'whimbrel:position');
const [came, left] = [sse(lifecycle, 'connected'), sse(lifecycle, 'disconnected')];
const visitor = new WebSocket(`${url.replace('http', 'ws')}/v1/ws?device=41`);
const entered = new Promise((resolve) => { visitor.on('open', resolve); });
check('lifecycle.connected', await came);
await entered;
visitor.close();
check('lifecycle.disconnected', await left);

const ending = webSocket(`device=42&topic=a&token=${token}`, closed);
await ending.frame('expiring');
ending.ask({ op: 'subscribe', stream: 'topic:a', token, ref: 8 });
await ending.frame('error');
ending.ask({ op: 'renew', token: other, ref: 9 });
await ending.frame('ok');
await ending.frame('unsubscribed');
check('sse.expiring', await sse(new EventSource(`${closed}/v1/sse?device=42&token=${token}`), 'whimbrel:expiring'));

const end = sse(single, 'whimbrel:close');
process.kill(Number(pid), 'SIGTERM');
check('sse.close', await end);
await socket.frame('close');

assert.deepEqual(missing(), [], 'described, but never seen');
process.exit(0);
