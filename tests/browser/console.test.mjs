// The console in Chromium, against real nodes on one Redis.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { launch } from '../../clients/js/test/support/browser.mjs';
import { eventually, folder, node, publish, redis } from '../../clients/js/test/support/world.mjs';

const suite = { ends: [], after: (end) => suite.ends.push(end) };
after(async () => {
  for (const end of suite.ends.reverse()) await end();
});

const ADMIN = 'k-admin-0123456789abcdef';
const READER = 'k-reader-0123456789abcdef';

let nodes;
let store;
let closed;
let browser;
before(async () => {
  store = { WHIMBREL_REDIS_URL: await redis(suite), WHIMBREL_PING_SECONDS: '1', WHIMBREL_INGRESS: 'true' };
  const keys = join(folder(suite), 'keys.json');
  writeFileSync(keys, JSON.stringify([
    { name: 'operator', key: ADMIN, scopes: ['admin'], streams: ['*'] },
    { name: 'reader', key: READER, scopes: ['read'], streams: ['*'] },
  ]));
  const started = [node(suite, store), node(suite, store), node(suite, { WHIMBREL_API_KEYS_FILE: keys })];
  [nodes, closed, browser] = await Promise.all([Promise.all(started.slice(0, 2)), started[2], launch(suite)]);
});

/** A page of the console that fails the test at its end if it had an error, or broke its content security policy. */
async function visit(t, hash = '', { url = nodes[0].url, ...options } = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  page.wrong = [];
  page.on('pageerror', (error) => page.wrong.push(error.message));
  page.on('console', (message) => /Content Security Policy|Uncaught/.test(message.text()) && page.wrong.push(message.text()));
  await page.goto(`${url}/${hash}`);
  return page;
}

const shows = (page, selector, text) =>
  eventually(`${selector}: ${text}`, async () => {
    const said = await page.locator(selector).allTextContents();
    return said.join(' ').includes(text);
  });
const counts = (page, selector, wanted) => eventually(`${wanted} times ${selector}`, async () => (await page.locator(selector).count()) === wanted);
const fits = async (page) => assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'the page is wider than its window');
/** Links of the menu that are not within the window. */
const cutOff = (page) =>
  page.locator('nav a').evaluateAll((links) => links.filter((link) => link.getBoundingClientRect().right > innerWidth).map((link) => link.textContent));
const fine = (page) => assert.deepEqual(page.wrong, []);

/** A device that listens. */
function listen(t, name, topic, at = nodes[1]) {
  const abort = new AbortController();
  t.after(() => abort.abort());
  const opened = fetch(`${at.url}/v1/sse?device=${name}${topic ? `&topic=${topic}&members=1` : ''}`, { signal: abort.signal });
  const ended = opened.then(async ({ body }) => {
    for await (const _ of body);
  }).catch(() => {});
  return { opened, ended, close: () => abort.abort() };
}

