// Binds the engine's native value conversions into the `convex` package as it is bundled.
//
// Two files of the package change, both only when the package's version and the file's shape are the ones this was written
// against; any other file is bundled as it is, slower and just as right:
//
//   dist/esm/values/value.js           the four conversions between values and their JSON form come from what the global
//                                      `__skerryValues(originals)` returns, where the engine offers it
//   dist/esm/server/impl/query_impl.js `collect` (and with it take, first and unique) is one hostcall instead of one per document
//
// Text is only added after the file's own lines or inside one line, so that source positions stay.

import { join, sep } from "node:path";

const VERSIONS = /^1\.(4[7-9])\.\d+$/;
const VALUES = join("dist", "esm", "values", "value.js");
const QUERY = join("dist", "esm", "server", "impl", "query_impl.js");

export const CONVERSIONS = ["jsonToConvex", "convexToJson", "convexOrUndefinedToJson", "patchValueToJson"];

/** The text to bundle in place of `text`, or null where the file is to stay as it is. */
export function rewriteConvexModule(path, text, packageVersion, read) {
  const rewrite = path.endsWith(sep + VALUES) ? [VALUES, bindValues] : path.endsWith(sep + QUERY) ? [QUERY, bindCollect] : null;
  if (rewrite === null) return null;
  const packageFolder = path.slice(0, -rewrite[0].length - 1);
  if (!packageFolder.endsWith(join("node_modules", "convex")) && !packageFolder.endsWith(sep + "convex")) return null;
  if (!VERSIONS.test(packageVersion(packageFolder) ?? "")) return null;
  if (rewrite[0] === QUERY && bindValues(read(join(packageFolder, VALUES))) === null) return null;
  return rewrite[1](text);
}

function bindValues(text) {
  const shape = [
    "export class CommitTsPlaceholder {",
    "export const commitTsPlaceholder = ",
    "const MAX_IDENTIFIER_LEN = 1024;",
    "function convexToJsonInternal(value, originalValue, context, includeTopLevelUndefined) {",
    'key === "$bytes"', 'key === "$integer"', 'key === "$float"', 'key === "$commitTs"', 'key === "$set"', 'key === "$map"',
  ];
  const tags = text.match(/key === "\$\w+"/g) ?? [];
  if (!shape.every((part) => text.includes(part)) || tags.length !== 6) return null;
  let bound = text;
  for (const name of CONVERSIONS) {
    const declaration = `export function ${name}(value) {`;
    if (bound.split(declaration).length !== 2) return null;
    bound = bound.replace(declaration, `function ${name}(value) {`);
  }
  const originals = [...CONVERSIONS, "CommitTsPlaceholder", "commitTsPlaceholder"].join(", ");
  const exported = CONVERSIONS.map((name) => `const skerry_${name} = skerryBound.${name} ?? ${name};`).join("\n");
  return `${bound}
const skerryBound = typeof __skerryValues === "function" ? __skerryValues({ ${originals} }) : {};
${exported}
export { ${CONVERSIONS.map((name) => `skerry_${name} as ${name}`).join(", ")} };
export const skerryTextToConvex = skerryBound.jsonTextToConvex ?? ((text) => skerry_jsonToConvex(JSON.parse(text)));
`;
}

function bindCollect(text) {
  const shape = [
    'import { jsonToConvex } from "../../values/index.js";',
    'import { performAsyncSyscall, performSyscall } from "./syscall.js";',
    "export class QueryImpl {",
    "\n  startQuery() {\n",
    "\n  closeQuery() {\n",
    "\n  async collect() {\n    const out = [];\n    for await (const item of this) {\n",
    'this.state = { type: "executing", queryId };',
    'this.state = { type: "consumed" };',
    "return this.limit(n).collect();",
  ];
  if (!shape.every((part) => text.includes(part))) return null;
  // `startQuery` throws the package's own error for every state but "preparing".
  return `${text}
import { ConvexError as SkerryConvexError } from "../../values/errors.js";
import { skerryTextToConvex } from "../../values/value.js";
QueryImpl.prototype.collect = async function collect() {
  if (this.state.type !== "preparing") this.startQuery();
  const { query } = this.state;
  this.state = { type: "executing", queryId: -1 };
  let documents;
  try {
    documents = await Convex.asyncSyscall("collect", JSON.stringify({ query, version }));
  } catch (refusal) {
    if (refusal.data === undefined) throw new Error(refusal.message);
    throw Object.assign(new SkerryConvexError(refusal.message), { data: jsonToConvex(refusal.data) });
  }
  this.state = { type: "consumed" };
  return skerryTextToConvex(documents);
};
`;
}
