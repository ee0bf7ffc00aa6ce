/** What every request has: an address, a token, and patience. */

import { backoff } from './backoff.js';
import type { Failure, WhimbrelError } from './failure.js';
import type { Options } from './types.js';

/** Keeps a token until it is about to expire. */
export interface TokenSource {
  get(fresh: boolean): Promise<string>;
}

export interface Service {
  url: string;
  options: Options;
  /** Once the options' `token` was asked for one. */
  credentials?: TokenSource;
  /** Aborted when the client is closed. */
  signal: AbortSignal;
  /** Says what went wrong without an end. */
  fail(error: unknown): void;
  /** Closes the client, for this reason. */
  end(failure: Failure): void;
  /** There is one class of errors, whichever module throws one. */
  Error: typeof WhimbrelError;
}

/** A request with what all of them have. */
export function ask({ url, options }: Service, path: string, init: RequestInit, token?: string): Promise<Response> {
  const { credentials } = options;
  const headers = { ...init.headers, ...(token && { authorization: 'Bearer ' + token }) };
  return fetch(url + path, { ...init, headers, credentials, cache: 'no-store' });
}

/** Tries until it works, or the client is closed. */
export async function persist<T>({ fail, signal }: Service, run: () => T | Promise<T>): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await run();
    } catch (error) {
      fail(error);
      await sleep(backoff(failures), signal);
      if (signal.aborted) throw error;
    }
  }
}

/** Waits, or less if the client is closed or the network is back. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const end = () => {
      clearTimeout(timer);
      resolve();
    };
    globalThis.addEventListener?.('online', end, { once: true, signal });
    signal.addEventListener('abort', end, { once: true });
  });
}
