// What functions return, store and throw that is no value, or only looks like one.
import { ConvexError } from "convex/values";
import { mutation, query, tried } from "./server";

const nested = (depth: number) => {
  let value: any = 1;
  for (let i = 0; i < depth; i++) value = [value];
  return value;
};
const detached = () => {
  const buffer = new ArrayBuffer(8);
  (buffer as any).transfer();
  return buffer;
};
const cyclic = () => {
  const value: any = {};
  value.self = value;
  return value;
};

const MADE: Record<string, () => unknown> = {
  bigintHigh: () => 2n ** 63n,
  bigintLow: () => -(2n ** 63n) - 1n,
  bigintGiant: () => 2n ** 100000n,
  bigintEdge: () => [2n ** 63n - 1n, -(2n ** 63n)],
  undefinedInArray: () => [undefined],
  undefinedField: () => ({ a: undefined }),
  dollarName: () => ({ $a: 1 }),
  dollarInteger: () => ({ $integer: "AAAAAAAAAAA=" }),
  underscoreName: () => ({ _a: 1 }),
  emptyName: () => ({ "": 1 }),
  controlName: () => ({ "a\u0000b": 1 }),
  unicodeName: () => ({ "\u0430dmin": 1 }),
  protoKey: () => JSON.parse('{"__proto__":{"owned":1},"a":1}'),
  protoComputed: () => ({ ["__proto__"]: 1 }),
  constructorKey: () => ({ constructor: 1, prototype: 2, hasOwnProperty: 3, toString: 4 }),
  toJsonMethod: () => ({ toJSON: () => "owned" }),
  longName: () => ({ ["x".repeat(1025)]: 1 }),
  manyFields: () => Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [`f${i}`, i])),
  longArray: () => new Array(8193).fill(0),
  holes: () => [1, , 3],
  sparse: () => new Array(5),
  hugeSparse: () => new Array(2 ** 32 - 1),
  hugeSparseTail: () => {
    const value: number[] = [];
    value[2 ** 32 - 2] = 1;
    return value;
  },
  arrayWithField: () => Object.assign([1], { extra: 2 }),
  arrayLengthLie: () => new Proxy([1, 2], { get: (target, name) => (name === "length" ? 2 ** 40 : (target as any)[name]) }),
  cyclic,
  cyclicArray: () => {
    const value: any[] = [];
    value.push(value);
    return value;
  },
  nested64: () => nested(63),
  nested65: () => nested(66),
  nestedDeep: () => nested(200000),
  date: () => new Date(0),
  invalidDate: () => new Date(NaN),
  map: () => new Map([[1, 2]]),
  set: () => new Set([1]),
  regexp: () => /a/,
  instance: () => new (class Account { n = 1; })(),
  nullProto: () => Object.assign(Object.create(null), { a: 1 }),
  inherited: () => Object.create({ a: 1 }),
  symbol: () => Symbol("s"),
  symbolKey: () => ({ [Symbol("s")]: 1, a: 1 }),
  boxed: () => Object(1n),
  boxedText: () => new String("boxed"),
  callable: () => ({ f: () => 1 }),
  promiseInside: () => ({ p: Promise.resolve(1) }),
  thenable: () => ({ then: (resolve: any) => resolve({ then: (again: any) => again("settled") }) }),
  thenableForever: () => {
    const value: any = { then: (resolve: any) => resolve(value) };
    return value;
  },
  thenableTwice: () => ({ then: (resolve: any, reject: any) => (resolve("first"), reject(new Error("second")), resolve("third")) }),
  bytesView: () => new Uint8Array([1, 2]),
  bytesSubarray: () => new Uint8Array([1, 2, 3, 4]).subarray(1, 3),
  dataView: () => new DataView(new ArrayBuffer(4)),
  detached,
  resizable: () => {
    const buffer = new (ArrayBuffer as any)(4, { maxByteLength: 16 });
    buffer.resize(2);
    return buffer;
  },
  shrinksInGetter: () => {
    const buffer = new (ArrayBuffer as any)(64, { maxByteLength: 64 });
    return { a: buffer, get b() { buffer.resize(0); return buffer; } };
  },
  sharedBuffer: () => new SharedArrayBuffer(8),
  nan: () => [NaN, -0, Infinity, -Infinity],
  nanPayload: () => {
    const bits = new DataView(new ArrayBuffer(8));
    bits.setBigUint64(0, 0x7ff4dead0000beefn);
    return Object.is(bits.getFloat64(0), NaN) ? bits.getFloat64(0) : "not a NaN";
  },
  surrogate: () => "a\ud800b",
  surrogateKey: () => ({ "\udc00": 1 }),
  nulText: () => "a\u0000b",
  getter: () => ({ get a() { return 1; } }),
  getterThrows: () => ({ get a() { throw new TypeError("from the getter"); } }),
  getterGrows: () => {
    const list: any[] = [0];
    Object.defineProperty(list, "0", { enumerable: true, get: () => (list.push(1), list.length > 50000 ? "end" : 0) });
    return list;
  },
  arrayShrinks: () => {
    const list: any[] = [null, ...new Array(5000).fill({ a: 1 })];
    list[0] = { get a() { list.length = 0; return 1; } };
    return list;
  },
  proxy: () => new Proxy({ a: 1 }, {}),
  proxyTraps: () => new Proxy({}, { ownKeys: () => ["a", "b"], getOwnPropertyDescriptor: () => ({ value: 1, enumerable: true, configurable: true }), get: () => 7 }),
  proxyKeysFlood: () => new Proxy({}, { ownKeys: () => Array.from({ length: 200000 }, (_, i) => `k${i}`), getOwnPropertyDescriptor: () => ({ value: 1, enumerable: true, configurable: true }), get: () => 1 }),
  proxyRevoked: () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
  arguments: function () { return arguments; } as any,
  generator: function* () { yield 1; } as any,
  module: () => import("./alive"),
  global: () => globalThis,
};

// Each made inside the function, so that nothing of the suite's own way in is part of the attack.
export const returned = query({ handler: async (_ctx, { what }: any) => MADE[what]!() as any });
export const stored = mutation({
  handler: async (ctx, { what }: any) => {
    const id = await ctx.db.insert("odd", { value: MADE[what]!() } as any);
    const { value } = (await ctx.db.get(id)) as any;
    await ctx.db.delete(id);
    return value ?? "gone";
  },
});
export const thrown = query({
  handler: async (_ctx, { what }: any) => {
    throw new ConvexError(MADE[what]!() as any);
  },
});
export const passed = query({ handler: async (ctx, { what }: any) => await ctx.runQuery("values:echo" as any, { value: MADE[what]!() } as any) });
export const echo = query({ handler: async (_ctx, { value }: any) => value ?? null });
// Encoded text that the package would never write.
export const raw = mutation({ handler: async (_ctx, { text }: any) => await tried("1.0/insert", `{"table":"odd","value":${text}}`) });
