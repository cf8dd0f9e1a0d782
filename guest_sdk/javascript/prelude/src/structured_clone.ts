// `structuredClone`, without transfer: the standard's types, cycles and shared references included.
//
// The packages for it either replace the language's own errors and collections (core-js, 99 KB) or leave out array buffers
// and errors. Blobs never change, so that a clone of one is the blob itself.

import { Blob } from "./blob.ts";

const ERROR_NAMES = new Set(["Error", "EvalError", "RangeError", "ReferenceError", "SyntaxError", "TypeError", "URIError"]);

function refuse(what: string): never {
  throw new DOMException(`${what} could not be cloned.`, "DataCloneError");
}

export function structuredClone(value: unknown, options?: { transfer?: unknown[] }): unknown {
  if (arguments.length === 0) throw new TypeError("structuredClone: 1 argument is needed");
  if (options?.transfer !== undefined && [...options.transfer].length > 0) {
    throw new DOMException("structuredClone with a transfer list is not supported.", "DataCloneError");
  }
  return clone(value, new Map());
}

function clone(value: unknown, seen: Map<object, unknown>): unknown {
  if (typeof value === "symbol") return refuse(value.toString());
  if (typeof value === "function") return refuse(value.name === "" ? "a function" : `function ${value.name}`);
  if (typeof value !== "object" || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const remember = <T>(result: T): T => {
    seen.set(value, result);
    return result;
  };
  switch (tagOf(value)) {
    case "Boolean":
    case "Number":
    case "String":
    case "BigInt":
      return remember(Object((value as { valueOf(): unknown }).valueOf()));
    case "Symbol":
      return refuse("a Symbol object");
    case "Date":
      return remember(new Date((value as Date).getTime()));
    case "RegExp":
      return remember(new RegExp((value as RegExp).source, (value as RegExp).flags));
    case "ArrayBuffer":
      return remember((value as ArrayBuffer).slice(0));
    case "View":
      return remember(cloneView(value as ArrayBufferView, seen));
    case "Map":
      return cloneMap(value as Map<unknown, unknown>, remember(new Map()), seen);
    case "Set":
      return cloneSet(value as Set<unknown>, remember(new Set()), seen);
    case "Error":
      return cloneError(value as Error, remember, seen);
    case "Array":
      return cloneProperties(value, remember(new Array((value as unknown[]).length)), seen);
    case "Platform":
      return refuse(`#<${(value as { constructor?: { name?: string } }).constructor?.name ?? "Object"}>`);
    case "Shared":
      return value;
    default:
      return cloneProperties(value, remember({}), seen);
  }
}

// What a value *is*, by its internal slots: a prototype or a toStringTag may pretend anything.
const slot =
  (read: (value: never) => unknown) =>
  (value: object): boolean => {
    try {
      read(value as never);
      return true;
    } catch {
      return false;
    }
  };
const getter = (prototype: object, name: PropertyKey) =>
  Object.getOwnPropertyDescriptor(prototype, name)!.get! as (this: unknown) => unknown;
const mapSize = getter(Map.prototype, "size");
const setSize = getter(Set.prototype, "size");
const bufferLength = getter(ArrayBuffer.prototype, "byteLength");

const SLOTS: Array<[string, (value: object) => boolean]> = [
  ["Map", slot((value) => mapSize.call(value))],
  ["Set", slot((value) => setSize.call(value))],
  ["Date", slot((value) => Date.prototype.getTime.call(value))],
  ["ArrayBuffer", slot((value) => bufferLength.call(value))],
  ["Boolean", slot((value) => Boolean.prototype.valueOf.call(value))],
  ["Number", slot((value) => Number.prototype.valueOf.call(value))],
  ["String", slot((value) => String.prototype.valueOf.call(value))],
  ["BigInt", slot((value) => BigInt.prototype.valueOf.call(value))],
  ["Symbol", slot((value) => Symbol.prototype.valueOf.call(value))],
];

function tagOf(value: object): string {
  const prototype = Object.getPrototypeOf(value) as unknown;
  if (prototype === Object.prototype || prototype === null) {
    // An arguments object is cloned as a plain one too, so the quick answer is right for both.
    if (!ArrayBuffer.isView(value)) return plainTag(value);
  }
  if (Array.isArray(value)) return "Array";
  if (ArrayBuffer.isView(value)) return "View";
  if (value instanceof Blob) return "Shared";
  if (value instanceof RegExp) return "RegExp";
  if (isError(value)) return "Error";
  for (const [tag, has] of SLOTS) if (has(value)) return tag;
  return isPlatformObject(value) ? "Platform" : "Object";
}

function plainTag(value: object): string {
  // `Object.setPrototypeOf(new Map(), null)` is rare, and still a Map.
  const text = Object.prototype.toString.call(value);
  if (text === "[object Object]" || text === "[object Arguments]") return "Object";
  for (const [tag, has] of SLOTS) if (has(value)) return tag;
  return isError(value) ? "Error" : "Object";
}

function isError(value: object): boolean {
  const test = (Error as unknown as { isError?: (value: unknown) => boolean }).isError;
  if (value instanceof DOMException) return true;
  return test === undefined ? value instanceof Error : test(value);
}

function isPlatformObject(value: object): boolean {
  if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet || value instanceof WeakRef) return true;
  const text = Object.prototype.toString.call(value);
  return /^\[object (?!Object\]|Arguments\])/.test(text) && !Object.hasOwn(value, Symbol.toStringTag) && !isUserClass(value);
}

