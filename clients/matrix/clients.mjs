// The clients that are tried, what each needs, and what is known not to work. What it needs is what node.mjs,
// python.py, Jdk.java, java/, go/ and rust/ do beyond the client's first example.

const LOOP = 'a loop around it, which hands back the last id';
const SOCKET = 'a loop around it, which asks with the newest id';
const ANEW = 'a new one where `readyState` is 2 (`CLOSED`)';

const node = (name, title, pin, needs = 'nothing', fails = []) => ({ language: 'node', name, title, pin, needs, fails });
const python = (name, needs) => ({ language: 'python', name, title: name, pin: `${name}==`, needs });
const java = (name, title, needs) => ({ language: 'java', name, title, pin: 'java', needs });
const jar = (name, title, needs, fails) => ({ language: 'jars', name, title, pin: `<artifactId>${title}<`, needs, fails });
const rust = (name, needs, fails) => ({ language: 'rust', name, title: name, pin: `name = "${name}"`, needs, fails });
const go = (name, title, needs) => ({ language: 'go', name, title, pin: `${title} `, needs });

export const clients = [
  node('whimbrel', '[whimbrel-client](../clients/js/README.md) for JavaScript'),
  { language: 'python', name: 'whimbrel', title: '[whimbrel-client](../clients/python/README.md) for Python', needs: 'nothing' },
  { language: 'python', name: 'whimbrel-websocket', title: '… over WebSocket', needs: '`whimbrel-client[websocket]`' },
  { language: 'browser', name: 'chromium', title: 'Chromium, `EventSource`', needs: ANEW, fails: ['proxy'] },
  node('eventsource4', 'eventsource', 'npm:eventsource@4', ANEW, ['proxy']),
  node('eventsource3', 'eventsource', 'npm:eventsource@3', ANEW, ['proxy']),
  node('eventsource2', 'eventsource', 'npm:eventsource@2'),
  node('undici-eventsource', 'undici, `EventSource`', '"undici"', `${ANEW}; its timers don't keep a program running`, ['proxy']),
  node('eventsource-client', 'eventsource-client', '"eventsource-client"'),
  node('fetch-event-source', '@microsoft/fetch-event-source', 'fetch-event-source"', `${LOOP}; \`openWhenHidden\`, and in Node a \`window\``),
  node('launchdarkly-eventsource', 'launchdarkly-eventsource', '"launchdarkly-eventsource"'),
  node('ws', 'ws', '"ws"', SOCKET),
  node('undici-websocket', 'undici, `WebSocket`', '"undici"', SOCKET),
  python('httpx-sse', LOOP),
  python('sseclient-py', LOOP),
  python('requests-sse', LOOP),
  python('aiohttp-sse-client2', LOOP),
  python('websockets', SOCKET),
  python('websocket-client', SOCKET),
  java('jdk-http', 'the JDK\'s `HttpClient`, by lines', LOOP),
  java('jdk-websocket', 'the JDK\'s `WebSocket`', `${SOCKET}; the parts of a message are joined`),
  jar('okhttp-sse', 'okhttp-sse', `${LOOP}; no read timeout`),
  jar('okhttp-eventsource', 'okhttp-eventsource', '`ErrorStrategy.alwaysContinue()`'),
  jar('jersey', 'jersey-media-sse', 'a loop around it, which asks with the last id in `after`'),
  jar('java-websocket', 'Java-WebSocket', SOCKET),
  go('launchdarkly', 'github.com/launchdarkly/eventsource', 'an error handler, or somebody who reads `Errors`'),
  go('r3labs', 'github.com/r3labs/sse/v2', 'a loop around it; `ClientMaxBufferSize` above the largest event'),
  go('tmaxmax', 'github.com/tmaxmax/go-sse', `${LOOP}; \`Buffer\` above the largest event`),
  go('gorilla', 'github.com/gorilla/websocket', SOCKET),
  go('coder', 'github.com/coder/websocket', `${SOCKET}; \`SetReadLimit\` above the largest event`),
  rust('reqwest-eventsource', LOOP),
  rust('eventsource-client', 'nothing'),
  rust('tokio-tungstenite', SOCKET),
];
