// The package as others install it: npm pack, into a project of its own.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import assert from 'node:assert/strict';
import { folder } from './support/world.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const PROGRAM = `
import { type Event, type Gap, WhimbrelError, connect } from 'whimbrel-client';
import { usePresence, useStream } from 'whimbrel-client/react';

interface Price { symbol: string; price: number }
const whimbrel = connect<{ price: Price; message: string }>({ url: 'http://127.0.0.1:1', onGap: (gap: Gap) => gap.reason });
whimbrel.on('price', ({ data }) => data.price.toFixed(2));
// @ts-expect-error: a message is a text
whimbrel.on('message', ({ data }) => data.price);
export async function all(): Promise<void> {
  for await (const event of whimbrel) if (event.type == 'price') event.data.symbol.trim();
}
export const board = whimbrel.state(async ({ cursor }) => ({ cursor, value: 1 }), (value, event: Event) => value + event.type.length);
export const Chat = () => useStream(whimbrel, 'topic:chat', (lines: string[], { stream }) => [...lines, stream], [] as string[]).length + usePresence(whimbrel, 'topic:chat').length;
export const failed = (error: unknown) => error instanceof WhimbrelError && error.code;
`;

test('the packed package installs, runs, and has types', (t) => {
  const at = folder(t);
  const run = (command, args, cwd = at) => execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  run('npm', ['run', '--silent', 'build'], here('..'));
  const packed = run('npm', ['pack', '--silent', '--pack-destination', at], here('..')).trim();
  writeFileSync(join(at, 'package.json'), '{ "private": true, "type": "module" }');
  run('npm', ['install', '--silent', '--no-audit', '--no-fund', '--omit=peer', '--offline', join(at, packed)]);
  writeFileSync(join(at, 'run.mjs'), "import { connect } from 'whimbrel-client'; console.log(connect({ url: 'http://127.0.0.1:1' }).status);");
  assert.equal(run(process.execPath, ['run.mjs']), 'idle\n');
  writeFileSync(join(at, 'program.ts'), PROGRAM);
  const options = { strict: true, noEmit: true, target: 'ES2022', module: 'NodeNext', lib: ['ES2022', 'DOM'], types: [], typeRoots: [], paths: { react: [here('../node_modules/@types/react/index.d.ts')] } };
  writeFileSync(join(at, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['program.ts'] }));
  run(process.execPath, [here('../node_modules/typescript/bin/tsc')]);
  const { dependencies } = JSON.parse(readFileSync(join(at, 'node_modules/whimbrel-client/package.json'), 'utf8'));
  assert.equal(dependencies, undefined);
});
