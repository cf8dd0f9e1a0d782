// Binds the engine's natives into the `convex` package as it is bundled.
//
// Four files of the package change, and only when the package's version and the file's shape are the ones this was written
// against; any other file is bundled as it is, slower and just as right:
//
//   dist/esm/values/value.js           the conversions between values and their JSON form come from what the global
//                                      `__skerryValues(originals)` returns, where the engine offers it
//   dist/esm/server/impl/syscall.js    `performAsyncSyscall` is native for what is answered at once (`__skerryOperation`); refusals
//                                      and what comes later go through the package's own code
//   dist/esm/server/impl/query_impl.js `collect`, `take`, `first` and `unique` are one hostcall instead of one per document
//   dist/esm/server/impl/registration_impl.js  arguments and results go from and to JSON text in one step; the context of queries and
//                                      mutations is made with the image, for the first call of an isolate, which is its only one;
//                                      queries get the package's `vectorSearch` of actions
//
// Text is only added after the file's own lines or inside one line, so that source positions stay.

import { join, sep } from "node:path";

const VERSIONS = /^1\.(4[7-9])\.\d+$/;
const VALUES = join("dist", "esm", "values", "value.js");
const REWRITES = [
  [VALUES, bindValues],
  [join("dist", "esm", "server", "impl", "query_impl.js"), bindCollect],
  [join("dist", "esm", "server", "impl", "syscall.js"), bindOperations],
  [join("dist", "esm", "server", "impl", "registration_impl.js"), bindTexts],
];

export const CONVERSIONS = ["jsonToConvex", "convexToJson", "convexOrUndefinedToJson", "patchValueToJson"];

/** The text to bundle in place of `text`, or null where the file is to stay as it is. */
export function rewriteConvexModule(path, text, packageVersion, read) {
  const rewrite = REWRITES.find(([file]) => path.endsWith(sep + file));
  if (rewrite === undefined) return null;
  const packageFolder = path.slice(0, -rewrite[0].length - 1);
  if (!packageFolder.endsWith(join("node_modules", "convex")) && !packageFolder.endsWith(sep + "convex")) return null;
  if (!VERSIONS.test(packageVersion(packageFolder) ?? "")) return null;
  if (rewrite[0] !== VALUES && bindValues(read(join(packageFolder, VALUES))) === null) return null;
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
export const skerryConvexToText = skerryBound.convexToJsonText ?? ((value) => JSON.stringify(skerry_convexToJson(value)));
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
    "\n  takeQuery() {\n",
    "\n  async take(n) {\n    validateArg(n, 1, \"take\", \"n\");\n    validateArgIsNonNegativeInteger(n, 1, \"take\", \"n\");\n" +
      "    return this.limit(n).collect();\n  }\n",
    "\n  async first() {\n    const first_array = await this.take(1);\n    return first_array.length === 0 ? null : first_array[0];\n  }\n",
    "\n  async unique() {\n    const first_two_array = await this.take(2);\n    if (first_two_array.length === 0) {\n      return null;\n    }\n" +
      "    if (first_two_array.length === 2) {\n      throw new Error(`unique() query returned more than one result from table " +
      "${this.tableNameForErrorMessages}:\n [${first_two_array[0]._id}, ${first_two_array[1]._id}, ...]`);\n    }\n" +
      "    return first_two_array[0];\n  }\n",
  ];
  if (!shape.every((part) => text.includes(part))) return null;
  // `startQuery` throws the package's own error for every state but "preparing", `limit` for every query that was used.
  return `${text}
import { ConvexError as SkerryConvexError } from "../../values/errors.js";
import { skerryTextToConvex } from "../../values/value.js";
async function skerryOwnDocuments(op, argument, later) {
  try {
    return skerryTextToConvex(await (later ?? Convex.asyncSyscall(op, JSON.stringify(argument))));
  } catch (refusal) {
    if (refusal.data === undefined) throw new Error(refusal.message);
    throw Object.assign(new SkerryConvexError(refusal.message), { data: jsonToConvex(refusal.data) });
  }
}
const skerryDocuments =
  typeof __skerryOperation === "function" ? __skerryOperation(skerryOwnDocuments, jsonToConvex) : skerryOwnDocuments;
QueryImpl.prototype.collect = async function collect() {
  if (this.state.type !== "preparing") this.startQuery();
  const { query } = this.state;
  this.state = { type: "executing", queryId: -1 };
  const documents = await skerryDocuments("collect", { query, version });
  this.state = { type: "consumed" };
  return documents;
};
QueryImpl.prototype.first = async function first() {
  const { query } = this.limit(1).state;
  const documents = await skerryDocuments("collect", { query, version });
  return documents.length === 0 ? null : documents[0];
};
QueryImpl.prototype.unique = async function unique() {
  const { query } = this.limit(2).state;
  const documents = await skerryDocuments("collect", { query, version });
  if (documents.length === 0) return null;
  if (documents.length === 2) {
    throw new Error(\`unique() query returned more than one result from table \${this.tableNameForErrorMessages}:
 [\${documents[0]._id}, \${documents[1]._id}, ...]\`);
  }
  return documents[0];
};
`;
}

