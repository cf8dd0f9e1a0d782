// The bundler service: turns an app's entry modules into the one script that an image evaluates.
//
// Runs beside the `skerry` command on a developer's machine, never in the server. Reads one JSON request a line from
// standard input, answers with one JSON line on standard output, in order, and ends with its input. A request:
//
//   {"root": DIR, "entries": [{"name", "path"}], "node": [NAME], "packages": DIR, "resolutions": {...} | null}
//
// `root` is the app's folder; `path` is relative to it; `packages` is the node_modules folder of the pinned tool packages,
// searched after the app's own. `resolutions` (when a bundle is verified) says what each bare import led to the first time.
// The answer is {"script", "map", "sources": {name: text}, "resolutions", "warnings"} or {"errors": [...]}.
//
// Nothing in an answer depends on where the folders lie: files are named app/..., up1/... (one folder above the app) or
// tools/... (the pinned packages), and the script's own comments likewise.
//
// The files that esbuild reads pass through here, so the sources that are recorded are the sources that were bundled.

import { existsSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, extname, join, relative, resolve, sep } from "node:path";
import { createInterface } from "node:readline";
import { rewriteConvexModule } from "./bind_natives.mjs";

const toolFolder = process.argv[2];
const esbuild = createRequire(join(toolFolder, "package.json"))("esbuild");

const LOADERS = {
  ".ts": "ts", ".mts": "ts", ".cts": "ts", ".tsx": "tsx", ".jsx": "jsx", ".js": "js", ".mjs": "js", ".cjs": "js",
  ".json": "json", ".txt": "text",
};
const FOLDERS_ABOVE_MAX = 8;
const AUTH_CONFIG = "auth.config";
const EXTENDS_MAX = 8;

// esbuild's helper renames on every call of a function that makes closures; most names are right already.
const NAME_HELPER = 'var __name = (target, value) => __defProp(target, "name", { value, configurable: !0 });';
const NAME_HELPER_FAST =
  'var __name = (target, value) => target.name === value ? target : __defProp(target, "name", { value, configurable: !0 });';

const ASYNC_HOOKS =
  "export const AsyncLocalStorage = globalThis.AsyncLocalStorage; export const AsyncResource = globalThis.AsyncResource;\n" +
  "export default { AsyncLocalStorage, AsyncResource };\n";

// -- files ---------------------------------------------------------------------------------------------------------

const fileCache = new Map(); // path -> {mtimeNs, size, text}

function readSource(path) {
  const stat = statSync(path, { bigint: true });
  const known = fileCache.get(path);
  if (known && known.mtimeNs === stat.mtimeNs && known.size === stat.size) return known.text;
  const text = readFileSync(path, "utf8");
  fileCache.set(path, { mtimeNs: stat.mtimeNs, size: stat.size, text });
  return text;
}

