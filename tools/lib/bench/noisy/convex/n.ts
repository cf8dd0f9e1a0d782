// What a bad neighbour does. Each function spends something; none of it may be another deployment's.
import { actionGeneric, mutationGeneric, queryGeneric } from "convex/server";
import { v } from "convex/values";

const any = { a: v.any() };

export const flood = queryGeneric({ args: any, handler: async () => null });
export const loop = queryGeneric({
  args: any,
  handler: async () => {
    for (;;);
  },
});
export const hoard = queryGeneric({
  args: any,
  handler: async () => {
    const kept: Uint8Array[] = [];
    for (;;) kept.push(new Uint8Array(1 << 20).fill(1));
  },
});
export const crash = queryGeneric({
  args: any,
  handler: async () => {
    const deeper = (n: number): number => 1 + deeper(n + 1);
    return deeper(0);
  },
});
export const sort = queryGeneric({
  args: any,
  handler: async () => {
    const numbers = Array.from({ length: 50_000 }, (_, i) => (i * 7919) % 50_021);
    return numbers.sort((a, b) => a - b)[0];
  },
});
export const logs = queryGeneric({
  args: any,
  handler: async () => {
    for (let i = 0; i < 300; i++) console.log("l".repeat(4000));
    return null;
  },
});

export const fill = mutationGeneric({
  args: { n: v.number() },
  handler: async (ctx, { n }) => {
    for (let i = 0; i < n; i++) await ctx.db.insert("rows", { i });
    return null;
  },
});
export const filter = queryGeneric({
  args: any,
  handler: async (ctx) => {
    const rows = ctx.db.query("rows").filter((q) => q.and(...Array.from({ length: 200 }, (_, i) => q.neq(q.field("i"), -1 - i))));
    return (await rows.collect()).length;
  },
});

// Each level tries its first form to the end before its second.
let nested: any = v.object({ a: v.string() });
for (let i = 0; i < 8; i++) nested = v.union(v.object({ a: nested, b: v.number() }), v.object({ a: nested, b: v.string() }));
export const union = queryGeneric({ args: { a: v.array(nested) }, handler: async () => null });

// What only asks its host: none of it is long, and there is much of it.
export const ask = queryGeneric({
  args: any,
  handler: async (ctx) => {
    for (;;) await ctx.db.query("rows").first();
  },
});
export const askInAction = actionGeneric({
  args: any,
  handler: async () => {
    for (let i = 0; i < 10_000; i++) console.log("l");
  },
});