function bindOperations(text) {
  const declaration = "export async function performAsyncSyscall(op, arg) {";
  const question = "    resultStr = await Convex.asyncSyscall(op, JSON.stringify(arg));";
  const shape = [declaration, question, "  return JSON.parse(resultStr);\n}\nexport function performJsSyscall"];
  if (!shape.every((part) => text.split(part).length === 2)) return null;
  const own = text
    .replace(declaration, "async function performAsyncSyscall(op, arg, skerryLater) {")
    .replace(question, "    resultStr = await (skerryLater ?? Convex.asyncSyscall(op, JSON.stringify(arg)));");
  return `${own}
const skerryPerform = typeof __skerryOperation === "function" ? __skerryOperation(performAsyncSyscall) : performAsyncSyscall;
export { skerryPerform as performAsyncSyscall };
`;
}

function bindTexts(text) {
  const result = "  return JSON.stringify(convexToJson(result === void 0 ? null : result));\n";
  const given = "  const args = jsonToConvex(JSON.parse(argsStr));\n";
  if (text.split(result).length !== 4 || text.split(given).length !== 4) return null;
  const bound = text
    .replaceAll(result, "  return skerryConvexToText(result === void 0 ? null : result);\n")
    .replaceAll(given, "  const args = skerryTextToConvex(argsStr);\n");
  const made = bindContexts(bound);
  if (made === null) return null;
  return `${made}
import { skerryConvexToText, skerryTextToConvex } from "../../values/value.js";
`;
}

// What the contexts of queries have beyond the package's: the search that it gives to actions.
function ours(kind, text) {
  const isThere = text.includes('import { setupActionVectorSearch } from "./vector_search_impl.js";');
  return kind === "Query" && isThere ? ", vectorSearch: setupActionVectorSearch(requestId)" : "";
}

// A context is some dozens of closures over nothing but constants. What makes it becomes a function of its own, in its place.
function bindContexts(text) {
  let bound = text;
  for (const kind of ["Mutation", "Query"]) {
    const context = `${kind.toLowerCase()}Ctx`;
    const head = `async function invoke${kind}(func, argsStr, visibility) {\n`;
    const request = '  const requestId = "";\n';
    const given = "  const args = skerryTextToConvex(argsStr);\n";
    const opening = `${head}${request}${given}  const ${context} = {\n`;
    const run = `  const result = await invokeFunction(func, ${context}, args);\n`;
    const registration = new RegExp(`^  func\\.invoke${kind} = \\(argsStr\\) => invoke${kind}\\(handler, argsStr, "(public|internal)"\\);$`, "gm");
    const [before, after, ...more] = bound.split(opening);
    const [literal, rest, ...others] = (after ?? "").split(`\n  };\n${run}`);
    if (more.length > 0 || rest === undefined || others.length > 0 || /\b(func|args|argsStr)\b/.test(literal)) return null;
    if (bound.match(registration)?.length !== 2) return null;
    const make = `skerry${kind}Context`;
    bound =
      `${before}function ${make}(visibility) {\n${request}\n  return {\n${literal}${ours(kind, text)}\n` +
      `  }; } ${head.trimEnd()} ${given.trim()} const ${context} = skerryTake(${make}, visibility);\n${run}${rest}`;
    bound = bound.replace(registration, (line, visibility) => `  skerryPrepare(${make}, "${visibility}"); ${line.trim()}`);
  }
  return `${bound}
function skerryPrepare(make, visibility) {
  make[visibility] ??= make(visibility);
}
function skerryTake(make, visibility) {
  const context = make[visibility] ?? make(visibility);
  make[visibility] = undefined;
  return context;
}
`;
}
