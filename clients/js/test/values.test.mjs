// The values that the client is made of.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { source } from './support/source.mjs';

const { parser } = await source('transport/parse');
const { Position, isAfter } = await source('position');
const { backoff } = await source('backoff');
const { partsOf } = await source('stream');
const { Credentials } = await source('credentials');

/** The frames in text of these pieces. */
function read(...pieces) {
  const frames = [];
  pieces.forEach(parser((frame) => frames.push(frame)));
  return frames;
}

const STREAM =
  'retry: 1500\nid: 5-1\nevent: whimbrel:position\ndata: {"connection":"a"}\n\n:\n:\n' +
  'data: {"data":"a\u2028b",\ndata:"time":"c"\ndata:}\ndata:\n\nid: 5-2\n\nevent: x\ndata: {"data":null}\n\n';
const FRAMES = [
  { op: 'retry', retry: 1500 },
  { connection: 'a', op: 'position', cursor: '5-1' },
  { op: 'ping' },
  { op: 'ping' },
  { data: 'a\u2028b', time: 'c', op: 'event', cursor: undefined },
  { data: null, op: 'event', cursor: undefined },
];

test('an event stream is read the same however it is cut, and whichever its line ends are', () => {
  for (const end of ['\n', '\r\n', '\r']) {
    const text = STREAM.replaceAll('\n', end);
    // A CR is taken once it is clear what follows.
    const all = end == '\r' ? [text, ':'] : [text];
    assert.deepEqual(read(...all), FRAMES);
    for (let at = 1; at < text.length; at++) {
      assert.deepEqual(read(text.slice(0, at), text.slice(at), ...all.slice(1)), FRAMES, `${JSON.stringify(end)} at ${at}`);
    }
    assert.deepEqual(read(...text, ...all.slice(1)), FRAMES);
  }
});

test('a stream is a kind and a name, and nothing else is one', () => {
  assert.deepEqual(partsOf('topic:a:b'), ['topic', 'a:b']);
  for (const name of ['tides', 'topics:tides', 'topic:', '']) {
    assert.throws(() => partsOf(name), { code: 'invalid-name', message: `'${name}' is not device:NAME or topic:NAME` });
  }
});

test('ids are compared as numbers of any size', () => {
  assert.ok(isAfter('10-1', '9-2'));
  assert.ok(isAfter('9-10', '9-9'));
  assert.ok(isAfter('18446744073709551615-2', '18446744073709551615-1'));
  assert.ok(!isAfter('9-9', '9-9'));
  assert.ok(isAfter('1-1', undefined));
});

test('a position is a cursor, or a pair for each stream, and what is newer overrides it', () => {
  const position = new Position();
  position.put('last:5', ['topic:a', 'topic:b']);
  assert.equal(`${position}`, 'topic:a/last:5 topic:b/last:5');
  position.move({ stream: 'topic:a', id: '7-1' });
  assert.equal(`${position}`, 'topic:b/last:5 topic:a/7-1');
  position.move({ cursor: 'c1.abc.stop' });
  position.put('earliest', ['topic:c']);
  assert.equal(`${position}`, 'c1.abc topic:c/earliest');
  position.drop('topic:c');
  position.move({ positions: { 'topic:a': '8-1', 'device:d': '9-1.stop' } });
  assert.equal(`${position}`, 'topic:a/8-1 device:d/9-1');
  const copy = new Position();
  copy.put(`${position}`, []);
  assert.deepEqual(copy.list(), position.list());
  position.put('', ['topic:a']);
  assert.deepEqual(copy.list(), position.list());
});

test('waits double, are at least half of that, and never shorter than what was asked for', () => {
  for (let failures = 0; failures < 20; failures++) {
    const most = Math.min(30_000, 500 * 2 ** failures);
    for (let round = 0; round < 50; round++) {
      const wait = backoff(failures);
      assert.ok(wait >= most / 2 && wait <= most);
    }
  }
  assert.equal(backoff(0, 60_000), 60_000);
});

/** A token that says when it expires, in seconds from now. */
const token = (seconds, id) => `h.${btoa(JSON.stringify({ exp: Date.now() / 1000 + seconds, id }))}.s`;

test('a token is asked for once at a time, kept, and asked for again before it expires', async () => {
  let asked = 0;
  let seconds = 3600;
  const credentials = new Credentials(async () => token(seconds, ++asked));
  const both = await Promise.all([credentials.get(false), credentials.get(false)]);
  assert.deepEqual([both[0] == both[1], asked], [true, 1]);
  await credentials.get(false);
  assert.equal(asked, 1);
  seconds = 10;
  await credentials.get(true);
  assert.equal(asked, 2);
  await credentials.get(false);
  assert.equal(asked, 3);
});