describe('the console', { concurrency: 4 }, () => {
  test('cuts and resumes, and shows events of every type', async (t) => {
    const page = await visit(t, '#/demo?topic=tides');
    await shows(page, '.state', 'Live');
    await publish(nodes[1].url, 'topic:tides', { tide: 'high' }, '?type=tide');
    await shows(page, '.log', 'tide{"tide":"high"}');
    await page.click('#cut');
    await shows(page, '.state', 'Cut');
    await page.click('text=Burst of 20');
    await shows(page, '.waiting', '20 waiting');
    await publish(nodes[1].url, 'topic:tides', 'from elsewhere', '?type=note');
    await page.click('#cut');
    await shows(page, '.verdict', 'Missed while cut: 21 (1 not published here), received after resume: 21, duplicates: 0');
    await shows(page, '.state', 'Live');
    await counts(page, '.log li.back', 21);
    assert.match(page.url(), /#\/demo\?topic=tides$/);
    fine(page);
  });

  test('shows nodes, rates and who comes and goes, live', async (t) => {
    const page = await visit(t, '#/overview');
    await shows(page, '.tiles', 'Nodes2');
    for (const { port } of nodes) await shows(page, 'table', `127.0.0.1:${port}`);
    await shows(page, '.chart .legend', `127.0.0.1:${nodes[0].port}`);
    await listen(t, 'visitor-1').opened;
    await shows(page, '.life', 'visitor-1');
    const going = setInterval(() => publish(nodes[0].url, 'topic:rates', 1).catch(() => {}), 50);
    t.after(() => clearInterval(going));
    await eventually('a rate', async () => /[1-9]/.test((await page.locator('.tiles > div', { hasText: 'Published' }).textContent()) ?? ''));
    await eventually('a line', () => page.evaluate(() => document.querySelectorAll('.chart path.line[d*="L"]').length >= 2));
    await page.click('text=Start probing');
    await eventually('a latency', async () => /delivered\d.* ms/.test((await page.locator('.legend').allTextContents()).join()));
    assert.match(page.url(), /probe=1/);
    fine(page);
  });

  test('finds a device, publishes to it, acknowledges, and kicks it', async (t) => {
    const device = listen(t, 'phone');
    await device.opened;
    for (let n = 0; n < 60; n++) await publish(nodes[0].url, 'device:phone', { n }, n % 2 ? '?type=odd' : '');
    const page = await visit(t);
    page.on('dialog', (dialog) => dialog.accept());
    await page.keyboard.press('/');
    await page.keyboard.type('device:phone');
    await page.keyboard.press('Enter');
    await shows(page, 'h1', 'phone');
    await shows(page, '.chip', 'online');
    await shows(page, '.facts', 'Pending60');
    await counts(page, '.history .event', 50);
    await page.click('.older');
    await counts(page, '.history .event', 10);
    const place = page.url();
    assert.match(place, /before=/);
    await page.reload();
    await shows(page, '.history', '{"n":0}');
    await page.click('.newest');
    await page.locator('.history .event', { hasText: '{"n":57}' }).locator('button').click();
    await shows(page, '.facts', 'Pending2');
    await page.fill('textarea[name=data]', '{"from":"the console"}');
    await page.fill('input[name=type]', 'note');
    await page.click('button[type=submit]:has-text("Publish")');
    await shows(page, '.history .event >> nth=0', 'note{"from":"the console"}unacknowledged');
    await page.click('text=Kick');
    await device.ended;
    await shows(page, '.chip', 'offline');
    fine(page);
  });

  test('follows one event from publish to acknowledgement', async (t) => {
    const page = await visit(t, '#/device/courier');
    await page.click('button[type=submit]:has-text("Publish")');
    await page.click('a.follow');
    await shows(page, '.steps .done', 'Stored and answered');
    await shows(page, '.steps .open', 'Acknowledged by the device');
    const id = await page.locator('h1').textContent();
    await listen(t, 'courier').opened;
    await shows(page, '.steps .done', 'Sent to a connection server');
    const answer = await fetch(`${nodes[1].url}/v1/devices/courier/ack`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ id: id.replace('event', '') }) });
    assert.equal(answer.status, 200);
    await shows(page, '.steps .done', 'Acknowledged by the device');
    assert.match(await page.locator('.steps li').last().textContent(), /after [\d.]+ (ms|s)/);
    fine(page);
  });

  test('shows a topic with its members and followers, and its events as they come, of the type that is wanted', async (t) => {
    await listen(t, 'ada', 'room').opened;
    await publish(nodes[0].url, 'topic:room', { said: 'hello' }, '?type=line');
    await publish(nodes[0].url, 'topic:room', { said: 'typing' });
    const page = await visit(t, '#/topic/room');
    await shows(page, '.chip', 'live');
    await shows(page, 'table', 'ada');
    await shows(page, '.facts', 'Connections2');
    await publish(nodes[1].url, 'topic:room', { said: 'news' }, '?type=line');
    await shows(page, '.history .event >> nth=0', 'line{"said":"news"}');
    await page.selectOption('.history select', 'line');
    await counts(page, '.history .event', 2);
    assert.match(page.url(), /type=line/);
    fine(page);
  });

  test('shows who comes and who leaves, and why', async (t) => {
    const page = await visit(t, '#/lifecycle?device=visitor-2');
    await shows(page, '.chip', 'live');
    const device = listen(t, 'visitor-2');
    await device.opened;
    await shows(page, '.life', 'connected');
    device.close();
    await shows(page, '.life >> nth=0', 'disconnected');
    await shows(page, '.life >> nth=0', 'client, after');
    fine(page);
  });

  test('lists revocations, adds some, and lifts them', async (t) => {
    const page = await visit(t, '#/device/lost-phone');
    page.on('dialog', (dialog) => dialog.accept());
    await page.click('text=Revoke tokens');
    await page.click('.note >> text=revocations');
    await shows(page, 'h1', 'Revocations');
    assert.match(page.url(), /#\/revocations\?device=lost-phone$/);
    await shows(page, 'table', 'of lost-phone');
    assert.equal(await page.inputValue('input[name=name]'), 'lost-phone');
    await page.selectOption('select[name=kind]', 'token');
    await page.fill('input[name=name]', 'jti-17');
    await page.selectOption('select[name=seconds]', { label: 'a week' });
    await page.focus('select[name=seconds]');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await shows(page, 'table', 'with the id jti-17');
    await page.selectOption('select[name=kind]', 'device');
    await page.fill('input[name=name]', 'no spaces');
    await page.click('button[type=submit]:has-text("Revoke")');
    await shows(page, '.publish-form .problem', "has the character ' '");
    const listed = async () => (await (await fetch(`${nodes[1].url}/v1/revocations`)).json()).revocations;
    const [week] = (await listed()).filter(({ token }) => token === 'jti-17');
    assert.equal(week.expires - week.created, 7 * 86_400);
    for (const words of ['of lost-phone', 'jti-17']) {
      await page.locator('tr', { hasText: words }).locator('text=Lift').click();
      await counts(page, `tr:has-text("${words}")`, 0);
    }
    await eventually('both are lifted on the other node', async () => !(await listed()).some(({ device, token }) => device === 'lost-phone' || token === 'jti-17'));
    fine(page);
  });

  test('shows each link with its state, and why one failed', async (t) => {
    const linked = { ...store, WHIMBREL_PREFIX: 'linked', WHIMBREL_LINK_LISTEN: '127.0.0.1:0', WHIMBREL_LINK_SECRET: 'a-secret-that-all-nodes-have' };
    const stranger = { ...linked, WHIMBREL_LINK_SECRET: 'another-secret-of-others' };
    const [from, to, other] = await Promise.all([node(t, linked), node(t, linked), node(t, stranger)]);
    for (const at of [to, other]) await listen(t, 'reader', 'linked', at).opened;
    const page = await visit(t, '#/links', { url: from.url });
    await shows(page, 'h1', 'Links');
    const row = (at, words) =>
      eventually(words, async () => {
        await publish(from.url, 'topic:linked', 1);
        return (await page.locator('tr', { hasText: `127.0.0.1:${at.port}` }).allTextContents()).join().includes(words);
      });
    await row(to, 'open');
    await row(to, 'ago');
    await row(other, 'failed the node has another secret');
    await eventually('a rate', async () => /over a link(?!–|0$)/.test((await page.locator('.legend').allTextContents()).join()));
    fine(page);
  });

  test('shows the leases of producers, what the ingress stream rejected, and the links', async (t) => {
    await fetch(`${nodes[1].url}/v1/topics/answer/lease`, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: '{"seconds":300}' });
    execFileSync('redis-cli', ['-u', store.WHIMBREL_REDIS_URL, 'XADD', 'whimbrel:ingress', '*', 'topik', 'news', 'data', '1']);
    const page = await visit(t, '#/leases');
    await shows(page, 'table', 'topic:answer5 min');
    await page.click('nav >> text=Ingress');
    await shows(page, '.rejected', "'topik' is not known");
    await shows(page, '.rejected', 'topik news  data 1');
    await page.click('nav >> text=Links');
    await shows(page, '.hint', 'Links are off');
    await shows(page, '.facts', 'Open from here0');
    await shows(page, '.chart .legend', 'over the channel');
    fine(page);
  });

  test('asks for a key that manages, and keeps others out', async (t) => {
    const page = await visit(t, '#/overview', { url: closed.url });
    const enter = async (key) => {
      await page.fill('input[name=key]', key);
      await page.keyboard.press('Enter');
    };
    await shows(page, 'h1', 'asks for a key');
    await enter('made-up-0123456789abcdef');
    await eventually('a refusal', () => page.locator('.key-form .problem').isVisible());
    await enter(READER);
    await shows(page, '.key-form .problem', 'needs admin');
    assert.equal(await page.locator('.tiles').count(), 0);
    await enter(ADMIN);
    await shows(page, '.tiles', 'Nodes1');
    await page.click('nav >> text=See it resume');
    await shows(page, '.state', 'Live');
    await page.click('text=Burst of 20');
    await shows(page, '.log', 'Low tide at Wells 20');
    assert.ok(!page.url().includes(ADMIN), 'the key is not in the address');
    assert.ok(!(await page.content()).includes(ADMIN), 'the key is not in the page');
    await page.click('#forget');
    await shows(page, 'h1', 'asks for a key');
    fine(page);
  });

  test('fits a phone, and is dark where the reader wants it', async (t) => {
    const page = await visit(t, '', { viewport: { width: 375, height: 812 }, colorScheme: 'dark' });
    await publish(nodes[0].url, 'device:pocket', { text: 'x'.repeat(500) });
    for (const hash of ['demo', 'overview', 'device/pocket', `topic/${'long-name-'.repeat(18)}`, 'lifecycle', 'leases', 'ingress', 'links', 'revocations']) {
      await page.goto(`${nodes[0].url}/#/${hash}`);
      await eventually(`${hash} opens`, () => page.locator('main h1').isVisible());
      await fits(page);
      assert.deepEqual(await cutOff(page), [], 'a link of the menu is cut off');
    }
    const [red] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));
    assert.ok(red < 60, 'the ground is dark');
    fine(page);
  });

  test('says that the node is away, and goes on when it is back', async (t) => {
    const own = await node(t);
    const page = await visit(t, '#/overview', { url: own.url });
    await shows(page, '.tiles', 'Nodes1');
    await own.kill();
    await shows(page, '#banner', "can't be reached");
    await own.start();
    await eventually('the banner goes', async () => !(await page.locator('#banner').isVisible()));
    await shows(page, '.tiles', 'Nodes1');
    fine(page);
  });
});
