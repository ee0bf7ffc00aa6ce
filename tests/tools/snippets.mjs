// Runs the snippets of a page in docs/ as they are printed, against a running node.
//
//   node snippets.mjs PAGE URL
//
// `js` blocks share their variables. After each block that opens a connection it waits until the node has it. `sh`
// blocks run in bash. A `text` block is what `show` printed since the one before, in whatever order.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createContext, runInContext } from 'node:vm';

const installed = createRequire(new URL('../../target/tools/package.json', import.meta.url));
const { EventSource } = installed('eventsource');
const WebSocket = installed('ws');

const [page, url] = process.argv.slice(2);
const own = (text) => text.replaceAll('http://127.0.0.1:8080', url).replaceAll('ws://127.0.0.1:8080', url.replace('http', 'ws'));
setTimeout(() => assert.fail('still waiting after half a minute'), 30_000).unref();

const shown = [];
const show = (...values) => {
  shown.push(values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join(' ').trimEnd());
};
const kept = new Map();
const store = { setItem: (name, value) => kept.set(name, value), getItem: (name) => kept.get(name) };
const context = createContext({
  EventSource, WebSocket, fetch, TextDecoderStream, URLSearchParams, JSON, Object, show, store,
});
const folder = mkdtempSync(join(tmpdir(), 'snippets-'));

async function until(what, holds) {
  for (;;) {
    if (await holds()) return;
    await new Promise((resolve) => { setTimeout(resolve, 10); });
    if (performance.now() > 25_000) assert.fail(`${what()}`);
  }
}

const connections = async () => {
  const { nodes } = await (await fetch(`${url}/v1/nodes`)).json();
  return nodes[0].connections;
};

const blocks = [...readFileSync(page, 'utf8').matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)];
assert.ok(blocks.length > 4, 'the page has snippets');
for (const [, kind, body] of blocks) {
  if (kind === 'js') {
    const opened = (body.match(/new (EventSource|WebSocket)\(|\/v1\/sse",/g) ?? []).length;
    const closed = (body.match(/\.close\(\)/g) ?? []).length;
    const before = await connections();
    // `const` at the top stays visible for the blocks after; `await` needs a function around.
    const code = own(body).replace(/^const (\w+) =/gm, 'globalThis.$1 =');
    await runInContext(`(async () => {\n${code}\n})()`, context);
    await until(() => `the connections of\n${body}`, async () => (await connections()) === before + opened - closed);
  } else if (kind === 'sh') {
    execFileSync('bash', ['-ec', own(body)], { cwd: folder });
  } else if (kind === 'text') {
    const expected = body.trimEnd().split('\n').sort();
    const same = () => JSON.stringify([...shown].sort()) === JSON.stringify(expected);
    await until(() => `expected\n${expected.join('\n')}\nshown\n${shown.join('\n')}`, same);
    shown.length = 0;
  } else {
    assert.fail(`a block of kind ${kind}`);
  }
}
assert.deepEqual(shown, []);
rmSync(folder, { recursive: true });
process.exit(0);
