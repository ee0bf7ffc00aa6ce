// The hooks: on a server, and in Chromium under StrictMode.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { launch } from './support/browser.mjs';
import { eventually, folder, nginx, node, publish } from './support/world.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const APP = `
  import { StrictMode, createElement as h, useState } from 'react';
  import { useStream } from '${here('../src/react.ts')}';
  export function App({ client }) {
    const [stream, follow] = useState('topic:one');
    const lines = useStream(client, stream, (lines, { data }) => [...lines, data], [], 'last:2');
    return h('main', null, h('button', { onClick: () => follow('topic:two') }), h('p', null, stream + ' ' + lines.join()));
  }
  export const page = (client) => h(StrictMode, null, h(App, { client }));
`;

const ROOM = `
  import { StrictMode, createElement as h } from 'react';
  import { usePresence } from '${here('../src/react.ts')}';
  function Room({ client }) {
    const members = usePresence(client, 'topic:room');
    return h('p', null, 'here: ' + members.map(({ device }) => device).sort().join());
  }
  export const page = (client) => h(StrictMode, null, h(Room, { client }));
`;

/** A program with React in it. */
async function bundle(contents, format) {
  const stdin = { contents, resolveDir: here('..') };
  const { outputFiles } = await build({ stdin, bundle: true, write: false, format, platform: format == 'cjs' ? 'node' : 'browser', define: { 'process.env.NODE_ENV': '"development"' } });
  return outputFiles[0].text;
}

for (const [hook, app, shown] of [['a stream', APP, /<p>topic:one <\/p>/], ['presence', ROOM, /<p>here: <\/p>/]]) {
  test(`on a server ${hook} is its initial value, and nothing is asked of anybody`, async (t) => {
    const program = await bundle(`${app}
      import { renderToString } from 'react-dom/server';
      import { connect } from '${here('../src/index.ts')}';
      globalThis.rendered = renderToString(page(connect()));`, 'cjs');
    let requests = 0;
    t.mock.method(globalThis, 'fetch', () => requests++);
    new Function('require', 'module', program)(createRequire(import.meta.url), { exports: {} });
    await new Promise(setImmediate);
    assert.match(rendered, shown);
    assert.equal(requests, 0);
  });
}

test('under StrictMode a component shows each event once, and follows another stream on one connection', async (t) => {
  const files = folder(t);
  const whimbrel = await node(t);
  const front = await nginx(t, [whimbrel], files);
  writeFileSync(join(files, 'app.js'), await bundle(`${APP}
    import { createRoot } from 'react-dom/client';
    import { connect } from '${here('../src/index.ts')}';
    window.statuses = [];
    window.client = connect({ onStatus: (status) => window.statuses.push(status) });
    window.root = createRoot(document.body);
    window.root.render(page(window.client));`, 'esm'));
  writeFileSync(join(files, 'app.html'), '<!doctype html><title>app</title><body><script type="module" src="app.js"></script>');
  for (const data of [1, 2, 3]) await publish(front.url, 'topic:one', data);
  const browser = await launch(t);
  const page = await browser.newPage();
  await page.goto(`${front.url}/files/app.html`);
  const shows = (text) => eventually(text, async () => (await page.textContent('p')) == text);
  await shows('topic:one 2,3');
  await publish(front.url, 'topic:one', 4);
  await shows('topic:one 2,3,4');
  assert.deepEqual(await page.evaluate(() => statuses), ['authorizing', 'connecting', 'open']);
  await publish(front.url, 'topic:two', 'a');
  await page.click('button');
  await shows('topic:two a');
  await publish(front.url, 'topic:two', 'b');
  await shows('topic:two a,b');
  await page.evaluate(() => root.unmount());
  await eventually('nothing is followed', () => page.evaluate(() => client.status == 'idle'));
});

test('under StrictMode a component shows who is in a topic, and who joins and leaves', async (t) => {
  const files = folder(t);
  const front = await nginx(t, [await node(t)], files);
  writeFileSync(join(files, 'room.js'), await bundle(`${ROOM}
    import { createRoot } from 'react-dom/client';
    import { connect } from '${here('../src/index.ts')}';
    const me = new URLSearchParams(location.search).get('name');
    window.client = connect({ streams: ['device:' + me], members: true });
    window.root = createRoot(document.body);
    window.root.render(page(window.client));`, 'esm'));
  writeFileSync(join(files, 'room.html'), '<!doctype html><title>room</title><body><script type="module" src="room.js"></script>');
  const browser = await launch(t);
  const visit = async (name) => {
    const page = await browser.newPage();
    await page.goto(`${front.url}/files/room.html?name=${name}`);
    return page;
  };
  const shows = (page, text) => eventually(text, async () => (await page.textContent('p')) == text);
  const ada = await visit('ada');
  await shows(ada, 'here: ada');
  const bob = await visit('bob');
  for (const page of [ada, bob]) await shows(page, 'here: ada,bob');
  // Who shows the room no more is not in it, though its inbox is followed on.
  await bob.evaluate(() => root.unmount());
  await shows(ada, 'here: ada');
  assert.equal(await bob.evaluate(() => client.status), 'open');
});