function withoutSourceMapLink(text) {
  // A package's own source map would have to travel too for the same bytes to come out again.
  const at = text.lastIndexOf("sourceMappingURL=");
  return at < 0 ? text : text.replace(/^[ \t]*\/\/[#@] sourceMappingURL=[^\r\n]*/gm, "//");
}

function canonicalName(request, path) {
  const fromTools = relative(request.packages, path);
  if (!fromTools.startsWith("..")) return "tools/" + fromTools.split(sep).join("/");
  const parts = relative(request.root, path).split(sep);
  let above = 0;
  while (parts[above] === "..") above += 1;
  const rest = parts.slice(above).join("/");
  if (above > FOLDERS_ABOVE_MAX) throw new Error(`${path} is too far outside the app's folder to be bundled with it.`);
  return above ? `up${above}/${rest}` : `app/${rest}`;
}

function pathOfCanonical(request, name) {
  const slash = name.indexOf("/");
  const area = name.slice(0, slash);
  const rest = name.slice(slash + 1);
  if (area === "tools") return join(request.packages, rest);
  if (area === "app") return join(request.root, rest);
  return resolve(request.root, "../".repeat(Number(area.slice(2))), rest);
}

// -- the plugin ----------------------------------------------------------------------------------------------------

function skerryPlugin(state) {
  return {
    name: "skerry",
    setup(build) {
      build.onResolve({ filter: /^skerry:entry$/ }, () => ({ path: "entry", namespace: "skerry" }));
      build.onLoad({ filter: /^entry$/, namespace: "skerry" }, () => ({
        contents: entryText(state.request), loader: "js", resolveDir: state.request.root,
      }));
      build.onResolve({ filter: /^(node:)?async_hooks$/ }, () => ({ path: "async_hooks", namespace: "skerry" }));
      build.onLoad({ filter: /^async_hooks$/, namespace: "skerry" }, () => ({ contents: ASYNC_HOOKS, loader: "js" }));
      build.onResolve({ filter: /^[^./]/ }, (args) => {
        const replay = state.request.resolutions;
        if (!replay || args.namespace !== "file") return null;
        const known = replay[`${canonicalName(state.request, args.importer)} ${args.kind} ${args.path}`];
        return known ? { path: pathOfCanonical(state.request, known) } : null;
      });
      build.onLoad({ filter: /\.[mc]?[jt]sx?$/, namespace: "file" }, (args) => {
        const text = readSource(args.path);
        state.files.set(args.path, text);
        const bound = rewriteConvexModule(args.path, text, packageVersion, readSource);
        return { contents: withoutSourceMapLink(bound ?? text), loader: LOADERS[extname(args.path)] ?? "js" };
      });
      build.onLoad({ filter: /\.(json|txt)$/, namespace: "file" }, (args) => {
        const text = readSource(args.path);
        state.files.set(args.path, text);
        return { contents: text, loader: LOADERS[extname(args.path)] };
      });
      build.onLoad({ filter: /\.wasm$/, namespace: "file" }, (args) => ({
        errors: [{ text: `WebAssembly files cannot be imported by functions yet (${relative(state.request.root, args.path)}).` }],
      }));
    },
  };
}

function packageVersion(folder) {
  try {
    return JSON.parse(readSource(join(folder, "package.json"))).version;
  } catch {
    return null;
  }
}

function entryText(request) {
  const auth = request.entries.find((e) => e.name === AUTH_CONFIG);
  const entries = request.entries.filter((e) => e !== auth);
  const imports = entries.map((e, i) => `import * as m${i} from ${JSON.stringify("./" + e.path)};`);
  const fields = entries.map((e, i) => `${JSON.stringify(e.name)}: m${i}`);
  // Loaded when it is asked for: see the prelude's register.ts.
  const rest = auth ? `, () => require(${JSON.stringify("./" + auth.path)})` : "";
  return `${imports.join("\n")}\nskerryRegister({ ${fields.join(", ")} }, ${JSON.stringify(request.node)}${rest});\n`;
}

// -- one request ---------------------------------------------------------------------------------------------------

let live = null; // the incremental context of the newest layout, and what it belongs to

async function contextFor(request) {
  // The set of entries lives in a loaded file, so only folders are part of the key.
  const key = JSON.stringify([request.root, request.packages]);
  if (live?.key !== key) {
    await live?.context.dispose();
    const state = { request, files: new Map() };
    live = { key, state, context: await esbuild.context(options(request, state)) };
  }
  live.state.request = request;
  live.state.files.clear();
  return live;
}

function options(request, state) {
  return {
    entryPoints: ["skerry:entry"],
    absWorkingDir: request.root,
    nodePaths: [request.packages],
    outfile: join(request.root, "app.js"),
    write: false,
    bundle: true,
    format: "iife",
    platform: "browser",
    target: "es2024",
    conditions: ["convex", "module"],
    mainFields: ["browser", "module", "main"],
    treeShaking: true,
    minifySyntax: true,
    keepNames: true,
    charset: "utf8",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"production"' },
    sourcemap: "external",
    sourcesContent: false,
    legalComments: "none",
    metafile: true,
    logLevel: "silent",
    plugins: [skerryPlugin(state)],
  };
}

async function bundle(request) {
  const { state, context } = await contextFor(request);
  let result;
  try {
    result = await context.rebuild();
  } catch (failure) {
    if (!failure.errors) throw failure;
    return { errors: failure.errors.map(diagnostic), warnings: (failure.warnings ?? []).map(diagnostic) };
  }
  const script = result.outputFiles.find((f) => f.path.endsWith(".js")).text;
  const map = JSON.parse(result.outputFiles.find((f) => f.path.endsWith(".map")).text);
  map.sources = map.sources.map((s) => (s.startsWith("skerry:") ? s : canonicalName(request, resolve(request.root, s))));
  return {
    script: machineIndependent(request, script),
    map: JSON.stringify(map),
    sources: sourcesOf(request, state.files),
    resolutions: resolutionsOf(request, result.metafile),
    warnings: result.warnings.map(diagnostic),
  };
}

function machineIndependent(request, script) {
  const prefix = relative(request.root, request.packages).split(sep).join("/");
  return script.replaceAll(prefix + "/", "tools/").replace(NAME_HELPER, NAME_HELPER_FAST);
}

function resolutionsOf(request, metafile) {
  const found = {};
  for (const [input, { imports }] of Object.entries(metafile.inputs)) {
    if (input.startsWith("skerry:")) continue;
    const importer = canonicalName(request, resolve(request.root, input));
    for (const { path, kind, original, external } of imports) {
      if (external || !original || /^[./]/.test(original) || /^(skerry|\(disabled\)):/.test(path)) continue;
      found[`${importer} ${kind} ${original}`] = canonicalName(request, resolve(request.root, path));
    }
  }
  return Object.fromEntries(Object.entries(found).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function sourcesOf(request, files) {
  const out = new Map();
  for (const [path, text] of files) {
    out.set(canonicalName(request, path), text);
    for (const owner of packageFiles(path)) out.set(canonicalName(request, owner), readSource(owner));
    if (!path.includes(`${sep}node_modules${sep}`)) addTsconfig(request, out, nearest(dirname(path), "tsconfig.json"), 0);
  }
  return Object.fromEntries([...out].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function addTsconfig(request, out, path, depth) {
  if (!path || depth > EXTENDS_MAX) return;
  const text = readSource(path);
  out.set(canonicalName(request, path), text);
  for (const [, target] of text.matchAll(/"extends"\s*:\s*"(\.[^"]*)"/g)) {
    const base = resolve(dirname(path), target);
    addTsconfig(request, out, [base, base + ".json"].find((p) => existsSync(p) && statSync(p).isFile()), depth + 1);
  }
}

function packageFiles(path) {
  // Of a package, each package.json from the file up to the package's own folder; of the app's files, the nearest one.
  const inPackage = /^(.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+)[\\/]/.exec(path);
  if (!inPackage) return [nearest(dirname(path), "package.json")].filter(Boolean);
  const found = [];
  for (let folder = dirname(path); folder.length >= inPackage[1].length; folder = dirname(folder)) {
    if (existsSync(join(folder, "package.json"))) found.push(join(folder, "package.json"));
  }
  return found;
}

function nearest(folder, name) {
  for (;;) {
    const candidate = join(folder, name);
    if (existsSync(candidate)) return candidate;
    const parent = dirname(folder);
    if (parent === folder) return null;
    folder = parent;
  }
}

function diagnostic({ text, location, notes }) {
  const place = location && {
    file: location.file, line: location.line, column: location.column, length: location.length, source_line: location.lineText,
  };
  return { text, ...(place ?? { file: null }), notes: (notes ?? []).map((n) => n.text) };
}

// -- the loop ------------------------------------------------------------------------------------------------------

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let answer;
  try {
    answer = await bundle(JSON.parse(line));
  } catch (failure) {
    answer = { errors: [{ text: String(failure?.message ?? failure), file: null, notes: [] }], warnings: [] };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
await live?.context.dispose();
process.exit(0);
