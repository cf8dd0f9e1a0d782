// `Event` and `EventTarget` from event-target-shim; `AbortController` and `AbortSignal` on top of them (the packages for these
// carry a second event implementation each, or stop before `reason`, `timeout` and `any`).

import { Event, EventTarget, setWarningHandler } from "event-target-shim";
import { refuseOutsideActions } from "./host.ts";

// The package warns about odd but legal uses; a platform does not.
setWarningHandler(() => {});

const CONSTRUCT = Symbol("construct");

let abort: (signal: AbortSignal, reason: unknown) => void;

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason: unknown = undefined;
  #handler: ((event: Event) => unknown) | null = null;
  // Signals made by `any` from this one; they abort with it.
  #dependents: AbortSignal[] = [];

  constructor(token?: symbol) {
    if (token !== CONSTRUCT) throw new TypeError("Illegal constructor");
    super();
  }
  get aborted(): boolean {
    return this.#aborted;
  }
  get reason(): unknown {
    return this.#reason;
  }
  throwIfAborted(): void {
    if (this.#aborted) throw this.#reason;
  }
  get onabort(): ((event: Event) => unknown) | null {
    return this.#handler;
  }
  set onabort(handler: unknown) {
    if (this.#handler !== null) this.removeEventListener("abort", this.#handler as never);
    this.#handler = typeof handler === "function" ? (handler as (event: Event) => unknown) : null;
    if (this.#handler !== null) this.addEventListener("abort", this.#handler as never);
  }
  get [Symbol.toStringTag](): string {
    return "AbortSignal";
  }

  static abort(reason?: unknown): AbortSignal {
    const signal = new AbortSignal(CONSTRUCT);
    signal.#aborted = true;
    signal.#reason = reason === undefined ? new DOMException("This operation was aborted", "AbortError") : reason;
    return signal;
  }
  static timeout(milliseconds: number): AbortSignal {
    refuseOutsideActions("AbortSignal.timeout()");
    const signal = new AbortSignal(CONSTRUCT);
    setTimeout(() => abort(signal, new DOMException("The operation timed out.", "TimeoutError")), milliseconds);
    return signal;
  }
  static any(signals: Iterable<AbortSignal>): AbortSignal {
    const sources = [...signals];
    for (const source of sources) if (!(#aborted in source)) throw new TypeError("AbortSignal.any: not an AbortSignal");
    const result = new AbortSignal(CONSTRUCT);
    const aborted = sources.find((source) => source.#aborted);
    if (aborted !== undefined) {
      result.#aborted = true;
      result.#reason = aborted.#reason;
    } else {
      for (const source of sources) source.#dependents.push(result);
    }
    return result;
  }
  static {
    abort = (signal, reason) => {
      if (signal.#aborted) return;
      const pending = [signal];
      const fired: AbortSignal[] = [];
      // All are marked before any is told, so that no listener sees a half-aborted tree.
      for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
        if (next.#aborted) continue;
        next.#aborted = true;
        next.#reason = reason;
        fired.push(next);
        pending.push(...next.#dependents.splice(0));
      }
      for (const each of fired) each.dispatchEvent(new Event("abort"));
    };
  }
}

class AbortController {
  #signal = new AbortSignal(CONSTRUCT);
  get signal(): AbortSignal {
    return this.#signal;
  }
  abort(reason?: unknown): void {
    abort(this.#signal, reason === undefined ? new DOMException("This operation was aborted", "AbortError") : reason);
  }
  get [Symbol.toStringTag](): string {
    return "AbortController";
  }
}

export { AbortController, AbortSignal, Event, EventTarget };
