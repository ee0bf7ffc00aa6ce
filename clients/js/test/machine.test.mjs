// The life of a connection, on a clock of its own.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { source } from './support/source.mjs';

const { machine, step } = await source('machine');

/** A machine with a clock. */
function world(...transports) {
  const m = machine(transports.length ? transports : ['sse'], () => 0.5);
  const world = {
    m,
    now: 1_000_000,
    do: (input) => step(m, typeof input == 'string' ? { on: input } : input, world.now),
    frame: (op, more) => world.do({ on: 'frame', frame: { op, ...more } }),
    end: (failure = {}) => world.do({ on: 'end', failure }),
    /** Lets time pass, and the timer fire when it is due. */
    pass(ms) {
      const effects = [];
      const end = world.now + ms;
      while (m.deadline <= end) {
        world.now = m.deadline;
        effects.push(...world.do('tick'));
      }
      world.now = end;
      return effects;
    },
    open() {
      world.do('start');
      world.do('token');
      world.frame('position');
      assert.equal(m.phase, 'open');
    },
  };
  return world;
}

test('a connection begins with a token', () => {
  const w = world();
  assert.deepEqual(w.do('start'), ['token']);
  assert.deepEqual(w.do('token'), ['open']);
  w.frame('position');
  assert.equal(w.m.phase, 'open');
});

test('what the service sends for as long as it pings is a live connection, and silence after that is not', () => {
  const w = world();
  w.open();
  for (let ping = 0; ping < 10; ping++) {
    assert.deepEqual(w.pass(10_000), []);
    w.frame('ping');
  }
  // It knows the interval by now: ten seconds.
  assert.deepEqual(w.pass(21_000), []);
  assert.deepEqual(w.pass(2_000), ['token']);
});

test('over WebSocket a sign of life is asked for, and awaited for five seconds', () => {
  const w = world('websocket');
  w.open();
  assert.deepEqual(w.pass(25_000), ['ping']);
  w.frame('pong');
  assert.deepEqual(w.pass(24_000), []);
  assert.deepEqual(w.pass(1_000), ['ping']);
  assert.deepEqual(w.pass(5_000), ['token']);
});

test('after a sleep a connection that had time to die is opened anew at once', () => {
  const w = world();
  w.open();
  w.now += 3_600_000;
  assert.deepEqual(w.do('visibilitychange'), ['token']);
});

test('a look at the page does not end a connection that was heard a moment ago', () => {
  const w = world();
  w.open();
  w.now += 5_000;
  assert.deepEqual(w.do('visibilitychange'), []);
  assert.equal(w.m.phase, 'open');
});

test('a wait ends when the network is back, or the page is looked at', () => {
  for (const event of ['visibilitychange', 'online']) {
    const w = world();
    w.open();
    w.end();
    assert.equal(w.m.phase, 'waiting');
    assert.deepEqual(w.do(event), ['token']);
  }
});

test('what was open before the network was away is opened anew once it is back', () => {
  const w = world();
  w.open();
  assert.deepEqual(w.do('online'), []);
  w.do('offline');
  assert.deepEqual(w.do('online'), ['token']);
});

test('waits grow up to half a minute, are jittered, and begin anew after a success', () => {
  const w = world();
  w.do('start');
  const waits = [];
  for (let failure = 0; failure < 9; failure++) {
    w.do('token');
    w.end({ status: 502 });
    waits.push(w.m.deadline - w.now);
    assert.deepEqual(w.pass(waits.at(-1)), ['token']);
  }
  assert.deepEqual(waits, [375, 750, 1500, 3000, 6000, 12000, 22500, 22500, 22500]);
  w.do('token');
  w.frame('position');
  w.end();
  assert.equal(w.m.deadline - w.now, 375);
});

test('the delay that the service asks for is kept: retry, a close notice, Retry-After', () => {
  const w = world();
  w.open();
  w.frame('retry', { retry: 1800 });
  w.end();
  assert.equal(w.m.deadline - w.now, 1800);
  const closed = world();
  closed.open();
  assert.deepEqual(closed.frame('close', { reason: 'drain', retry: 2500 }), ['close']);
  assert.equal(closed.m.deadline - closed.now, 2500);
  const limited = world();
  limited.do('start');
  limited.do('token');
  limited.end({ status: 429, code: 'rate', retry: 7000 });
  assert.equal(limited.m.deadline - limited.now, 7000);
});

