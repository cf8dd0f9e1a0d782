// How a global comes to be: at once (plain), or at first touch (lazy), so that a call that never uses streams never touches
// the memory that holds them.

/** Defines a global that a program may replace, invisible to enumeration, as the platform's own globals are. */
export function define(name: string, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
}

/**
 * Defines globals that one module exports; it is loaded at the first reading of any of them, and takes all their places.
 *
 * While it loads, the globals are absent: some packages look for the platform's own and would wrap a half-made one.
 * A global that a program has assigned or deleted by then keeps what the program gave it.
 */
export function defineLazy(names: readonly string[], load: () => Record<string, unknown>): void {
  const getters = new Map<string, unknown>();
  const resolve = () => {
    const pending = names.filter((name) => {
      const own = Object.getOwnPropertyDescriptor(globalThis, name);
      return own?.get !== undefined && own.get === getters.get(name);
    });
    for (const name of pending) remove(name);
    const exports = load();
    for (const name of pending) {
      giveName(exports[name], name);
      define(name, exports[name]);
    }
    return exports;
  };
  for (const name of names) {
    const descriptor = {
      get: () => resolve()[name],
      set: (value: unknown) => define(name, value),
      enumerable: false,
      configurable: true,
    };
    getters.set(name, descriptor.get);
    Object.defineProperty(globalThis, name, descriptor);
  }
}

/** Gives a class the name of its global: the bundler renames a class that has the name of something it finds global. */
export function giveName(value: unknown, name: string): void {
  if (typeof value === "function" && value.name !== name) {
    Object.defineProperty(value, "name", { value: name, writable: false, enumerable: false, configurable: true });
  }
}

export function remove(name: string): void {
  delete (globalThis as Record<string, unknown>)[name];
}
