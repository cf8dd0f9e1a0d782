// `WeakRef` and `FinalizationRegistry` without weakness: when memory is reclaimed is not a function of a call's inputs, so
// nothing may be able to see it.

import { define, giveName } from "./globals.ts";

class StrongRef {
  #target: WeakKey;
  constructor(target: WeakKey) {
    if ((typeof target !== "object" && typeof target !== "function" && typeof target !== "symbol") || target === null) {
      throw new TypeError("WeakRef: target must be an object");
    }
    this.#target = target;
  }
  deref(): WeakKey {
    return this.#target;
  }
  get [Symbol.toStringTag](): string {
    return "WeakRef";
  }
}

class SilentRegistry {
  constructor(cleanup: unknown) {
    if (typeof cleanup !== "function") throw new TypeError("FinalizationRegistry: cleanup must be a function");
  }
  register(_target: WeakKey, _held?: unknown, _token?: WeakKey): void {}
  unregister(_token: WeakKey): boolean {
    return false;
  }
  get [Symbol.toStringTag](): string {
    return "FinalizationRegistry";
  }
}

export function installWeak(): void {
  giveName(StrongRef, "WeakRef");
  giveName(SilentRegistry, "FinalizationRegistry");
  define("WeakRef", StrongRef);
  define("FinalizationRegistry", SilentRegistry);
}
