// Operations of the host asked for from the wrong place, or with arguments of nobody's making.
import { api, mutation, query, tried } from "./server";

export const operation = query({ handler: async (_ctx, { op, args }: any) => (await tried(op, args)) as any });
export const operationInMutation = mutation({ handler: async (_ctx, { op, args }: any) => (await tried(op, args)) as any });
export const allOperations = query({
  handler: async (_ctx, { names }: any) => {
    const outcomes: Record<string, number> = {};
    for (const name of names) {
      const outcome = String(await tried(name, { id: 1, ms: 1, url: "http://127.0.0.1/", method: "GET", headers: [], redirect: "follow", body: "none", name: "alive:ping", args: {} }));
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    }
    return outcomes;
  },
});
export const syncOfTicket = query({
  handler: async () => {
    const Convex = (globalThis as any).Convex;
    try {
      return Convex.syscall("1.0/runUdf", '{"udfType":"query","name":"alive:ping","args":{}}');
    } catch (error) {
      return [(error as Error).name, (error as Error).message];
    }
  },
});
export const notText = query({
  handler: async () => {
    const { syscall, asyncSyscall } = (globalThis as any).Convex;
    const outcomes: string[] = [];
    for (const [op, args] of [[1, "{}"], ["1.0/get", {}], [{ toString: () => "1.0/get" }, "{}"], ["1.0/get"], [], ["1.0/get", null], ["\ud800", "{}"], ["1.0/get\u0000x", "{}"], ["", ""]] as any[]) {
      for (const call of [syscall, asyncSyscall]) {
        try {
          await call(op, args);
          outcomes.push("answered");
        } catch (error) {
          outcomes.push((error as any).code ?? (error as Error).name);
        }
      }
    }
    return [...new Set(outcomes)].sort();
  },
});
// The number of a query that another function holds open.
export const borrowQuery = query({
  handler: async (ctx) => {
    const { queryId } = (await tried("1.0/queryStream", { query: { source: { type: "FullTableScan", tableName: "rows", order: "asc" }, operators: [] } })) as any;
    return await ctx.runQuery(api.operations.useQuery, { queryId });
  },
});
export const useQuery = query({ handler: async (_ctx, { queryId }: any) => (await tried("1.0/queryStreamNext", { queryId })) as any });
export const resumeTwice = query({
  handler: async (ctx) => {
    const pending = ctx.runQuery(api.alive.ping, {});
    return [await pending, await pending, await Promise.race([pending, ctx.runQuery(api.alive.ping, {})])];
  },
});
export const writeAfterCatch = mutation({
  handler: async (ctx) => {
    for (let i = 0; i < 3; i++) await ctx.runMutation(api.operations.writeAndThrow, {}).catch(() => {});
    return (await ctx.db.query("torn").collect()).length;
  },
});
export const writeAndThrow = mutation({
  handler: async (ctx) => {
    await ctx.db.insert("torn", {});
    throw new Error("after the write");
  },
});
export const writeInParallel = mutation({
  handler: async (ctx) => {
    await Promise.allSettled(Array.from({ length: 20 }, () => ctx.runMutation(api.operations.writeAndThrow, {})));
    return (await ctx.db.query("torn").collect()).length;
  },
});
export const loopInNested = mutation({
  handler: async (ctx) => {
    const nested: any = ctx.runMutation(api.operations.recursive, { n: 0 });
    return await nested.catch((error: any) => error.code ?? error.message);
  },
});
export const recursive: any = mutation({ handler: async (ctx, { n }: any): Promise<any> => await ctx.runMutation(api.operations.recursive, { n: n + 1 }) });
export const tooManyWrites = mutation({
  handler: async (ctx) => {
    for (let i = 0; ; i++) await ctx.db.insert("torn", { i });
  },
});
export const tooManyBytes = mutation({
  handler: async (ctx) => {
    for (;;) await ctx.db.insert("torn", { text: "x".repeat(900 << 10) });
  },
});
export const torn = query({ handler: async (ctx) => (await ctx.db.query("torn").collect()).length });
