// Builds dist/, with the types, and what nodes serve of it, in src/api/page/client.
//
//   node build.mjs [SERVED]      SERVED is another directory for what nodes serve; nothing else is built then
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** Bytes that a page loads before the first event, gzipped. */
const LIMIT = 5 * 1024;

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const served = process.argv[2] ?? here('../../src/api/page/client');

/** What a page loads only when it needs it. */
const LAZY = ['tabs', 'credentials', 'requests', 'transport/websocket', 'transport/eventsource', 'transport/post'];

const nameOf = (path) => `client-${path.replace(/.*\//, '').replace(/\.js$/, '')}`;

/** `import('./transport/websocket.js')` stays an import, of a file beside the one that imports it. */
const lazy = {
  name: 'lazy',
  setup({ onResolve }) {
    onResolve({ filter: /./ }, ({ path, kind }) =>
      kind == 'dynamic-import' ? { path: `./${nameOf(path)}.js`, external: true } : undefined,
    );
  },
};

/** Fields of the machine, which nobody else sees, get short names. */
const mangleProps = /^(attempts|deadline|failures|fresh|heard|interval|offline|phase|pinged|jitter|refused|transports)$/;

const options = { bundle: true, minify: true, format: 'esm', target: 'es2022', logLevel: 'warning', mangleProps };
const entries = { client: here('src/index.ts'), ...Object.fromEntries(LAZY.map((path) => [nameOf(path), here(`src/${path}.ts`)])) };
await build({ ...options, entryPoints: entries, outdir: served, plugins: [lazy] });

const sizes = Object.keys(entries).map((name) => {
  const file = readFileSync(join(served, `${name}.js`));
  const size = gzipSync(file, { level: 9 }).length;
  console.log(`${name}.js: ${file.length} bytes, ${size} gzipped`);
  return size;
});
if (sizes[0] > LIMIT) {
  console.error(`client.js is larger than ${LIMIT} bytes, gzipped`);
  process.exit(1);
}

if (!process.argv[2]) {
  mkdirSync(here('dist'), { recursive: true });
  await build({ ...options, entryPoints: [here('src/react.ts')], outdir: here('dist'), external: ['react'] });
  for (const name of Object.keys(entries)) copyFileSync(join(served, `${name}.js`), here(`dist/${name}.js`));
  execFileSync(process.execPath, [here('node_modules/typescript/bin/tsc')], { cwd: here('.'), stdio: 'inherit' });
}
