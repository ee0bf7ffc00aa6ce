// Modules of the source, for tests of values.
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

export async function source(name) {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(`../../src/${name}.ts`, import.meta.url))],
    bundle: true,
    format: 'esm',
    write: false,
    external: ['react'],
  });
  return import('data:text/javascript;base64,' + Buffer.from(outputFiles[0].contents).toString('base64'));
}
