// Timers and `fetch`: refused in queries and mutations as the protocol says. In actions they are not served yet.

import { define } from "./globals.ts";
import { type HostError, refuseOutsideActions } from "./host.ts";

function notServed(name: string): never {
  const error: HostError = new Error(`${name}() is not served yet: actions come with a later release`);
  error.code = "FeatureNotServed";
  throw error;
}

// Written as methods so that each has its own name, and no `prototype`.
const timers = {
  setTimeout(_callback: unknown, _delay?: number): never {
    refuseOutsideActions("setTimeout()");
    return notServed("setTimeout");
  },
  setInterval(_callback: unknown, _delay?: number): never {
    refuseOutsideActions("setInterval()");
    return notServed("setInterval");
  },
  clearTimeout(_id?: unknown): void {},
  clearInterval(_id?: unknown): void {},
  async fetch(_input: unknown, _init?: unknown): Promise<never> {
    refuseOutsideActions("fetch()");
    return notServed("fetch");
  },
};

export function installTimers(): void {
  for (const [name, value] of Object.entries(timers)) define(name, value);
}
