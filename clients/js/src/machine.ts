/**
 * The life of a connection as a value: what happened goes in with the time, what is to be done comes out.
 * It knows no sockets and no timers; `connection.ts` has those.
 *
 *   idle -> authorizing -> connecting -> open -> waiting -> authorizing …      closed, from anywhere, for good
 */

import { backoff } from './backoff.js';
import { type Failure, isFinal } from './failure.js';
import type { Frame } from './transport/frame.js';
import type { Status, TransportName } from './types.js';

/** The service's first frame has to be there in this time. */
const OPENING = 10_000;
/** Getting a token may take this long. */
const TOKEN = 30_000;
/** A ping of WebSocket has to be answered in this time. */
const ANSWER = 5_000;
/** The service's ping interval, until two pings show what it is. */
const INTERVAL = 25_000;
/** Attempts of one transport that never opened before another one is tried. */
const ATTEMPTS = 2;

/** Close reasons after which coming back would be against what was decided. */
const FINAL = /^(kicked|replaced|revoked)$/;

export interface Machine {
  readonly transports: TransportName[];
  phase: Status;
  /** Which of the transports. */
  at: number;
  /** When a `tick` is due. */
  deadline: number;
  /** Failures in a row. */
  failures: number;
  /** … of this transport, without having been open. */
  attempts: number;
  /** The service said 401 to the last token. */
  refused: boolean;
  /** The next token has to be a new one. */
  fresh: boolean;
  heard: number;
  pinged: number;
  interval: number;
  retry: number;
  offline: boolean;
  /** From 0 up to 1, by chance. */
  jitter: () => number;
}

export type Input =
  | { on: 'start' | 'stop' | 'change' | 'token' | 'tick' | 'visibilitychange' | 'online' | 'offline' }
  | { on: 'frame'; frame: Frame }
  | { on: 'end'; failure: Failure };

/**
 * `token`: close what is open and get one, then say `token`, or `end`. `open`: open the transport, and close the one
 * before it once this one is open. An object: closed for good, for this reason.
 */
export type Effect = 'token' | 'open' | 'close' | 'ping' | 'renew' | Failure;

export function machine(transports: TransportName[], jitter = Math.random): Machine {
  return {
    transports,
    phase: 'idle',
    at: 0,
    deadline: Infinity,
    failures: 0,
    attempts: 0,
    refused: false,
    fresh: false,
    heard: 0,
    pinged: 0,
    interval: INTERVAL,
    retry: 0,
    offline: false,
    jitter,
  };
}

export function step(m: Machine, input: Input, now: number): Effect[] {
  const { phase } = m;
  if (phase == 'closed') return [];
  switch (input.on) {
    case 'start':
      return phase == 'idle' ? begin(m, now) : [];
    case 'stop':
      return rest(m, 'idle', Infinity);
    case 'change':
      // What is open stays open until the next one is: presence and ephemeral events don't notice.
      if (phase == 'connecting' || phase == 'open') return until(m, now + OPENING, 'open');
      return [];
    case 'token':
      if (phase != 'authorizing') return [];
      m.phase = 'connecting';
      m.fresh = false;
      return until(m, now + OPENING, 'open');
    case 'frame':
      return frame(m, input.frame, now);
    case 'end':
      return end(m, input.failure, now);
    case 'tick':
      return now < m.deadline ? [] : tick(m, now);
    case 'offline':
      m.offline = true;
      return [];
    default: {
      // Another network, or the first moment after a sleep.
      const lost = input.on == 'online' && m.offline;
      if (input.on == 'online') m.offline = false;
      if (phase == 'waiting' || (lost && phase == 'open')) return begin(m, now);
      if (phase != 'open') return [];
      if (canPing(m)) return ping(m, now);
      m.deadline = Math.min(m.deadline, m.heard + m.interval * 1.2);
      return now < m.deadline ? [] : tick(m, now);
    }
  }
}

function canPing(m: Machine): boolean {
  return m.transports[m.at] == 'websocket';
}

function until(m: Machine, deadline: number, ...effects: Effect[]): Effect[] {
  m.deadline = deadline;
  return effects;
}

function rest(m: Machine, phase: Machine['phase'], deadline: number, ...more: Effect[]): Effect[] {
  m.phase = phase;
  return until(m, deadline, 'close', ...more);
}

function begin(m: Machine, now: number): Effect[] {
  m.phase = 'authorizing';
  return until(m, now + TOKEN, 'token');
}

function tick(m: Machine, now: number): Effect[] {
  if (m.phase == 'waiting') return begin(m, now);
  if (m.phase != 'open') {
    // Silence, where a refusal would have been quick: a proxy may hold back the answer.
    m.attempts = ATTEMPTS;
    return end(m, {}, now);
  }
  if (canPing(m) && m.deadline != m.pinged) return ping(m, now);
  // The socket died silently.
  return begin(m, now);
}

function ping(m: Machine, now: number): Effect[] {
  m.pinged = now + ANSWER;
  return until(m, m.pinged, 'ping');
}

function frame(m: Machine, { op, reason, retry = 0 }: Frame, now: number): Effect[] {
  if (m.phase != 'connecting' && m.phase != 'open') return [];
  if (op == 'retry') {
    m.retry = retry;
    return [];
  }
  if (op == 'close') {
    if (FINAL.test(reason!)) return rest(m, 'closed', Infinity, { code: reason });
    m.fresh = reason == 'expired';
    return end(m, { retry }, now);
  }
  if (m.phase == 'connecting') {
    m.phase = 'open';
    m.failures = m.attempts = m.heard = 0;
    m.refused = false;
  }
  if (op == 'ping') {
    if (m.pinged) m.interval = Math.min(Math.max(now - m.pinged, 1000), 60_000);
    m.pinged = now;
  }
  m.heard = now;
  m.deadline = now + m.interval * (canPing(m) ? 1 : 2.2);
  return op == 'expiring' ? ['renew'] : [];
}

function end(m: Machine, failure: Failure, now: number): Effect[] {
  if (m.phase == 'idle') return [];
  if (failure.status == 401 && !m.refused) {
    m.refused = m.fresh = true;
    return begin(m, now);
  }
  if (isFinal(failure) || failure.status == 401) return rest(m, 'closed', Infinity, failure);
  const wasOpen = m.phase == 'open';
  // What the platform does not have is not tried twice.
  if (m.phase == 'connecting' && (failure.missing || ++m.attempts >= ATTEMPTS)) {
    m.at = (m.at + 1) % m.transports.length;
    m.attempts = 0;
  }
  m.pinged = 0;
  return rest(m, 'waiting', now + backoff(m.failures++, failure.retry ?? (wasOpen ? m.retry : 0), m.jitter));
}
