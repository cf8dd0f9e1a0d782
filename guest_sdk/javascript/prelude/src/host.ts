// The one door to the host: the object the engine's shim leaves as `__skerry`, captured here and removed from the global.

export type ContextKind = "query" | "mutation" | "action" | "httpAction" | "import";

export interface Engine {
  hostcall(op: string, argument: string, raw?: Uint8Array): string;
  hostcallBytes(op: string, argument: string, raw?: Uint8Array): Uint8Array;
  hostcallAsync(op: string, argument: string, raw?: Uint8Array): Promise<string>;
  hostcallAsyncBytes(op: string, argument: string, raw?: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  contextKind(): ContextKind;
  requestId(): string;
  setInvoker(invoke: (kind: string, name: string, requestId: string, argsJson: string) => Promise<string>): void;
  setDescriber(describe: () => string): void;
  setUncaughtFormatter(format: (thrown: unknown) => string): void;
  // Optional: native helpers that replace slow JavaScript where the engine has them.
  bindValues?(originals: object): object;
  bindOperation?(own: unknown, jsonToConvex: unknown): unknown;
  utf8Encode?(text: string): Uint8Array;
  utf8Decode?(bytes: Uint8Array): string;
  getAsyncContext?(): unknown;
  setAsyncContext?(value: unknown): void;
}

export interface HostError extends Error {
  code?: string;
  data?: unknown;
}

const scope = globalThis as unknown as { __skerry?: Engine };
if (scope.__skerry === undefined) throw new Error("the prelude needs the engine's __skerry object");

export const engine: Engine = scope.__skerry;
delete scope.__skerry;

/** True in queries and mutations: the contexts whose result must not depend on anything but their inputs. */
export function isDeterministic(): boolean {
  const kind = engine.contextKind();
  return kind === "query" || kind === "mutation";
}

const ADVICE = "Please consider using an action. See https://docs.convex.dev/functions/actions for more details.";

/** Throws where `what` is not offered: in queries and mutations, and while modules are imported. */
export function refuseOutsideActions(what: string): void {
  const kind = engine.contextKind();
  if (kind === "query" || kind === "mutation") throw new Error(`Can't use ${what} in queries and mutations. ${ADVICE}`);
  if (kind === "import") throw new Error(`${what} unsupported while evaluating schema or modules: it is not supported at import time`);
}
