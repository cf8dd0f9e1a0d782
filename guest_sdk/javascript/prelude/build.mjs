// Bundles src/main.ts into dist/prelude.js: one script, no imports, that leaves the guest's globals behind.
//
// Identifiers are kept (only whitespace and syntax are minified), because function and class names show up in logs and
// error texts. Prints the size, and fails above the budget, so that growth is a decision and not an accident.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const PRELUDE_BYTES_MAX = 400 * 1024;

const here = dirname(fileURLToPath(import.meta.url));
const outfile = process.argv[2] ?? join(here, "dist", "prelude.js");

await esbuild.build({
  // Module names in the bundle are paths below this folder, wherever the packages really are.
  absWorkingDir: here,
  preserveSymlinks: true,
  entryPoints: [join(here, "src", "main.ts")],
  outfile,
  bundle: true,
  format: "iife",
  platform: "neutral",
  mainFields: ["module", "main"],
  target: "es2023",
  charset: "utf8",
  legalComments: "none",
  minifyWhitespace: true,
  minifySyntax: true,
  logLevel: "warning",
  // Said here, so that tsconfig.json (for editors and the type check) does not decide what is built.
  tsconfigRaw: { compilerOptions: { alwaysStrict: true, target: "es2023" } },
  alias: { tr46: join(here, "src", "tr46.ts") },
  external: ["node:*"],
  plugins: [
    {
      // object-inspect asks for Node's own util; there is none here, and its package says so only to browsers' bundlers.
      name: "no-node-util",
      setup(build) {
        build.onResolve({ filter: /^\.\/util\.inspect$/ }, () => ({ path: "util.inspect", namespace: "empty" }));
        build.onLoad({ filter: /.*/, namespace: "empty" }, () => ({ contents: "module.exports = {};" }));
      },
    },
  ],
});

const size = readFileSync(outfile).length;
console.log(`${outfile}: ${size} bytes`);
if (size > PRELUDE_BYTES_MAX) {
  console.error(`the prelude is larger than its budget of ${PRELUDE_BYTES_MAX} bytes`);
  process.exit(1);
}
