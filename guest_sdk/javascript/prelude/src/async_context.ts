// `AsyncLocalStorage` and `AsyncResource`.
//
// The current context is one immutable Map from storage to value. Where the engine carries it across `await`
// (`getAsyncContext`/`setAsyncContext`), it follows a function through every suspension, as in Node; where it does not, it
// holds within the synchronous part of `run`, and in the callbacks of timers that were started there.

import { define, giveName } from "./globals.ts";
import { engine } from "./host.ts";

export type Context = ReadonlyMap<object, unknown> | undefined;

let fallback: Context;
export const getContext: () => Context =
  engine.getAsyncContext === undefined ? () => fallback : () => engine.getAsyncContext!() as Context;
const setContext: (context: Context) => void =
  engine.setAsyncContext === undefined ? (context) => void (fallback = context) : (context) => engine.setAsyncContext!(context);

export function runIn<T>(context: Context, callback: () => T): T {
  const before = getContext();
  setContext(context);
  try {
    return callback();
  } finally {
    setContext(before);
  }
}

class AsyncLocalStorage<T> {
  static bind<F extends (...args: never[]) => unknown>(callback: F): F {
    const context = getContext();
    return function (this: unknown, ...args: never[]) {
      return runIn(context, () => callback.apply(this, args));
    } as F;
  }
  static snapshot(): (callback: (...args: unknown[]) => unknown, ...args: unknown[]) => unknown {
    const context = getContext();
    return (callback, ...args) => runIn(context, () => callback(...args));
  }
  run<R>(store: T, callback: (...args: unknown[]) => R, ...args: unknown[]): R {
    return runIn(new Map(getContext()).set(this, store), () => callback(...args));
  }
  exit<R>(callback: (...args: unknown[]) => R, ...args: unknown[]): R {
    const context = new Map(getContext());
    context.delete(this);
    return runIn(context, () => callback(...args));
  }
  getStore(): T | undefined {
    return getContext()?.get(this) as T | undefined;
  }
  enterWith(store: T): void {
    setContext(new Map(getContext()).set(this, store));
  }
  disable(): void {
    const context = new Map(getContext());
    context.delete(this);
    setContext(context);
  }
}

class AsyncResource {
  #context: Context = getContext();
  constructor(public readonly type: string = "AsyncResource") {}
  runInAsyncScope<R>(callback: (...args: unknown[]) => R, thisArg?: unknown, ...args: unknown[]): R {
    return runIn(this.#context, () => callback.apply(thisArg, args));
  }
  bind<F extends (...args: never[]) => unknown>(callback: F): F {
    const context = this.#context;
    return function (this: unknown, ...args: never[]) {
      return runIn(context, () => callback.apply(this, args));
    } as F;
  }
  static bind<F extends (...args: never[]) => unknown>(callback: F): F {
    return AsyncLocalStorage.bind(callback);
  }
  emitDestroy(): this {
    return this;
  }
  asyncId(): number {
    return 0;
  }
  triggerAsyncId(): number {
    return 0;
  }
}

export function installAsyncContext(): void {
  giveName(AsyncLocalStorage, "AsyncLocalStorage");
  giveName(AsyncResource, "AsyncResource");
  define("AsyncLocalStorage", AsyncLocalStorage);
  define("AsyncResource", AsyncResource);
}
