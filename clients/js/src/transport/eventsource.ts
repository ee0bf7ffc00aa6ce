/** Server-Sent Events by the browser's own EventSource. It can't set headers, and knows only the types asked for. */

import { type Handlers, type Request, type Transport, frameOf, pathTo, unavailable } from './frame.js';
import { probe } from './sse.js';

const NOTICES = ['position', 'gap', 'close', 'expiring', 'ping', 'joined', 'left', 'members'];

export function open(request: Request, on: Handlers): Transport {
  const { service, token } = request;
  const { types = [], credentials, EventSource: Source = globalThis.EventSource } = service.options;
  if (!Source) return unavailable(on, 'EventSource');
  const url = service.url + pathTo('sse', request, { envelope: 1, heartbeat: 1, token });
  const source = new Source(url, { withCredentials: !!credentials });
  let opened = false;
  const pass = ({ type, data, lastEventId }: MessageEvent) => on.frame(frameOf(type, data, lastEventId || undefined));
  for (const type of ['message', ...NOTICES.map((name) => 'whimbrel:' + name), ...types]) {
    source.addEventListener(type, pass);
  }
  source.onopen = () => {
    opened = true;
  };
  source.onerror = () => {
    // It would come back by itself, with no regard to what this client knows.
    source.close();
    if (opened) on.end({});
    else void probe(request).then(on.end);
  };
  return { close: () => source.close() };
}
