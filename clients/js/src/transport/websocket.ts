/** WebSocket. Pings of the protocol are invisible to a page, so signs of life are asked for. */

import { type Handlers, type Request, type Transport, pathTo, unavailable } from './frame.js';
import { probe } from './sse.js';

export function open(request: Request, on: Handlers): Transport {
  const { service, token } = request;
  const Socket = service.options.WebSocket ?? globalThis.WebSocket;
  if (!Socket) return unavailable(on, 'WebSocket');
  const protocols = ['whimbrel.v1', ...(token ? ['whimbrel.token.' + token] : [])];
  const url = new URL(service.url + pathTo('ws', request), globalThis.location?.href);
  const socket = new Socket(url.href.replace(/^http/, 'ws'), protocols);
  let opened = false;
  let closed = false;
  socket.onopen = () => {
    opened = true;
  };
  socket.onmessage = ({ data }) => on.frame(JSON.parse(data));
  // `close` follows, and some implementations throw an error that nobody takes.
  socket.onerror = () => {};
  socket.onclose = ({ code, reason }) => {
    if (closed) return;
    // 1008 says that this will not be allowed the next time either.
    if (opened) on.end(code == 1008 ? { status: 403, code: 'forbidden', detail: reason } : {});
    else void probe(request).then(on.end);
  };
  return {
    close: () => ((closed = true), socket.close()),
    send: (message) => socket.readyState == 1 && socket.send(JSON.stringify(message)),
  };
}
