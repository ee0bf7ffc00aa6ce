/** Server-Sent Events by POST: for many streams, and for proxies that hold back what answers a GET. */

import { ask } from '../request.js';
import type { Request } from './frame.js';

/** The same as `GET`, with what is wanted in a body. */
export function post({ service, streams, after, token }: Request, { headers, signal }: RequestInit): Promise<Response> {
  const { types, members } = service.options;
  const body = JSON.stringify({ streams, after, types, members, envelope: true });
  return ask(service, '/v1/sse', { method: 'POST', body, headers: { ...headers, 'content-type': 'application/json' }, signal }, token);
}