test('after kicked, replaced and revoked it is over, and after limit it comes back', () => {
  for (const reason of ['kicked', 'replaced', 'revoked']) {
    const w = world();
    w.open();
    assert.deepEqual(w.frame('close', { reason, retry: 1 }), ['close', { code: reason }]);
    assert.deepEqual([w.m.phase, w.m.deadline, w.do('start'), w.do('visibilitychange')], ['closed', Infinity, [], []]);
  }
  const limited = world();
  limited.open();
  limited.frame('close', { reason: 'limit', retry: 60_000 });
  assert.equal(limited.m.phase, 'waiting');
});

test('a 401 asks for another token once, and then says so', () => {
  const w = world();
  w.do('start');
  w.do('token');
  const refusal = { status: 401, code: 'unauthorized' };
  assert.deepEqual(w.end(refusal), ['token']);
  assert.ok(w.m.fresh);
  w.do('token');
  assert.deepEqual(w.end(refusal), ['close', refusal]);
  assert.equal(w.m.phase, 'closed');
});

test('a 401 long after the last one asks again', () => {
  const w = world();
  for (let round = 0; round < 3; round++) {
    w.do('start');
    w.do('token');
    assert.deepEqual(w.end({ status: 401 }), ['token']);
    w.do('token');
    w.frame('position');
    w.do('stop');
  }
});

test('a token that expired is followed by a new one, soon', () => {
  const w = world();
  w.open();
  w.frame('close', { reason: 'expired', retry: 100 });
  assert.deepEqual(w.pass(500), ['token']);
  assert.ok(w.m.fresh);
});

test('what the service refuses is final, and what a proxy answers is not', () => {
  for (const [failure, phase] of [
    [{ status: 400, code: 'bad-request' }, 'closed'],
    [{ status: 403, code: 'forbidden' }, 'closed'],
    [{ status: 204, code: 'stopped' }, 'closed'],
    [{ status: 503, code: 'unavailable' }, 'waiting'],
    [{ status: 404 }, 'waiting'],
    [{ status: 403 }, 'waiting'],
    [{ status: 200 }, 'waiting'],
    [{}, 'waiting'],
  ]) {
    const w = world();
    w.do('start');
    w.do('token');
    w.end(failure);
    assert.equal(w.m.phase, phase, JSON.stringify(failure));
  }
});

test('a transport that never opens gives way to the next one', () => {
  const w = world('sse', 'websocket');
  w.do('start');
  for (const at of [0, 1, 1, 0]) {
    w.do('token');
    w.end({ status: 502 });
    assert.equal(w.m.at, at);
    w.do('visibilitychange');
  }
});

test('a transport that the platform does not have is not tried twice', () => {
  const w = world('websocket', 'sse');
  w.do('start');
  w.do('token');
  w.end({ missing: true });
  assert.equal(w.m.at, 1);
});

test('a transport whose answer is held back gives way at once', () => {
  const w = world('sse', 'websocket');
  w.do('start');
  w.do('token');
  w.pass(10_000);
  assert.equal(w.m.at, 1);
});

test('a transport that was open stays', () => {
  const w = world('sse', 'websocket');
  w.open();
  for (let cut = 0; cut < 5; cut++) {
    w.end();
    w.do('visibilitychange');
    w.do('token');
    w.frame('position');
  }
  assert.equal(w.m.at, 0);
});

test('other streams open another connection while the old one stays', () => {
  const w = world();
  w.open();
  assert.deepEqual(w.do('change'), ['open']);
  assert.equal(w.m.phase, 'open');
  w.frame('position');
  assert.deepEqual(w.pass(20_000), []);
});

test('before a token expires it is renewed', () => {
  const w = world();
  w.open();
  assert.deepEqual(w.frame('expiring'), ['renew']);
});
