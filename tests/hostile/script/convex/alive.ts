// What must answer after every attack, and what must have stayed as it was.
import { internalQuery, mutation, query } from "./server";

export const ping = query({ handler: async () => "pong" });
export const secret = internalQuery({ handler: async () => "a secret" });
export const put = mutation({ handler: async (ctx, { n }: any) => await ctx.db.insert("rows", { n }) });
export const rows = query({ handler: async (ctx) => (await ctx.db.query("rows").collect()).length });
// Uses each intrinsic that some attack replaces: a poisoned one that outlived its call would show.
export const sane = query({
  handler: async (ctx) => {
    const rows = await ctx.db.query("rows").take(1);
    const map = new Map([["a", [3, 1, 2].sort().map((n) => n * 2)]]);
    const text = JSON.stringify({ map: [...map], set: [...new Set("aab")], rows: rows.length >= 0 });
    return [JSON.parse(text), Object.keys({}), typeof (globalThis as any).left, ({} as any).owned === undefined];
  },
});
