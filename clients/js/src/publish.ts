/** Publishing and acknowledging: in order, repeated until it is answered, and done once all the same. */

import { isAfter } from './position.js';
import { call, pathOf } from './call.js';
import type { Service } from './request.js';
import type { PublishOptions, Published } from './types.js';

/** The service remembers idempotency keys for five minutes. A repeat has to be there before. */
const PATIENCE = 240_000;

/** Publishes one event of a stream after the other. */
export function publisher(service: Service) {
  const last = new Map<string, Promise<unknown>>();
  return (stream: string, data: unknown, options: PublishOptions, connection?: string): Promise<Published> => {
    const { key = randomKey(), echo, ...rest } = options;
    const { ephemeral } = rest;
    const query = new URLSearchParams(rest as Record<string, string>);
    if (echo === false && connection) query.set('exclude', connection);
    const send = () =>
      call(service, `${pathOf(stream)}/events?${query}`, {
        body: JSON.stringify(data),
        // What is not stored has no key, and could be there twice if it was repeated.
        ...(ephemeral ? { patience: 0 } : { patience: PATIENCE, headers: { 'idempotency-key': key } }),
      });
    const sent = (last.get(stream) ?? Promise.resolve()).then(send, send);
    last.set(stream, sent);
    return sent;
  };
}

/** Acknowledges the newest id of each device. Resolves once this id, or a newer one, is acknowledged. */
export function acknowledger(service: Service) {
  const newest = new Map<string, string>();
  const running = new Map<string, Promise<void>>();
  const run = async (stream: string) => {
    for (let id; id != newest.get(stream); ) {
      id = newest.get(stream);
      await call(service, pathOf(stream) + '/ack', { body: JSON.stringify({ id }) }).catch((error) => {
        // So that it can be acknowledged again.
        newest.delete(stream);
        throw error;
      });
    }
  };
  return async (stream: string, id = ''): Promise<void> => {
    if (!isAfter(id, newest.get(stream))) return running.get(stream);
    newest.set(stream, id);
    if (!running.has(stream)) running.set(stream, run(stream).finally(() => running.delete(stream)));
    return running.get(stream);
  };
}

/** `crypto.randomUUID` is there on secure pages only. */
function randomKey(): string {
  return crypto.getRandomValues(new Uint32Array(4)).join('-');
}
