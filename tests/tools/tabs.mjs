// Two tabs of one device that may have one connection: one of them stops for good, the other stays.
//
//   node tabs.mjs URL
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// What scripts/test installed.
const installed = createRequire(new URL('../../target/tools/package.json', import.meta.url));
const { EventSource } = installed('eventsource');

const [url] = process.argv.slice(2);
const patience = setTimeout(() => assert.fail('still waiting after a minute'), 60_000);

function tab() {
  const source = new EventSource(`${url}/v1/sse?device=tabs`);
  const told = { closes: [], data: [], opened: 0 };
  source.addEventListener('open', () => { told.opened += 1; });
  source.addEventListener('whimbrel:close', ({ data }) => told.closes.push(JSON.parse(data).reason));
  source.addEventListener('message', ({ data }) => told.data.push(data));
  const placed = new Promise((resolve) => { source.addEventListener('whimbrel:position', resolve); });
  const stopped = new Promise((resolve) => {
    source.addEventListener('error', () => source.readyState === EventSource.CLOSED && resolve());
  });
  return { source, told, placed, stopped };
}

const first = tab();
await first.placed;
const second = tab();
const [goes, stays] = [first, second];
await Promise.all([goes.stopped, stays.placed]);
assert.deepEqual(goes.told, { closes: ['replaced'], data: [], opened: 1 });

// By now each would have come back to evict the other, if it meant to.
for (const number of ['1', '2', '3']) {
  const heard = new Promise((resolve) => { stays.source.addEventListener('message', resolve, { once: true }); });
  const answer = await fetch(`${url}/v1/devices/tabs/events`, { method: 'POST', body: number, headers: { 'content-type': 'application/json' } });
  assert.equal(answer.status, 201);
  await heard;
}
assert.deepEqual(stays.told, { closes: [], data: ['1', '2', '3'], opened: 1 });
assert.equal(goes.source.readyState, EventSource.CLOSED);
stays.source.close();
clearTimeout(patience);
