// `process`, which holds `env` and nothing else: a read-only view of the deployment's environment variables. Each reading
// asks the host, so that the host knows which variables a call depends on.

import { define } from "./globals.ts";
import { engine } from "./host.ts";

// What stands for a variable's value while a template is made: its name between two characters of private use.
const BEFORE = "\ue000";
const AFTER = "\ue001";

let isTemplate = false;

/** Runs something with the names of variables, between marks, in place of their values. */
export function asTemplate<T>(run: () => T): T {
  isTemplate = true;
  try {
    return run();
  } finally {
    isTemplate = false;
  }
}

function read(name: string): string | undefined {
  if (isTemplate) return BEFORE + name + AFTER;
  const value = JSON.parse(engine.hostcall("env/get", JSON.stringify({ name }))) as string | null;
  return value ?? undefined;
}

export function installProcess(): void {
  const env = new Proxy(Object.create(null) as Record<string, string>, {
    get: (_target, key) => (typeof key === "string" ? read(key) : undefined),
    has: (_target, key) => typeof key === "string" && read(key) !== undefined,
    getOwnPropertyDescriptor(_target, key) {
      const value = typeof key === "string" ? read(key) : undefined;
      return value === undefined ? undefined : { value, writable: false, enumerable: true, configurable: true };
    },
    // The names are not listed: a call would depend on all of them.
    ownKeys: () => [],
    set: () => false,
    defineProperty: () => false,
    deleteProperty: () => false,
  });
  define("process", Object.freeze({ env }));
}
