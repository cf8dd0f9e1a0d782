// What actions try: to use up operations and timers, to reach what is inside, to say what no request may say.
import { action, api, mutation, query, tried } from "./server";

declare const Convex: { asyncSyscall(op: string, args: string): Promise<string> };

const everything: any = globalThis;
const settle = async (calls: Array<Promise<unknown>>) => {
  const seen: Record<string, number> = {};
  for (const outcome of await Promise.allSettled(calls)) {
    const text = outcome.status === "fulfilled" ? "fulfilled" : String((outcome.reason as any).code ?? (outcome.reason as Error).message);
    seen[text] = (seen[text] ?? 0) + 1;
  }
  return seen;
};
const raw = async (fields: object) => tried("fetch/start", { id: 1, method: "GET", url: "http://127.0.0.1:1/", headers: [], redirect: "follow", body: "none", ...fields });

// A fetch as a program makes it: its answer in short, or the error's name and text.
export const get = action({
  handler: async (_ctx, { url, init }: any) => {
    try {
      const response = await fetch(url, init);
      return [response.status, response.redirected, (await response.text()).slice(0, 300)];
    } catch (error) {
      return [(error as Error).name, (error as any).code ?? null, (error as Error).message];
    }
  },
});
// A fetch as a guest in another language could ask for it, past all that the prelude checks.
export const getRaw = action({ handler: async (_ctx, { fields }: any) => (await raw(fields)) as any });
export const operation = action({ handler: async (_ctx, { op, args }: any) => (await tried(op, args)) as any });
export const allOperations = action({
  handler: async (_ctx, { names }: any) => {
    const outcomes: Record<string, number> = {};
    for (const name of names) {
      const outcome = String(await tried(name, { id: "x", table: "rows", value: {}, query: {}, queryId: 0, name: "alive:ping", udfType: "query" }));
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    }
    return outcomes;
  },
});
export const timersAtOnce = action({
  handler: async (_ctx, { n }: any) => {
    await settle(Array.from({ length: n }, () => new Promise<void>((resolve) => setTimeout(resolve, 1))));
    return n;
  },
});
export const timerForms = action({
  handler: async () => {
    const outcomes: unknown[] = [];
    for (const [id, ms] of [[1, -1], [1, 1e300], [1, "1"], [1, null], [-1, 1], [2 ** 53, 1], [1.5, 1], ["1", 1], [null, 1], [{}, 1]]) outcomes.push(await tried("timer/start", { id, ms }));
    return [...new Set(outcomes)] as any;
  },
});
export const timerNumberTwice = action({ handler: async () => await settle([1, 1, 1].map((id) => Convex.asyncSyscall("timer/start", JSON.stringify({ id, ms: 1 })))) });
export const timersForgotten = action({
  handler: async () => {
    for (let i = 0; i < 500; i++) setInterval(() => {}, 1);
    return "left";
  },
});
export const timerThrows = action({
  handler: async () => {
    setTimeout(() => { throw new Error("in the timer"); }, 0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    return "returned";
  },
});
export const promisesForgotten = action({
  handler: async (ctx) => {
    for (let i = 0; i < 50; i++) void ctx.runMutation(api.alive.put, { n: i });
    return "left";
  },
});
export const recursion: any = action({ handler: async (ctx, { n }: any): Promise<any> => await ctx.runAction(api.acts.throughMutation, { n }) });
export const throughMutation: any = action({
  handler: async (ctx, { n }: any): Promise<any> => {
    await ctx.runMutation(api.acts.noted, {});
    return await ctx.runAction(api.acts.recursion, { n: n + 1 });
  },
});
export const noted = mutation({ handler: async () => null });
export const fanOut = action({
  handler: async (ctx) => {
    const ended = await Promise.allSettled(Array.from({ length: 300 }, () => ctx.runMutation(api.acts.fails, {})));
    return [...new Set(ended.map(({ status }) => status))].map((status) => [status, ended.filter((one) => one.status === status).length]);
  },
});
export const fails = mutation({
  handler: async (ctx) => {
    await ctx.db.insert("torn", {});
    throw new Error("always");
  },
});
export const callsForms = action({
  handler: async () => {
    const outcomes: unknown[] = [];
    for (const name of [undefined, 1, {}, "", "alive", "../alive:ping", "alive:ping:x", "_system/x:y", "alive:secret\u0000", "acts:get"]) outcomes.push(await tried("1.0/actions/query", { name, args: {} }));
    for (const args of [5, "x", null, [1, 2], { $what: 1 }, [{}, {}]]) outcomes.push(await tried("1.0/actions/query", { name: "alive:ping", args }));
    return [...new Set(outcomes.map(String))] as any;
  },
});
export const grows = action({
  handler: async () => {
    const kept: Uint8Array[] = [];
    for (;;) kept.push(new Uint8Array(1 << 20).fill(1));
  },
});
export const heldBytes = action({
  handler: async () => {
    const text = "x".repeat(15 << 20);
    return await settle(Array.from({ length: 6 }, () => Convex.asyncSyscall("1.0/actions/query", `{"name":"alive:none","args":{"text":"${text}"}}`)));
  },
});
export const bodyForms = action({
  handler: async () => {
    const outcomes: unknown[] = [];
    for (const op of ["fetch/read", "fetch/write"]) for (const id of [0, 7, -1, "1", 2 ** 60, null]) outcomes.push(await tried(op, { id, whole: true, last: true }));
    for (const id of [7, -1, "1"]) outcomes.push(await tried("fetch/cancel", { id }));
    return [...new Set(outcomes.map(String))] as any;
  },
});
export const abortStorm = action({
  handler: async (_ctx, { url, n }: any) => {
    const calls = Array.from({ length: n }, (_, i) => {
      const controller = new AbortController();
      const pending = fetch(url, { signal: controller.signal });
      if (i % 3 === 0) controller.abort();
      else setTimeout(() => controller.abort(), i % 7);
      return pending.then((response) => response.text());
    });
    return Object.keys(await settle(calls));
  },
});
export const streamEndless = action({
  handler: async (_ctx, { url, chunks }: any) => {
    const reader = (await fetch(url)).body!.getReader();
    let length = 0;
    for (let i = 0; i < chunks; i++) length += (await reader.read()).value!.length;
    await reader.cancel();
    return length > 0;
  },
});
export const streamAbandoned = action({
  handler: async (_ctx, { url }: any) => {
    for (let i = 0; i < 20; i++) void (await fetch(url)).body!.getReader().read();
    return "left";
  },
});
export const bodyStreamLies = action({
  handler: async (_ctx, { url }: any) => {
    const outcomes: unknown[] = [];
    for (const chunk of ["text", 1, {}, null, new Proxy(new Uint8Array(4), {}), Object.create(Uint8Array.prototype)]) {
      const body = new ReadableStream({ start: (controller) => (controller.enqueue(chunk), controller.close()) });
      outcomes.push(await fetch(url, { method: "POST", body, duplex: "half" } as any).then((response) => response.status, (error) => (error as Error).name));
    }
    return outcomes as any;
  },
});
export const fetchForms = action({
  handler: async () => {
    const outcomes: string[] = [];
    const given: any[] = [undefined, null, 1, {}, "", "//x", "http://", "http://[", "http://a b/", "javascript:1", new Proxy({}, {}), { toString: () => { throw new Error("toString"); } }];
    for (const url of given) outcomes.push(await fetch(url).then(() => "answered", (error) => (error as Error).name));
    const inits: any[] = [{ method: "GET\r\nX: y" }, { method: "" }, { headers: { "a\r\nb": "c" } }, { headers: { a: "b\r\nc: d" } }, { headers: [["a"]] }, { body: "x" }, { redirect: "sideways" }, { headers: { a: "\u0100" } }];
    for (const init of inits) outcomes.push(await fetch("http://127.0.0.1:1/", init).then(() => "answered", (error) => (error as any).code ?? (error as Error).name));
    return outcomes;
  },
});
export const clockGoes = action({
  handler: async () => {
    const before = Date.now();
    await new Promise((resolve) => setTimeout(resolve, 5));
    return Date.now() > before && Math.random() !== Math.random();
  },
});
export const stateLeft = action({
  handler: async () => {
    everything.seen = (everything.seen ?? 0) + 1;
    return everything.seen;
  },
});
export const torn = query({ handler: async (ctx) => (await ctx.db.query("torn").collect()).length });
