// How an app's modules become callable: `skerryRegister` finds the marked exports, the describer lists them, the invoker
// dispatches one call to them, and the formatter turns what they throw into an error object of the guest ABI.

import { beginCall } from "./call.ts";
import { define } from "./globals.ts";
import { type ContextKind, engine, type HostError } from "./host.ts";
import { asTemplate } from "./process.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

interface Registered {
  isQuery?: boolean;
  isMutation?: boolean;
  isAction?: boolean;
  isHttp?: boolean;
  isPublic?: boolean;
  isInternal?: boolean;
  exportArgs?(): string;
  exportReturns?(): string;
  invokeQuery?(argsJson: string): Promise<string>;
  invokeMutation?(argsJson: string): Promise<string>;
  invokeAction?(requestId: string, argsJson: string): Promise<string>;
}

type Kind = Exclude<ContextKind, "import">;
type Namespace = Record<string, unknown>;

const CONVEX_ERROR = Symbol.for("ConvexError");

// Modules that declare something about the whole app, and the name under which `describe` reports it.
const FEATURE_MODULES: Record<string, string> = {
  crons: "crons",
  http: "http",
  "convex.config": "components",
};

const functions = new Map<string, { kind: Kind; target: Registered }>();
let schemaModule: Namespace | undefined;
let cronsModule: Namespace | undefined;
let loadAuthConfig: (() => Namespace) | undefined;
const features = new Set<string>();

export function installRegister(): void {
  define("skerryRegister", register);
  engine.setDescriber(describe);
  engine.setInvoker(invoke);
  engine.setUncaughtFormatter(formatUncaught);
}

// `nodeModules` ask for the Node runtime and are not here; the host answers for their functions. `auth.config` is loaded
// by `describe`: it reads the deployment's variables, and an image belongs to no deployment.
function register(modules: Record<string, Namespace>, nodeModules: string[] = [], authConfig?: () => Namespace): void {
  loadAuthConfig = authConfig;
  if (authConfig !== undefined) features.add("auth");
  for (const path of nodeModules) features.add(`node:${path}`);
  for (const path of Object.keys(modules).sort()) {
    const namespace = modules[path]!;
    if (path === "schema") {
      schemaModule = namespace;
      continue;
    }
    if (path === "crons") cronsModule = namespace;
    if (path in FEATURE_MODULES) features.add(FEATURE_MODULES[path]!);
    for (const name of Object.keys(namespace)) {
      const kind = kindOf(namespace[name]);
      if (kind !== null) functions.set(`${path}:${name}`, { kind, target: namespace[name] as Registered });
    }
  }
}

function kindOf(value: unknown): Kind | null {
  if (typeof value !== "function") return null;
  const marks = value as Registered;
  if (marks.isQuery === true) return "query";
  if (marks.isMutation === true) return "mutation";
  if (marks.isAction === true) return "action";
  if (marks.isHttp === true) return "httpAction";
  return null;
}

function describe(): string {
  const listed: Json[] = [];
  for (const [name, { kind, target }] of functions) {
    listed.push({
      name,
      kind,
      visibility: target.isInternal === true || (kind !== "httpAction" && target.isPublic !== true) ? "internal" : "public",
      args: parseOr(target.exportArgs?.(), { type: "any" }),
      returns: parseOr(target.exportReturns?.(), null),
    });
  }
  return JSON.stringify({
    abi: 1,
    language: "javascript",
    functions: listed,
    schema: describeSchema(),
    crons: describeCrons(),
    auth: describeAuth(),
    features: [...features].sort(),
  });
}

function describeCrons(): Json {
  if (cronsModule === undefined) return null;
  const crons = cronsModule.default as { isCrons?: boolean; export?: () => string } | undefined;
  if (crons?.isCrons !== true || typeof crons.export !== "function") throw new Error("crons must have a default export made by cronJobs()");
  return JSON.parse(crons.export()) as Json;
}

function describeAuth(): Json {
  if (loadAuthConfig === undefined) return null;
  const load = loadAuthConfig;
  const text = asTemplate(() => JSON.stringify(load().default)) as string | undefined;
  if (text === undefined) throw new Error("auth.config must have a default export: { providers: [...] }");
  return JSON.parse(text) as Json;
}

function describeSchema(): Json {
  if (schemaModule === undefined) return null;
  const schema = schemaModule.default as { export?: () => string } | undefined;
  if (typeof schema?.export !== "function") throw new Error("schema must have a default export made by defineSchema()");
  return JSON.parse(schema.export()) as Json;
}

function parseOr(text: string | undefined, otherwise: Json): Json {
  if (text === undefined) return otherwise;
  const value = JSON.parse(text) as Json;
  return value === null ? otherwise : value;
}

function invoke(kind: string, name: string, requestId: string, argsJson: string): Promise<string> {
  "use hot";
  try {
    beginCall();
    return dispatch(kind, name, requestId, argsJson);
  } catch (error) {
    return Promise.reject(error);
  }
}

function dispatch(kind: string, name: string, requestId: string, argsJson: string): Promise<string> {
  "use hot";
  const found = functions.get(name) ?? functions.get(`${name}:default`);
  if (found === undefined) throw new Error(`Could not find function for '${name}'.`);
  if (found.kind !== kind) {
    const colon = name.indexOf(":");
    const path = colon < 0 ? `${name}.js` : `${name.slice(0, colon)}.js${name.slice(colon)}`;
    throw new Error(`Trying to execute ${path} as ${title(kind)}, but it is defined as ${title(found.kind)}.`);
  }
  switch (found.kind) {
    case "query":
      return found.target.invokeQuery!(argsJson);
    case "mutation":
      return found.target.invokeMutation!(argsJson);
    case "action":
      return found.target.invokeAction!(requestId, argsJson);
    case "httpAction":
      throw new Error("HTTP actions are not served yet");
  }
}

function title(kind: string): string {
  return kind === "httpAction" ? "HttpAction" : kind.charAt(0).toUpperCase() + kind.slice(1);
}

function formatUncaught(thrown: unknown): string {
  // Whatever a function throws, the answer is text: a getter or a toString that throws in turn must not hide the failure.
  try {
    return JSON.stringify(describeThrown(thrown));
  } catch {
    return '{"name":"Error","message":"an error that cannot be described was thrown"}';
  }
}

function describeThrown(thrown: unknown): Json {
  if (typeof thrown !== "object" || thrown === null) {
    return { name: "", message: typeof thrown === "symbol" ? thrown.toString() : String(thrown) };
  }
  const error = thrown as HostError & Record<symbol, unknown>;
  const isError = thrown instanceof Error || typeof error.stack === "string";
  const described: { [key: string]: Json } = {
    name: isError ? String(error.name) : "",
    message: isError ? String(error.message) : describePlain(thrown),
  };
  const { stack } = error as { stack?: unknown };
  if (typeof stack === "string") described.stack = stack;
  if (typeof error.code === "string") described.code = error.code;
  // The package has already replaced `data` by the JSON text of its encoded form.
  if (CONVEX_ERROR in error && typeof error.data === "string") described.data = JSON.parse(error.data) as Json;
  return described;
}

function describePlain(thrown: object): string {
  const text = String(thrown);
  return text === "[object Object]" ? (JSON.stringify(thrown) ?? text) : text;
}
