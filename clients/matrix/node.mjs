// Clients in Node, as somebody would use them.
//
//   node node.mjs NAME URL TOPIC      prints {"id","data"} of each event, a line each, from the earliest on
import { WebSocket as UndiciWebSocket, EventSource as UndiciEventSource } from 'undici';

const [name, url, topic] = process.argv.slice(2);
const emit = (id, data) => console.log(JSON.stringify({ id, data }));
const address = `${url}/v1/sse?topic=${topic}&after=earliest`;
const pause = () => new Promise((resolve) => setTimeout(resolve, 500 + Math.random() * 1000));

/** What comes back by itself, with the last id. */
function source(EventSource) {
  const made = new EventSource(address);
  made.onmessage = ({ lastEventId, data }) => emit(lastEventId, data);
  made.onerror = () => {};
}

/** Any WebSocket: the loop and the position are the application's. */
async function socket(WebSocket) {
  for (let after = 'earliest'; ; await pause()) {
    const made = new WebSocket(`${url.replace('http', 'ws')}/v1/ws?topic=${topic}&after=${after}`);
    made.onerror = () => {};
    made.onmessage = ({ data: text }) => {
      const { op, id, data } = JSON.parse(text);
      if (op === 'event') emit((after = id), JSON.stringify(data));
    };
    await new Promise((resolve) => (made.onclose = resolve));
  }
}

const clients = {
  eventsource2: async () => source((await import('eventsource2')).default),
  eventsource3: async () => source((await import('eventsource3')).EventSource),
  eventsource4: async () => source((await import('eventsource4')).EventSource),
  'undici-eventsource': () => source(UndiciEventSource),
  'launchdarkly-eventsource': async () => source((await import('launchdarkly-eventsource')).EventSource),
  'eventsource-client': async () => {
    const { createEventSource } = await import('eventsource-client');
    createEventSource({ url: address, onMessage: ({ id, event, data }) => event || emit(id, data) });
  },
  'fetch-event-source': async () => {
    const { fetchEventSource } = await import('@microsoft/fetch-event-source');
    globalThis.window = globalThis;
    // It returns at an end without an error, and forgets the id then.
    for (let last; ; await pause()) {
      await fetchEventSource(address, {
        openWhenHidden: true,
        headers: last ? { 'last-event-id': last } : {},
        onmessage: ({ id, event, data }) => {
          last = id || last;
          if (!event) emit(id, data);
        },
        onerror: () => 500 + Math.random() * 1000,
      });
    }
  },
  ws: async () => socket((await import('ws')).WebSocket),
  'undici-websocket': () => socket(UndiciWebSocket),
  whimbrel: async () => {
    const { connect } = await import('../../src/api/page/client/client.js');
    const client = connect({ url, streams: [`topic:${topic}`], after: 'earliest' });
    client.on('*', ({ id, data }) => emit(id, JSON.stringify(data)));
  },
};

// A program that goes on: some clients' timers don't keep it running.
setInterval(() => {}, 1e6);
await clients[name]();
