// Two tabs of one device that may have one connection: the second waits, and gets in when the first is closed.
//
//   node waiting-tab.mjs URL
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// What scripts/test installed.
const installed = createRequire(new URL('../../target/tools/package.json', import.meta.url));
const { EventSource } = installed('eventsource');

const [url] = process.argv.slice(2);
const patience = setTimeout(() => assert.fail('still waiting after a minute'), 60_000);

const tab = () => new EventSource(`${url}/v1/sse?device=tabs`);
const next = (source, type) => new Promise((resolve) => { source.addEventListener(type, resolve, { once: true }); });

const first = tab();
await next(first, 'whimbrel:position');
const second = tab();
const refusal = JSON.parse((await next(second, 'whimbrel:close')).data);
assert.equal(refusal.reason, 'limit');
const placed = next(second, 'whimbrel:position');
first.close();
await placed;
assert.equal(second.readyState, EventSource.OPEN);
second.close();
clearTimeout(patience);
