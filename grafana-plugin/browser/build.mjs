// Bundles the host page with the @grafana packages of one node_modules folder:
// node browser/build.mjs OUT [FOLDER]
import { mkdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import esbuild from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const [out, folder = path.join(here, '..')] = process.argv.slice(2);
const from = createRequire(path.join(path.resolve(folder), 'package.json'));
const ours = /^(react|react-dom|react-dom\/client|rxjs|@grafana\/(data|runtime|ui))$/;
const built = await esbuild.build({
  write: false,
  entryPoints: [path.join(here, 'host.tsx')],
  outfile: out,
  bundle: true,
  format: 'iife',
  platform: 'browser',
  target: 'es2022',
  jsx: 'transform',
  define: { 'process.env.NODE_ENV': '"production"', 'process.env': '{}', global: 'window', __dirname: '""' },
  loader: { '.svg': 'dataurl', '.css': 'css', '.woff2': 'empty', '.woff': 'empty', '.ttf': 'empty' },
  mainFields: ['module', 'browser', 'main'],
  conditions: ['module', 'browser', 'import', 'default'],
  nodePaths: [path.join(path.resolve(folder), 'node_modules')],
  logLevel: 'error',
  plugins: [
    {
      name: 'host-packages', // the page's own imports come from the chosen folder
      setup(b) {
        const root = path.dirname(from.resolve('react/package.json'));
        b.onResolve({ filter: ours }, (args) => {
          if (args.pluginData) {
            return undefined;
          }
          const resolveDir = args.importer === path.join(here, 'host.tsx') ? root : args.resolveDir;
          return b.resolve(args.path, { kind: args.kind, importer: args.importer, resolveDir, pluginData: true });
        });
        b.onResolve({ filter: /^(fs|path|os|crypto|stream|util|zlib|http|https|url|assert|buffer|worker_threads)$/ }, (args) => ({ path: args.path, namespace: 'absent' }));
        b.onLoad({ filter: /.*/, namespace: 'absent' }, () => ({ contents: 'export default {}' }));
      },
    },
  ],
});

// The packages' .mjs files get Node's idea of a default import of CommonJS, the
// whole module; they were written for a bundler's, its default.
await mkdir(path.dirname(out), { recursive: true });
for (const f of built.outputFiles) {
  await writeFile(f.path, f.path.endsWith('.js') ? f.text.replace(/__toESM\((require_[\w$]+\(\)), 1\)/g, '__toESM($1)') : f.contents);
}
