/** Runs the machine: transports, timers, and what the platform says of sleep and networks. */

import { type Failure, WhimbrelError } from './failure.js';
import { type Effect, type Input, type Machine, machine, step } from './machine.js';
import type { Position } from './position.js';
import { type Service, persist } from './request.js';
import { tokenOf } from './token.js';
import type { Frame, Open, Transport } from './transport/frame.js';
import { sse } from './transport/sse.js';
import type { Status, Stream, TransportName } from './types.js';

/** Whose frames they are: one client, or all tabs. */
export interface Core {
  streams(): string[];
  position: Position;
  frame(frame: Frame): void;
  /** What it is now, and why, if it is closed. */
  status(status: Status, failure?: Failure): void;
}

/** Where a client's frames come from: its own connection, or another tab's. */
export interface Source {
  /** The connection's id. */
  id?: string;
  start(): void;
  stop(): void;
  /** The streams are others; or, with a position, it is another one, and what was under way is not wanted any more. */
  change(position?: string): void;
  /** Whether another tab sees to it: to the cursor of this name, or to acknowledging this stream. */
  leaves?(what: string): boolean;
}

export class Connection implements Source {
  id?: string;
  /** The streams of the connection that was opened last. */
  granted: string[] = [];
  readonly #service: Service;
  readonly #core: Core;
  #machine: Machine;
  #open: Open = sse;
  #current?: Transport;
  /** What is open until `current` is. */
  #previous?: Transport;
  /** The position was changed, so what `previous` brings is not wanted any more. */
  #deaf = false;
  #generation = 0;
  #token?: string;
  #failure?: Failure;
  #timer?: ReturnType<typeof setTimeout>;
  #due = Infinity;

  constructor(service: Service, core: Core) {
    this.#service = service;
    this.#core = core;
    this.#machine = this.#fresh();
    // Hiding the page counts too, which does no harm.
    const { signal } = service;
    for (const on of ['visibilitychange', 'online', 'offline'] as const) {
      globalThis.addEventListener?.(on, () => this.#input({ on }), { signal });
    }
  }

  start(): void {
    if (this.#core.streams()[0]) this.#input({ on: 'start' });
  }

  stop(): void {
    this.#input({ on: 'stop' });
  }

  change(position = ''): void {
    this.#core.position.put(position, []);
    if (!this.#core.streams()[0]) return this.stop();
    this.#deaf ||= !!position;
    this.start();
    this.#input({ on: 'change' });
  }

  #fresh(): Machine {
    const { transport = ['sse', 'websocket', 'post'] } = this.#service.options;
    return machine([transport].flat());
  }

  #input(input: Input): void {
    const before = this.#machine.phase;
    for (const effect of step(this.#machine, input, Date.now())) this.#run(effect);
    const { phase } = this.#machine;
    if (phase != before) this.#core.status(phase, this.#failure);
    const { deadline } = this.#machine;
    // One timer, which is let fire too early rather than set anew with each frame. Without a deadline there is none,
    // or it would keep a program from ending.
    if (deadline < Infinity && deadline >= this.#due) return;
    clearTimeout(this.#timer);
    this.#due = deadline;
    if (deadline == Infinity) return;
    this.#timer = setTimeout(() => {
      this.#due = Infinity;
      this.#input({ on: 'tick' });
    }, deadline - Date.now());
  }

  #run(effect: Effect): void {
    if (effect == 'open') return this.#connect();
    if (effect == 'ping') return void this.#current?.send?.({ op: 'ping' });
    if (effect == 'renew') return this.#renew();
    this.#generation++;
    this.#current?.close();
    this.#previous?.close();
    this.#current = this.#previous = undefined;
    if (effect == 'token') void this.#authorize();
    if (typeof effect == 'object') this.#refused(effect);
  }

  async #authorize(): Promise<void> {
    const generation = this.#generation;
    const { transports, at, fresh } = this.#machine;
    let input: Input = { on: 'token' };
    try {
      this.#open = (await LAZY[transports[at]!]?.())?.open ?? sse;
      this.#token = await tokenOf(this.#service, fresh);
    } catch (error) {
      this.#service.fail(error);
      input = { on: 'end', failure: {} };
    }
    if (generation == this.#generation) this.#input(input);
  }

  #connect(): void {
    const generation = ++this.#generation;
    const { transports, at } = this.#machine;
    const streams = this.#core.streams();
    const after = this.#core.position.list();
    const request = { service: this.#service, streams, after, token: this.#token, transport: transports[at]! };
    // Only what is open is worth keeping.
    if (this.#previous || this.#machine.phase != 'open') this.#current?.close();
    else this.#previous = this.#current;
    this.#current = this.#open(request, {
      frame: (frame) => this.#frame(generation, frame, streams),
      end: (failure) => generation == this.#generation && this.#input({ on: 'end', failure }),
    });
  }

  #frame(generation: number, frame: Frame, streams: string[]): void {
    const { op, cursor, connection } = frame;
    if (generation == this.#generation) {
      if (op != 'retry') {
        this.#previous?.close();
        this.#previous = undefined;
        this.#deaf = false;
      }
      if (connection) {
        this.id = connection;
        this.granted = streams;
      }
      this.#input({ on: 'frame', frame });
      if (op == 'error') this.#service.fail(new WhimbrelError(frame));
    } else if (!this.#previous || this.#deaf) return;
    // The cursor of one stream is an event's id.
    const positions = streams[1] || !cursor ? frame.positions : { [streams[0]!]: cursor };
    this.#core.frame({ ...frame, positions, cursor: streams[1] && cursor });
  }

  /** What was open before goes on without the streams that are refused now, if there are others. */
  #refused(failure: Failure): void {
    const { status, detail = '' } = failure;
    const streams = this.#core.streams();
    const named = streams.filter((stream) => detail.split(' ').includes(stream));
    const refused = named[0] ? named : streams.filter((stream) => !this.granted.includes(stream));
    this.#failure = failure;
    if (status != 403 || !this.granted[0] || !refused[0] || refused.length == streams.length) return;
    for (const stream of refused) {
      this.#core.frame({ ...failure, op: 'unsubscribed', stream: stream as Stream });
    }
    this.#machine = this.#fresh();
    this.start();
  }

  #renew(): void {
    const generation = this.#generation;
    const renew = async () => {
      const { renew } = await import('./credentials.js');
      if (generation == this.#generation) this.#token = await renew(this.#service, this.id!, this.#current!);
    };
    persist(this.#service, renew).catch(() => {});
  }
}

/** Most pages need one transport, and load no other. */
const LAZY: { [name in TransportName]?: () => Promise<{ open: Open }> } = {
  websocket: () => import('./transport/websocket.js'),
  eventsource: () => import('./transport/eventsource.js'),
};
