// `globalThis.Convex`: the three functions through which the convex/server package reaches its host.
//
// Operations are the host's; an operation it does not know is refused there, with the text the package matches. Only what
// takes or returns live objects (`jsSyscall`) is handled on this side.

import { engine, type HostError } from "./host.ts";
import { define } from "./globals.ts";

const DATABASE_OPERATIONS = new Set([
  "1.0/queryStream",
  "1.0/queryCleanup",
  "1.0/queryStreamNext",
  "1.0/queryPage",
  "1.0/db/normalizeId",
  "1.0/getSnapshotTs",
  "1.0/get",
  "1.0/count",
  "1.0/insert",
  "1.0/shallowMerge",
  "1.0/replace",
  "1.0/remove",
  "collect",
]);

const JS_OPERATIONS = new Set(["storage/storeBlob", "storage/getBlob", "requestFromConvexJson", "convexJsonFromResponse"]);

function refuseAtImport(op: string): void {
  "use hot";
  if (DATABASE_OPERATIONS.has(op) && engine.contextKind() === "import") throw new Error("Can't use database at import time");
}

function syscall(op: string, argument: string): string {
  "use hot";
  refuseAtImport(op);
  try {
    return engine.hostcall(op, argument);
  } catch (error) {
    // The host cannot know which of the two asked.
    if ((error as HostError).code === "UnknownOperation") throw new Error(`Unknown operation ${op}`);
    throw error;
  }
}

function asyncSyscall(op: string, argument: string): Promise<string> {
  "use hot";
  try {
    refuseAtImport(op);
    return engine.hostcallAsync(op, argument);
  } catch (error) {
    return Promise.reject(error);
  }
}

function jsSyscall(op: string, _argument: unknown): never {
  if (!JS_OPERATIONS.has(op)) throw new Error(`Unknown JS operation ${op}`);
  const kind = engine.contextKind();
  if (kind === "query" || kind === "mutation") {
    throw new Error(
      `Can't use ${op === "storage/storeBlob" ? "storage.store" : op}() in queries and mutations. ` +
        "Please consider using an action. See https://docs.convex.dev/functions/actions for more details.",
    );
  }
  const error: HostError = new Error(`${op} is not served yet: this server does not run file storage and HTTP actions`);
  error.code = "FeatureNotServed";
  throw error;
}

export function installConvex(): void {
  define("Convex", { syscall, asyncSyscall, jsSyscall });
  // What the bundler calls in place of the package's own conversions: takes those, returns the engine's.
  const bind = engine.bindValues;
  if (bind !== undefined) define("__skerryValues", (originals: object) => bind(originals));
  const bindOperation = engine.bindOperation;
  if (bindOperation !== undefined) define("__skerryOperation", (own: unknown, jsonToConvex?: unknown) => bindOperation(own, jsonToConvex));
}