// A user's class instance is cloned as a plain object even when its class has a toStringTag of its own making.
function isUserClass(value: object): boolean {
  const maker = (value as { constructor?: { name?: string } }).constructor;
  return typeof maker === "function" && (globalThis as Record<string, unknown>)[maker.name ?? ""] !== maker && !isBuiltIn(value);
}

function isBuiltIn(value: object): boolean {
  const text = Object.prototype.toString.call(value);
  return text.endsWith("Iterator]") || text === "[object Generator]" || text === "[object AsyncGenerator]";
}

function cloneView(view: ArrayBufferView, seen: Map<object, unknown>): ArrayBufferView {
  const buffer = clone(view.buffer, seen) as ArrayBuffer;
  const Constructor = viewConstructor(view);
  const length = view instanceof DataView ? view.byteLength : (view as Uint8Array).length;
  return new Constructor(buffer, view.byteOffset, length);
}

type ViewConstructor = new (buffer: ArrayBuffer, offset: number, length: number) => ArrayBufferView;

const typedArrayName = getter(Object.getPrototypeOf(Uint8Array.prototype) as object, Symbol.toStringTag);

function viewConstructor(view: ArrayBufferView): ViewConstructor {
  const name = (typedArrayName.call(view) as string | undefined) ?? "DataView";
  return (globalThis as unknown as Record<string, ViewConstructor>)[name]!;
}

function cloneMap(source: Map<unknown, unknown>, target: Map<unknown, unknown>, seen: Map<object, unknown>): unknown {
  const entries = [...Map.prototype.entries.call(source)] as Array<[unknown, unknown]>;
  for (const [key, value] of entries) target.set(clone(key, seen), clone(value, seen));
  return target;
}

function cloneSet(source: Set<unknown>, target: Set<unknown>, seen: Map<object, unknown>): unknown {
  const values = [...Set.prototype.values.call(source)];
  for (const value of values) target.add(clone(value, seen));
  return target;
}

function cloneError(error: Error, remember: <T>(result: T) => T, seen: Map<object, unknown>): unknown {
  if (error instanceof DOMException) {
    const copy = remember(new DOMException(error.message, error.name));
    return withStack(copy, error);
  }
  const name = ERROR_NAMES.has(String(error.name)) ? String(error.name) : "Error";
  const Constructor = (globalThis as unknown as Record<string, new (message?: string) => Error>)[name]!;
  const copy = remember(new Constructor());
  const hidden = { writable: true, enumerable: false, configurable: true };
  const message = Object.getOwnPropertyDescriptor(error, "message");
  if (message !== undefined && "value" in message) {
    Object.defineProperty(copy, "message", { value: String(message.value), ...hidden });
  }
  if (Object.hasOwn(error, "cause")) Object.defineProperty(copy, "cause", { value: clone(error.cause, seen), ...hidden });
  return withStack(copy, error);
}

function withStack<T extends Error>(copy: T, original: Error): T {
  Object.defineProperty(copy, "stack", { value: original.stack, writable: true, enumerable: false, configurable: true });
  return copy;
}

function cloneProperties(source: object, target: object, seen: Map<object, unknown>): unknown {
  for (const key of Object.keys(source)) {
    // A getter that ran before may have removed the property.
    if (!Object.hasOwn(source, key)) continue;
    const value = clone((source as Record<string, unknown>)[key], seen);
    Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
  }
  return target;
}
