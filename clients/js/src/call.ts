/** Requests that are repeated until they are answered. */

import { backoff } from './backoff.js';
import { type Failure, failureOf, isFinal } from './failure.js';
import { type Service, ask, sleep } from './request.js';
import { partsOf } from './stream.js';
import { tokenOf } from './token.js';

export interface Call {
  /** `POST` with a body, `GET` without one. */
  method?: string;
  body?: string;
  headers?: Record<string, string>;
  /** Milliseconds for which it is repeated; 0: once. */
  patience?: number;
  /** Called where the service refuses it for good. */
  refused?: (failure: Failure) => void;
}

/** `/v1/devices/42` for `device:42`. */
export function pathOf(stream: string): string {
  const [kind, name] = partsOf(stream);
  return `/v1/${kind}s/${encodeURIComponent(name!)}`;
}

/** The answer's JSON. A 401 gets a new token once; what the service refused for good is thrown. */
export async function call(service: Service, path: string, request: Call = {}): Promise<any> {
  const { body, method = body && 'POST', patience = 60_000 } = request;
  const { signal } = service;
  const end = Date.now() + patience;
  for (let failures = 0, refused = false; ; ) {
    let failure: Failure;
    try {
      const headers = { ...request.headers, ...(body && { 'content-type': 'application/json' }) };
      const response = await ask(service, path, { method, body, headers, signal }, await tokenOf(service, refused));
      if (response.ok) return await response.json();
      failure = await failureOf(response);
    } catch (error) {
      failure = { detail: error + '' };
    }
    const unauthorized = failure.status == 401;
    if (unauthorized && !refused) {
      refused = true;
      continue;
    }
    const wait = backoff(failures++, failure.retry);
    const isRefused = unauthorized || isFinal(failure);
    if (isRefused) request.refused?.(failure);
    if (isRefused || signal.aborted || Date.now() + wait > end) throw new service.Error(failure);
    await sleep(wait, signal);
  }
}
