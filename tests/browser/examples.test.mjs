// The recipes in examples/, each run as its README prints it, with its page in Chromium.
//
// The `sh` blocks of a README run in order in the example's folder. Only the ports are others: 8080 is the node's, and
// 8000 that of the example's own server.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from '../../clients/js/test/support/browser.mjs';
import { eventually, freePort } from '../../clients/js/test/support/world.mjs';

const EXAMPLES = fileURLToPath(new URL('../../examples', import.meta.url));
const PROGRAM = process.env.WHIMBREL_PROGRAM ?? fileURLToPath(new URL('../../target/debug/whimbrel', import.meta.url));

const suite = { ends: [], after: (end) => suite.ends.push(end) };
let browser;
before(async () => (browser = await launch(suite)));
after(async () => {
  for (const end of suite.ends.reverse()) await end();
});

/** What a README prints, with ports of its own. */
async function recipe(t, name) {
  const folder = join(EXAMPLES, name);
  const [node, server] = [await freePort(), await freePort()];
  const printed = readFileSync(join(folder, 'README.md'), 'utf8');
  const own = (text) => text.replaceAll('127.0.0.1:8080', `127.0.0.1:${node}`).replace(/\b8000\b/g, server);
  const blocks = [...printed.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => own(block));
  const shells = [];
  const made = { url: `http://127.0.0.1:${node}`, output: '' };
  const clean = Object.entries(process.env).filter(([name]) => !name.startsWith('WHIMBREL_'));
  // Other users may look into it, as a database runs as one.
  const scratch = mkdtempSync(join(tmpdir(), 'recipe-'));
  chmodSync(scratch, 0o755);
  t.after(() => {
    for (const shell of shells) {
      try {
        process.kill(-shell.pid, 'SIGKILL');
      } catch {
        // Nothing was left in the background.
      }
    }
    // A database may still be writing its last.
    rmSync(scratch, { recursive: true, force: true, maxRetries: 50 });
  });
  const env = { ...Object.fromEntries(clean), TMPDIR: scratch, WHIMBREL_LISTEN: `127.0.0.1:${node}`, PATH: `${dirname(PROGRAM)}:${process.env.PATH}` };

  /** Runs the next block; what it leaves in the background ends with the test. */
  made.next = async () => {
    const shell = spawn('bash', ['-ec', blocks.shift()], { cwd: folder, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    shells.push(shell);
    for (const stream of [shell.stdout, shell.stderr]) stream.setEncoding('utf8').on('data', (text) => (made.output += text));
    const [code] = await once(shell, 'exit');
    assert.equal(code, 0, made.output);
  };
  made.ready = () =>
    eventually('node and server answer', async () => {
      const answers = await Promise.all([`${made.url}/health/ready`, `http://127.0.0.1:${server}/`].map((url) => fetch(url).then(({ ok }) => ok, () => false)));
      return answers.every(Boolean);
    });

  /** Opens the address that the README prints, or another one of the example's server. */
  made.open = async (address = /`(http:\/\/127\.0\.0\.1:8000\/[^`]*)`/.exec(printed)[1]) => {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    page.on('pageerror', (error) => console.error(`${name}:`, error.message));
    const at = new URL(own(address));
    at.searchParams.set('url', made.url);
    await page.goto(at.href);
    return page;
  };
  made.shows = (page, selector, pattern) =>
    eventually(`${name}: ${selector} shows ${pattern}`, async () => pattern.test((await page.locator(selector).allTextContents()).join('\n')));

  await made.next();
  await made.ready();
  made.left = () => blocks.length;
  /** Kills what runs with these words in its command line. */
  made.kill = (words) => {
    const pids = shells.flatMap((shell) => execFileSync('pgrep', ['-g', shell.pid, '-f', words]).toString().split('\n').filter(Boolean));
    for (const pid of pids) process.kill(Number(pid), 'SIGKILL');
  };
  return made;
}

const texts = (page, selector) => page.locator(selector).allTextContents();

describe('examples', { concurrency: 3 }, () => {
  test('order tracking shows each step once, and the newest position to a page that comes late', async (t) => {
    const { next, open, shows, left } = await recipe(t, 'order-tracking');
    await next();
    const page = await open();
    await shows(page, '#steps', /Packed/);
    await next();
    await shows(page, '#steps', /With the courier/);
    await shows(page, '#courier', /0\.4 km/);
    await page.reload();
    await shows(page, '#courier', /0\.4 km/);
    const steps = await texts(page, '#steps li');
    assert.deepEqual(steps.map((step) => step.replace(/^\S+( [AP]M)? /, '')), ['We have your order', 'Packed', 'With the courier']);
    assert.equal(left(), 0);
  });

  test('notifications wait for their user, are seen on every screen, and do not come again', async (t) => {
    const made = await recipe(t, 'notifications');
    await made.next();
    assert.match(made.output, /"pending":2/);
    const [page, other] = [await made.open(), await made.open()];
    for (const screen of [page, other]) {
      await made.shows(screen, '#badge', /^2$/);
      assert.deepEqual(await texts(screen, '#list li'), ['Bob wrote to you', 'Your parcel is on its way']);
    }
    await page.click('#seen');
    for (const screen of [page, other]) await eventually('nothing new', () => screen.locator('#none').isVisible());
    await page.close();
    await made.next();
    await made.shows(other, '#list', /^Your parcel is here$/);
    const later = await made.open();
    await made.shows(later, '#list', /^Your parcel is here$/);
    assert.equal(made.left(), 0);
  });

  test('a dashboard shows the state of its backend, whenever it was opened', async (t) => {
    const { open } = await recipe(t, 'dashboard');
    const page = await open();
    await eventually('all machines', async () => (await texts(page, '#board b')).length === 6);
    const before = Number(await page.textContent('#total'));
    await eventually('changes', async () => Number(await page.textContent('#total')) > before);
    // A second page begins with a later snapshot.
    const second = await open();
    await eventually('both pages and the backend agree', async () => {
      const { machines } = await (await fetch(new URL('/machines.json', page.url()))).json();
      const total = Object.values(machines).reduce((sum, { parts }) => sum + parts, 0);
      const shown = await Promise.all([page, second].map((screen) => screen.textContent('#total')));
      return shown.every((text) => Number(text) === total);
    });
  });

  test('an answer is whole in every tab, through a reload in the middle, and is stopped from any of them', async (t) => {
    const made = await recipe(t, 'language-model');
    await made.next();
    assert.match(made.output, /"id"/);
    const page = await made.open();
    await page.click('button:has-text("Ask")');
    await made.shows(page, '#text', /sentence 3 /);
    const other = await made.open(page.url());
    await page.reload();
    for (const tab of [page, other]) await made.shows(tab, '#end', /^\d+ tokens\.$/);
    const whole = `You asked: What is a whimbrel? ${Array.from({ length: 40 }, (_, n) => `This is sentence ${n + 1} of a long answer.`).join(' ')}`;
    for (const tab of [page, other]) assert.equal(await tab.textContent('#text'), whole);
    // Another question, which is stopped from the other tab.
    const former = page.url();
    await page.click('button:has-text("Ask")');
    await eventually('the address of the other answer', () => page.url() !== former);
    await made.shows(page, '#text', /sentence 1 /);
    await other.goto(page.url());
    await made.shows(other, '#text', /You asked/);
    await other.click('#halt');
    for (const tab of [page, other]) await made.shows(tab, '#end', /^Stopped after \d+ tokens\.$/);
    const [text, same] = [await page.textContent('#text'), await other.textContent('#text')];
    assert.equal(text, same);
    assert.ok(whole.startsWith(text) && text.length < whole.length);
  });

  test('readers of an answer whose producer is killed learn that it breaks off', async (t) => {
    const made = await recipe(t, 'language-model');
    const page = await made.open();
    await page.click('button:has-text("Ask")');
    await made.shows(page, '#text', /sentence 1 /);
    made.kill('answers.py');
    await eventually('the end', async () => /breaks off/.test(await page.textContent('#end')), 60_000);
    assert.doesNotMatch(await page.textContent('#text'), /sentence 40 /);
  });

  test('a command waits for its lamp, and the page learns that it was done', async (t) => {
    const made = await recipe(t, 'commands');
    const page = await made.open();
    await page.click('#on');
    await made.shows(page, '#commands', /waits for the lamp/);
    await made.next();
    await made.shows(page, '#commands', /is done/);
    await made.shows(page, '#state', /^on$/);
    await page.click('#off');
    await made.shows(page, '#state', /^off$/);
    await made.shows(page, '#commands', /Switch off: is done/);
    await eventually('the lamp did it', () => made.output.includes('on\noff'));
  });

  test('orders come to the page with their transactions, and what is rolled back never does', async (t) => {
    const made = await recipe(t, 'outbox');
    const page = await made.open();
    await made.next();
    await made.shows(page, '#orders', /#1: 2 × Tea/);
    await made.next();
    assert.match(made.output, /"error": ".*stock_pieces_check/);
    await made.shows(page, '#orders', /1 × Tea/);
    await page.fill('#order input', '2');
    await page.click('#order button');
    await made.shows(page, '#orders', /#5: 2 × Tea/);
    const orders = (await texts(page, '#orders li')).map((text) => text.replace(/^.*: /, ''));
    assert.deepEqual(orders, ['2 × Tea', '1 × Tea', '1 × Coffee', '2 × Tea']);
    assert.equal(made.left(), 0);
  });
});
