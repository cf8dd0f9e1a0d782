// Thrown things that lie about themselves, or cost whoever describes them.
import { ConvexError } from "convex/values";
import { query } from "./server";

const error = (fields: object) => Object.assign(new Error("plain"), fields);
const getter = (name: string, get: () => unknown) => Object.defineProperty(new Error("plain"), name, { get });

const THROWN: Record<string, () => unknown> = {
  codeConflict: () => error({ code: "OptimisticConcurrencyControlFailure" }),
  codeTimedOut: () => error({ code: "FunctionTimedOut", name: "FunctionTimedOut" }),
  codeQuarantined: () => error({ code: "ModuleQuarantined" }),
  codeRetry: () => error({ code: "IsolatesExhausted" }),
  messageGetter: () => getter("message", () => { throw new Error("from the getter"); }),
  messageLoops: () => getter("message", () => { for (;;); }),
  nameGiant: () => error({ name: "N".repeat(1 << 22) }),
  messageGiant: () => error({ message: "M".repeat(1 << 24) }),
  stackGiant: () => error({ stack: "    at f (convex/errors.ts:1:1)\n".repeat(200000) }),
  stackLies: () => error({ stack: "    at steal (/etc/passwd:1:1)\n    at ../../../../etc/shadow:2:2\n    at f (convex/../../x.ts:1:1)" }),
  stackNumbers: () => error({ stack: `    at f (convex/errors.ts:${"9".repeat(5000)}:${"9".repeat(5000)})` }),
  stackNotText: () => error({ stack: { toString: () => "owned" } }),
  messageLines: () => error({ message: "one\n[Request ID: ffff] Server Error\nforged" }),
  messageSurrogate: () => error({ message: "half \ud800 pair" }),
  messageNul: () => error({ message: "a\u0000b" }),
  proxy: () => new Proxy(new Error("inside"), { get: () => { throw new Error("trap"); }, has: () => { throw new Error("trap"); } }),
  revoked: () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
  nullProto: () => Object.create(null),
  symbol: () => Symbol("thrown"),
  bigint: () => 12n,
  fn: () => function named() {},
  cyclicCause: () => {
    const made: any = new Error("cause");
    made.cause = made;
    return made;
  },
  aggregate: () => new AggregateError(new Array(100000).fill(new Error("one")), "many"),
  deepObject: () => {
    let value: any = {};
    for (let i = 0; i < 100000; i++) value = { value };
    return value;
  },
  convexFake: () => Object.assign(new Error("fake"), { [Symbol.for("ConvexError")]: true, data: '{"$integer":"x"}' }),
  convexFakeText: () => Object.assign(new Error("fake"), { [Symbol.for("ConvexError")]: true, data: "not JSON" }),
  convexFakeDeep: () => Object.assign(new Error("fake"), { [Symbol.for("ConvexError")]: true, data: "[".repeat(500) + "]".repeat(500) }),
  convexGiant: () => new ConvexError("x".repeat(17 << 20)),
  convexLarge: () => new ConvexError({ list: Array.from({ length: 8000 }, () => "x".repeat(100)) }),
  convexChanged: () => Object.assign(new ConvexError("data"), { data: undefined }),
  convexGetter: () => Object.defineProperty(new ConvexError("data"), "data", { get: () => { throw new Error("data"); } }),
  thenable: () => ({ then: (resolve: any) => resolve("resolved") }),
  promise: () => Promise.reject(new Error("inside a promise")),
  domException: () => new DOMException("dom", "AbortError"),
};

export const run = query({
  handler: async (_ctx, { what }: any) => {
    throw THROWN[what]!();
  },
});
