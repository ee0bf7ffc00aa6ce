// Tries clients against real nodes: what they get, and whether they come back with nothing lost.
//
//   node matrix.mjs [--write] [NAME…]      all of them, or those; prints the table, and writes it into docs/clients.md
//
// Fails where a client that is said to work does not. scripts/clients installs what this needs.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { launch } from '../js/test/support/browser.mjs';
import { eventually, node, other, proxy, redis } from '../js/test/support/world.mjs';
import { clients } from './clients.mjs';

const PATIENCE = 120_000;
/** For what is known to fail. */
const IN_VAIN = 8_000;
const LARGEST = 65_536;
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const ends = [];
const world = { after: (end) => ends.push(end) };

/** Publishes JSON text as it stands. */
async function publish(url, topic, text) {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(`${url}/v1/topics/${topic}/events`, { method: 'POST', headers, body: text });
  assert.equal(answer.status, 201, await answer.clone().text());
  return (await answer.json()).id;
}

/** The events that a client prints. */
async function start(client, url, topic) {
  const events = [];
  const take = (event) => events.push(event);
  if (client.language == 'browser') {
    const page = await (await launch(world)).newPage();
    await page.exposeFunction('take', take);
    await page.goto(`${url}/health/live`);
    await page.evaluate((topic) => {
      const source = new EventSource(`/v1/sse?topic=${topic}&after=earliest`);
      source.onmessage = ({ lastEventId, data }) => window.take({ id: lastEventId, data });
    }, topic);
    return events;
  }
  other(world, client.language, client.name, url, topic, take);
  return events;
}

const isSame = (text, other) => {
  try {
    assert.deepEqual(JSON.parse(text), JSON.parse(other));
    return true;
  } catch {
    return false;
  }
};

/** What is true of a client, by column. */
async function examine(client, nodes, number) {
  const topic = `matrix-${number}`;
  const way = await proxy(world, nodes[0].url);
  const found = {};
  let known = 0;
  let events;
  /** Whether exactly these texts came, in order, each once, with their ids. */
  const came = async (texts, ids, patience) => {
    const wanted = () => events.slice(known).filter(({ id }) => ids.includes(id));
    await eventually('', () => wanted().length >= ids.length, patience).catch(() => {});
    const got = wanted();
    const all = got.length == ids.length && events.length - known == ids.length;
    known = events.length;
    return all && ids.every((id, n) => got[n].id == id && isSame(got[n].data, texts[n]));
  };
  const step = async (name, ...texts) => {
    const ids = [];
    for (const text of texts) ids.push(await publish(nodes[1].url, topic, text));
    events ??= await start(client, way.url, topic);
    found[name] = await came(texts, ids, client.fails?.includes(name) ? IN_VAIN : PATIENCE);
  };
  await step('follows', '1', '"two"', '{"three":3}');
  await step('lines', '"a\u2028b\u2029c\u0085d"', '{\n  "a": 1,\r\n\n  "b": "\\n"\r}', '"🐦\\u0000"');
  await step('largest', `"${'x'.repeat(LARGEST - 2)}"`);
  // The connection breaks, and the next one is to another node.
  way.target = nodes[1].url;
  way.cut();
  await step('resumes', '4', '5', '6');
  // A proxy has no node for a moment, and says so in its own words.
  way.mode = 'html';
  way.cut();
  const { connections } = way;
  await eventually('', () => way.connections > connections, IN_VAIN).catch(() => {});
  const back = setTimeout(() => (way.mode = 'pass'), 500);
  await step('proxy', '7');
  clearTimeout(back);
  return found;
}

/** The version that is pinned for a client, or that the machine has of Java. */
function versionOf({ language, pin }) {
  const pins = { node: 'package.json', python: 'requirements.txt', go: 'go/go.mod', jars: 'java/pom.xml', rust: 'rust/Cargo.lock' }[language];
  if (!pin) return '';
  if (language == 'java') return ' ' + /[\d.]+/.exec(execFileSync('java', ['--version']))[0];
  const text = readFileSync(here(pins), 'utf8');
  return ' ' + /\d+\.\d[\d.]*/.exec(text.slice(text.indexOf(pin)))[0];
}

const LANGUAGES = { node: 'Node: ', python: 'Python: ', go: 'Go: ', java: 'Java: ', jars: 'Java: ', rust: 'Rust: ' };

const COLUMNS = {
  follows: 'follows',
  lines: 'U+2028, line breaks',
  largest: 'the largest event',
  resumes: 'resumes on another node',
  proxy: "comes back after a proxy's 502",
};

function table(rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const names = Object.keys(COLUMNS);
  return [
    line(['client', ...Object.values(COLUMNS), 'what it needs']),
    line(Array(names.length + 2).fill('---')),
    ...rows.map(([client, found]) => {
      const title = (client.pin ? LANGUAGES[client.language] : '') + client.title + versionOf(client);
      return line([title, ...names.map((name) => (found[name] ? 'yes' : 'no')), client.needs]);
    }),
  ].join('\n');
}

const [write, ...names] = process.argv[2] == '--write' ? process.argv.slice(2) : [undefined, ...process.argv.slice(2)];
const tried = clients.filter(({ name }) => !names.length || names.includes(name));
const rows = [];
try {
  const settings = { WHIMBREL_REDIS_URL: await redis(world), WHIMBREL_PING_SECONDS: '1' };
  const nodes = await Promise.all([1, 2].map(() => node(world, settings)));
  rows.push(...(await Promise.all(tried.map(async (client, n) => [client, await examine(client, nodes, n)]))));
} finally {
  for (const end of ends.reverse()) await end();
}
const text = table(rows);
console.log(text);
if (write) {
  const page = here('../../docs/clients.md');
  const old = readFileSync(page, 'utf8');
  const made = old.replace(/(<!-- scripts\/clients -->\n)[^]*?(<!-- end -->)/, (_, begin, end) => `${begin}${text}\n${end}`);
  assert.ok(made.includes(text), 'docs/clients.md has no place for the table');
  writeFileSync(page, made);
}
for (const [client, found] of rows) {
  const failed = Object.keys(COLUMNS).filter((name) => !found[name] && !client.fails?.includes(name));
  const passed = client.fails?.filter((name) => found[name]) ?? [];
  assert.deepEqual([failed, passed], [[], []], `${client.name} is not as clients.mjs says`);
}
process.exit();
