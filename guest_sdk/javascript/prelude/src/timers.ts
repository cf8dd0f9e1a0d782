// Timers: operations of the host in actions, refused elsewhere as the protocol says.
//
// The host knows a timer by the number that `setTimeout` returns; a cleared timer's ticket comes back at once and finds no callback.

import { type Context, getContext, runIn } from "./async_context.ts";
import { define } from "./globals.ts";
import { engine, refuseOutsideActions } from "./host.ts";

type Callback = (...args: unknown[]) => unknown;
interface Timer {
  callback: Callback;
  args: unknown[];
  context: Context; // of the code that started it
  every: number | null; // milliseconds between the calls of an interval
}

const DELAY_MAX = 2 ** 31 - 1;
const timers = new Map<number, Timer>();
let last = 0;

function start(name: string, callback: unknown, delay: unknown, args: unknown[], repeats: boolean): number {
  refuseOutsideActions(`${name}()`);
  if (typeof callback !== "function") throw new TypeError(`${name}: the callback is not a function`);
  const given = Math.trunc(Number(delay));
  const ms = given >= 1 && given <= DELAY_MAX ? given : repeats ? 1 : 0;
  const id = ++last;
  timers.set(id, { callback: callback as Callback, args, context: getContext(), every: repeats ? ms : null });
  wait(id, ms);
  return id;
}

function wait(id: number, ms: number): void {
  void engine.hostcallAsync("timer/start", `{"id":${id},"ms":${ms}}`).then(() => {
    const timer = timers.get(id);
    if (timer === undefined) return;
    if (timer.every === null) timers.delete(id);
    try {
      runIn(timer.context, () => timer.callback.apply(globalThis, timer.args));
    } finally {
      if (timer.every !== null && timers.has(id)) wait(id, timer.every);
    }
  });
}

function clear(id: unknown): void {
  const number = Number(id);
  if (timers.delete(number)) engine.hostcall("timer/clear", `{"id":${number}}`);
}

// Written as methods so that each has its own name, and no `prototype`.
const functions = {
  setTimeout(callback: unknown, delay?: number, ...args: unknown[]): number {
    return start("setTimeout", callback, delay, args, false);
  },
  setInterval(callback: unknown, delay?: number, ...args: unknown[]): number {
    return start("setInterval", callback, delay, args, true);
  },
  clearTimeout(id?: unknown): void {
    clear(id);
  },
  clearInterval(id?: unknown): void {
    clear(id);
  },
  // Its module is loaded at the first use, as those of the lazy globals are.
  async fetch(input: unknown, init?: unknown): Promise<unknown> {
    refuseOutsideActions("fetch()");
    return (require("./fetch.ts") as typeof import("./fetch.ts")).fetchFromHost(input, init);
  },
};

declare const require: (path: string) => Record<string, unknown>;

export function installTimers(): void {
  for (const [name, value] of Object.entries(functions)) define(name, value);
}
