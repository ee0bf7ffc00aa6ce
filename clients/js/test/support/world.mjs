// The real parts that tests run against: nodes, a Redis, a proxy. All on free ports, all ended with the test.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Longer than anything should take on a busy machine. */
const PATIENCE = 60_000;

export const PROGRAM = process.env.WHIMBREL_PROGRAM ?? fileURLToPath(new URL('../../../../target/debug/whimbrel', import.meta.url));

/** Another client of the matrix, whose events `take` gets one by one. It is killed with the test `t`. */
export function other(t, language, name, url, topic, take) {
  const here = (path) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
  const [command, ...before] = {
    node: [process.execPath, here('matrix/node.mjs')],
    python: [process.env.MATRIX_PYTHON ?? here('../target/tools/python/bin/python'), here('matrix/python.py')],
    java: ['java', here('matrix/Jdk.java')],
    jars: ['java', '-cp', here('../target/tools/java/classes') + ':' + here('../target/tools/java/*'), 'Libraries'],
    rust: [here('../target/matrix/debug/matrix')],
    go: [process.env.MATRIX_GO ?? here('../target/tools/matrix')],
  }[language];
  const env = { ...process.env, PYTHONPATH: here('python/src'), PYTHONDONTWRITEBYTECODE: '1' };
  const child = spawn(command, [...before, name, url, topic], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  createInterface({ input: child.stdout }).on('line', (line) => take(JSON.parse(line)));
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What `probe` gives, once it gives something. */
export async function eventually(what, probe, patience = PATIENCE) {
  for (const end = Date.now() + patience; ; await sleep(10)) {
    const value = await probe();
    if (value) return value;
    assert.ok(Date.now() < end, `never came true: ${what}`);
  }
}

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A process that is killed with the test `t`. */
function start(t, command, args, options = {}, end = 'SIGKILL') {
  const process = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'], ...options });
  const running = { process, log: '' };
  process.stderr.setEncoding('utf8').on('data', (text) => (running.log += text));
  running.ended = new Promise((resolve) => process.on('exit', resolve).on('error', resolve));
  running.kill = (signal = 'SIGKILL') => (process.kill(signal), running.ended);
  t.after(() => running.kill(end));
  return running;
}

export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'whimbrel-client-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** The address of a redis-server. */
export async function redis(t) {
  const port = await freePort();
  start(t, 'redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--dir', folder(t)]);
  const answers = () =>
    new Promise((resolve) => {
      const check = spawn('redis-cli', ['-p', port, 'ping'], { stdio: 'ignore' });
      check.on('exit', (code) => resolve(code === 0));
    });
  await eventually('redis-server answers', answers);
  return `redis://127.0.0.1:${port}`;
}

/** A node; it can be killed and started again on its port. */
export async function node(t, settings = {}) {
  const port = await freePort();
  const clean = Object.entries(process.env).filter(([name]) => !name.startsWith('WHIMBREL_'));
  const env = { ...Object.fromEntries(clean), WHIMBREL_LISTEN: `127.0.0.1:${port}`, WHIMBREL_LOG: 'info,whimbrel=debug', ...settings };
  const made = { url: `http://127.0.0.1:${port}`, port };
  made.start = async () => {
    const running = start(t, PROGRAM, ['serve'], { env });
    Object.assign(made, { kill: running.kill, running });
    await eventually('the node listens', () => {
      assert.equal(running.process.exitCode, null, running.log);
      return running.log.includes(' on http://');
    });
  };
  await made.start();
  return made;
}

/** nginx in front of nodes, as docs/reverse-proxies.md has it, with a folder of files under /files/. */
export async function nginx(t, nodes, files = folder(t)) {
  const [port, at] = [await freePort(), folder(t)];
  const servers = nodes.map(({ port }) => `server 127.0.0.1:${port} max_fails=1 fail_timeout=1s;`).join('\n');
  writeFileSync(join(at, 'nginx.conf'), `
    ${process.getuid() == 0 ? 'user root;' : ''}
    daemon off; pid ${at}/pid; error_log stderr error; worker_processes 1;
    events { worker_connections 1024; }
    http {
      access_log off; client_body_buffer_size 1m;
      types { text/html html; text/javascript js; }
      ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${at}/${name};`).join('\n')}
      map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
      upstream nodes { ${servers} keepalive 8; }
      server {
        listen 127.0.0.1:${port};
        location /files/ { alias ${files}/; }
        location / {
          proxy_pass http://nodes;
          proxy_http_version 1.1;
          proxy_set_header Host $http_host;
          proxy_set_header Upgrade $http_upgrade;
          proxy_set_header Connection $connection_upgrade;
          proxy_buffering off;
          proxy_connect_timeout 3s;
        }
      }
    }`);
  // Killed outright, it would leave its worker behind.
  const running = start(t, 'nginx', ['-p', at, '-e', 'stderr', '-c', join(at, 'nginx.conf')], {}, 'SIGTERM');
  const url = `http://127.0.0.1:${port}`;
  await eventually(`nginx answers: ${running.log}`, () => fetch(url).then(() => true, () => false));
  return { url, files };
}

