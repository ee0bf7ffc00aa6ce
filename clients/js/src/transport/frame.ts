/** What all transports have in common: what is asked for, and what comes. */

import type { Failure } from '../failure.js';
import type { Service } from '../request.js';
import { partsOf } from '../stream.js';
import type { Stream, TransportName } from '../types.js';

/** One message of the service, in the shape that WebSocket gives it. */
export interface Frame extends Failure {
  op: string;
  /** The position after this frame, over SSE. */
  cursor?: string;
  /** Where all streams stand: in WebSocket's `ready`, or made of a cursor. */
  positions?: Record<string, string>;
  connection?: string;
  stream?: Stream;
  id?: string;
  type?: string;
  time?: string;
  data?: unknown;
  reason?: string;
  after?: string;
  next?: string;
  device?: string;
  info?: unknown;
}

/** What a connection is to be. */
export interface Request {
  service: Service;
  streams: string[];
  after: string[];
  token?: string;
  transport: TransportName;
}

export interface Handlers {
  frame(frame: Frame): void;
  /** The end, unless this side closed. */
  end(failure: Failure): void;
}

export interface Transport {
  close(): void;
  /** Says something to the service, where the transport can. */
  send?(message: object): void;
}

export type Open = (request: Request, on: Handlers) => Transport;

/** `device=` and `topic=` for each stream. */
export function streamParameters(streams: Iterable<string>): URLSearchParams {
  const all = new URLSearchParams();
  for (const stream of streams) {
    const [kind, name] = partsOf(stream);
    all.append(kind!, name!);
  }
  return all;
}

/** The path of a connection. */
export function pathTo(way: string, { service, streams, after }: Request, more = {}): string {
  const { types, members } = service.options;
  const all = streamParameters(streams);
  for (const value of after) all.append('after', value);
  for (const [name, value] of Object.entries({ types, members, ...more })) if (value) all.append(name, value + '');
  return `/v1/${way}?${all}`;
}

/** An SSE block as a frame. */
export function frameOf(type = '', data: string, cursor?: string): Frame {
  // That a producer is gone is an event of its stream.
  const own = /^whimbrel:(?!abandoned)(.+)/.exec(type);
  return { ...JSON.parse(data), op: own ? own[1] : 'event', cursor };
}

/** Where the platform does not have it, another transport has its turn. */
export function unavailable(on: Handlers, what: string): Transport {
  queueMicrotask(() => on.end({ detail: `there is no ${what} here`, missing: true }));
  return { close: () => {} };
}
