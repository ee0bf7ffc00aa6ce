/** Server-Sent Events by `fetch`: with headers, with the status of an answer, with comments as signs of life. */

import { type Failure, failureOf } from '../failure.js';
import { ask } from '../request.js';
import { type Handlers, type Request, type Transport, pathTo } from './frame.js';
import { parser } from './parse.js';

/** A longer address goes into a body, as some proxies refuse it: the usual ones at 8 KiB with all headers. */
const LONGEST = 4000;

export function sse(request: Request, on: Handlers): Transport {
  const abort = new AbortController();
  const { signal } = abort;
  const run = async () => {
    const response = await open(request, signal);
    if (!isStream(response)) return failureOf(response);
    const reader = response.body!.getReader();
    const decoder = new TextDecoder();
    const feed = parser(on.frame);
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return {};
      feed(decoder.decode(value, { stream: true }));
    }
  };
  void run()
    .catch((error) => ({ detail: error + '' }))
    .then((failure) => {
      // Whatever is left of the answer is not read.
      abort.abort();
      on.end(failure);
    });
  return { close: () => abort.abort() };
}

/** Why a connection can't be opened, where the browser does not say. */
export async function probe(request: Request): Promise<Failure> {
  const abort = new AbortController();
  try {
    const response = await open(request, abort.signal);
    return isStream(response) ? {} : await failureOf(response);
  } catch {
    return {};
  } finally {
    abort.abort();
  }
}

async function open(request: Request, signal: AbortSignal): Promise<Response> {
  const { service, transport, token } = request;
  const path = pathTo('sse', request, { envelope: 1 });
  const headers = { accept: 'text/event-stream' };
  if (transport != 'post' && path.length < LONGEST) return ask(service, path, { headers, signal }, token);
  return (await import('./post.js')).post(request, { headers, signal });
}

function isStream({ status, headers }: Response): boolean {
  return status == 200 && /^text\/event-stream/.test(headers.get('content-type')!);
}
