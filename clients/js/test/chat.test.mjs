// The example of a chat, as it stands in examples/chat.
import assert from 'node:assert/strict';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from './support/browser.mjs';
import { eventually, folder, nginx, node, redis } from './support/world.mjs';

const EXAMPLE = fileURLToPath(new URL('../../../examples/chat', import.meta.url));

test('a chat with presence takes 25 lines of script', () => {
  assert.ok(readFileSync(join(EXAMPLE, 'chat.js'), 'utf8').trim().split('\n').length <= 25);
});

test('two who chat see each other, and what was said, also when a node is killed, and when one of them leaves', async (t) => {
  const store = { WHIMBREL_REDIS_URL: await redis(t), WHIMBREL_LEASE_SECONDS: '2' };
  const nodes = await Promise.all([node(t, store), node(t, store)]);
  const files = folder(t);
  cpSync(EXAMPLE, files, { recursive: true });
  const { url } = await nginx(t, nodes, files);
  const browser = await launch(t);
  const visit = async (name) => {
    const page = await (await browser.newContext()).newPage();
    page.on('pageerror', (error) => console.error(`${name}:`, error.message));
    await page.goto(`${url}/files/index.html?name=${name}&url=${url}`);
    return page;
  };
  const shows = (page, id, text) => eventually(`${id}: ${text}`, async () => (await page.textContent(id)) == text);
  const say = async (page, text) => {
    await page.fill('input', text);
    await page.click('button');
  };
  const [ada, bob] = await Promise.all([visit('ada'), visit('bob')]);
  for (const page of [ada, bob]) await shows(page, '#here', 'ada, bob');
  await ada.fill('input', 'h');
  await shows(bob, '#typing', 'ada is typing');
  await say(ada, 'hello');
  for (const page of [ada, bob]) await shows(page, '#lines', 'ada: hello');
  await nodes[0].kill();
  await say(bob, 'still here');
  for (const page of [ada, bob]) {
    await shows(page, '#lines', 'ada: hellobob: still here');
    await shows(page, '#here', 'ada, bob');
  }
  await bob.close();
  await shows(ada, '#here', 'ada');
  const eve = await visit('eve');
  await shows(eve, '#lines', 'ada: hellobob: still here');
  await shows(ada, '#here', 'ada, eve');
});