/** Publishes over REST, without the client. */
export async function publish(url, stream, data, query = '') {
  const [kind, ...name] = stream.split(':');
  const answer = await fetch(`${url}/v1/${kind}s/${name.join(':')}/events${query}`, {
    method: 'POST',
    body: JSON.stringify(data),
    headers: { 'content-type': 'application/json' },
  });
  assert.ok(answer.ok, await answer.clone().text());
  return (await answer.json()).id;
}

/** Publishes all of this to one stream, in one request; gives the ids. */
export async function publishAll(url, stream, data) {
  const [kind, ...name] = stream.split(':');
  const body = data.map((data) => JSON.stringify({ [kind]: name.join(':'), data })).join('\n');
  const answer = await fetch(`${url}/v1/events`, { method: 'POST', body, headers: { 'content-type': 'application/x-ndjson' } });
  return (await answer.json()).results.map(({ id }) => id);
}

/** The numbers from `first` up to `end`. */
export const numbers = (end, first = 0) => Array.from({ length: end - first }, (_, n) => first + n);

const HTML =
  'HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 24\r\nconnection: close\r\n\r\n<html>Bad Gateway</html>';

/**
 * A proxy that can be made to misbehave: `pass`, `hang` (sockets stay, bytes don't), `deaf` (answers don't come back),
 * `html` (a 502 in HTML); what begins with the path `refuse` gets the last always, and with `hold` no answer, nor an
 * end. `target` may change.
 */
export async function proxy(t, target) {
  const made = { mode: 'pass', connections: 0, pieces: 0, target };
  const open = new Set();
  const server = createServer((client) => {
    open.add(client);
    client.on('error', () => {}).on('close', () => open.delete(client));
    made.connections++;
    if (made.mode == 'html') return client.end(HTML);
    const { hostname, port } = new URL(made.target);
    const upstream = connect({ host: hostname, port });
    upstream.on('error', () => client.destroy()).on('close', () => client.stranded || client.destroy());
    client.on('close', () => upstream.destroy());
    let held = false;
    client.on('data', (bytes) => {
      held ||= made.hold && bytes.includes(` ${made.hold}`);
      if (made.refuse && bytes.includes(` ${made.refuse}`)) client.end(HTML);
      else if (made.mode != 'hang' && !client.stranded) upstream.write(bytes);
    });
    upstream.on('data', (bytes) => {
      made.pieces++;
      if (!held && !client.stranded && !['hang', 'deaf'].includes(made.mode)) client.write(bytes);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  made.url = `http://127.0.0.1:${server.address().port}`;
  /** Ends all connections that are open. */
  made.cut = () => open.forEach((socket) => socket.destroy());
  /** All connections that are open die silently: no byte gets through any more, and no end. */
  made.strand = () => open.forEach((socket) => (socket.stranded = true));
  t.after(() => (made.cut(), server.close()));
  return made;
}
