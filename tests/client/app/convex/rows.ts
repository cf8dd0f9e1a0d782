import { actionGeneric, anyApi, mutationGeneric, paginationOptsValidator, queryGeneric } from "convex/server";
import { ConvexError, v } from "convex/values";

const list = v.string();
const CAP = 8; // rows that a page of `capped` may read

const inOrder = (ctx: any, list: string) => ctx.db.query("rows").withIndex("by_list", (q: any) => q.eq("list", list));
const sum = (ctx: any, list: string, name: string) =>
  ctx.db.query("sums").withIndex("by_name", (q: any) => q.eq("list", list).eq("name", name)).unique();

/** The numbers of a list, the least first. */
export const all = queryGeneric({
  args: { list },
  handler: async (ctx, { list }) => (await inOrder(ctx, list).collect()).map((row: any) => row.n),
});

/** The same, page by page. */
export const page = queryGeneric({
  args: { list, paginationOpts: paginationOptsValidator },
  handler: async (ctx, { list, paginationOpts }) => await inOrder(ctx, list).paginate(paginationOpts),
});

/** The same, in pages that may read so little that they have to be split. */
export const capped = queryGeneric({
  args: { list, paginationOpts: paginationOptsValidator },
  handler: async (ctx, { list, paginationOpts }) =>
    await inOrder(ctx, list).paginate({ ...paginationOpts, maximumRowsRead: CAP }),
});

/** Adds numbers and says how many there are now. */
export const add = mutationGeneric({
  args: { list, ns: v.array(v.number()) },
  handler: async (ctx, { list, ns }) => {
    for (const n of ns) await ctx.db.insert("rows", { list, n });
    return (await inOrder(ctx, list).collect()).length;
  },
});

export const remove = mutationGeneric({
  args: { list, ns: v.array(v.number()) },
  handler: async (ctx, { list, ns }) => {
    for (const row of await inOrder(ctx, list).collect()) if (ns.includes(row.n)) await ctx.db.delete(row._id);
  },
});

export const value = queryGeneric({
  args: { list, name: v.string() },
  handler: async (ctx, { list, name }) => (await sum(ctx, list, name))?.value ?? 0,
});

/** Takes from one and gives to the other: together they stay what they were. */
export const move = mutationGeneric({
  args: { list, from: v.string(), to: v.string(), amount: v.number() },
  handler: async (ctx, { list, from, to, amount }) => {
    for (const [name, change] of [[from, -amount], [to, amount]] as const) {
      const found = await sum(ctx, list, name);
      if (found === null) await ctx.db.insert("sums", { list, name, value: change });
      else await ctx.db.patch(found._id, { value: found.value + change });
    }
  },
});

/** The count of a list, which must be even. */
export const pairs = queryGeneric({
  args: { list },
  handler: async (ctx, { list }) => {
    const count = (await inOrder(ctx, list).collect()).length;
    if (count % 2) throw new ConvexError({ odd: count });
    return count / 2;
  },
});

export const refuse = mutationGeneric({
  args: { list, ns: v.array(v.number()) },
  handler: async (ctx, { list, ns }) => {
    await ctx.db.insert("rows", { list, n: ns[0] });
    throw new ConvexError({ refused: ns });
  },
});

/** Adds a number by a mutation and gives the list as a query sees it then. */
export const addAndLook = actionGeneric({
  args: { list, n: v.number() },
  handler: async (ctx, { list, n }): Promise<number[]> => {
    if (n < 0) throw new ConvexError({ negative: n });
    await ctx.runMutation(anyApi.rows.add, { list, ns: [n] });
    return await ctx.runQuery(anyApi.rows.all, { list });
  },
});

/** Adds a number, and then waits for longer than anybody does. */
export const addAndStay = actionGeneric({
  args: { list, n: v.number() },
  handler: async (ctx, { list, n }) => {
    await ctx.runMutation(anyApi.rows.add, { list, ns: [n] });
    await new Promise((resolve) => setTimeout(resolve, 300_000));
  },
});

/** Who asks: the subject of the token, or null. */
export const whoAmI = queryGeneric({
  args: {},
  handler: async (ctx) => (await ctx.auth.getUserIdentity())?.subject ?? null,
});

export const whoWrites = mutationGeneric({
  args: {},
  handler: async (ctx) => (await ctx.auth.getUserIdentity())?.name ?? null,
});
