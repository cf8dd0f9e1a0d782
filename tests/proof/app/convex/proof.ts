// Transactions made of steps, for the proofs of serialisability: see tests/proof/steps.py for what each step means.
import { anyApi as api, mutationGeneric as mutation, queryGeneric as query } from "convex/server";

type Step = [string, ...any[]];

const cell = (ctx: any, key: string) =>
  ctx.db.query("cells").withIndex("by_key", (q: any) => q.eq("key", key)).unique();

const lastRow = (ctx: any, key: string) =>
  ctx.db.query("rows").withIndex("by_key", (q: any) => q.eq("key", key)).order("desc").first();

const list = (ctx: any, key: string) =>
  ctx.db.query("lists").withIndex("by_key", (q: any) => q.eq("key", key)).unique();

const steps: Record<string, (ctx: any, ...operands: any[]) => Promise<unknown>> = {
  get: async (ctx, key) => (await cell(ctx, key))?.value ?? null,
  set: async (ctx, key, value) => {
    const found = await cell(ctx, key);
    if (found === null) await ctx.db.insert("cells", { key, value });
    else await ctx.db.patch(found._id, { value });
    return null;
  },
  add: async (ctx, key, amount) => {
    const found = await cell(ctx, key);
    const value = (found?.value ?? 0) + amount;
    if (found === null) await ctx.db.insert("cells", { key, value });
    else await ctx.db.patch(found._id, { value });
    return value;
  },
  remove: async (ctx, key) => {
    const found = await cell(ctx, key);
    if (found !== null) await ctx.db.delete(found._id);
    return null;
  },
  between: async (ctx, low, high) => {
    const range = (q: any) => q.gte("value", low).lte("value", high);
    return (await ctx.db.query("cells").withIndex("by_value", range).collect()).map((found: any) => found.value);
  },
  divisible: async (ctx, by) => {
    const isDivisible = (q: any) => q.eq(q.mod(q.field("value"), by), 0);
    const found = await ctx.db.query("cells").filter(isDivisible).collect();
    return found.map((each: any) => each.value).sort((a: number, b: number) => a - b);
  },
  // A list is one document under a key that begins with "d", a row for each element under one that begins with "r".
  read: async (ctx, key) => {
    if (key[0] === "d") return (await list(ctx, key))?.elements ?? [];
    const rows = await ctx.db.query("rows").withIndex("by_key", (q: any) => q.eq("key", key)).collect();
    return rows.map((row: any) => row.element);
  },
  append: async (ctx, key, element) => {
    if (key[0] === "d") {
      const found = await list(ctx, key);
      if (found === null) await ctx.db.insert("lists", { key, elements: [element] });
      else await ctx.db.patch(found._id, { elements: [...found.elements, element] });
    } else {
      await ctx.db.insert("rows", { key, place: ((await lastRow(ctx, key))?.place ?? -1) + 1, element });
    }
    return null;
  },
  nested: async (ctx, inner, fails) => {
    try {
      return await ctx.runMutation(api.proof.run, { steps: fails ? [...inner, ["fail"]] : inner });
    } catch (error) {
      if (!fails) throw error;
      return null;
    }
  },
  fail: async () => {
    throw new Error("as asked");
  },
};

const runAll = async (ctx: any, all: Step[]) => {
  const answers: unknown[] = [];
  for (const [name, ...operands] of all) answers.push(await steps[name](ctx, ...operands));
  return answers;
};

export const run = mutation(async (ctx, { steps }: any) => await runAll(ctx, steps));

/** The same, but so long that it runs beside the lane; the clock stands still, so it counts. */
export const runLong = mutation(async (ctx, { steps, rounds }: any) => {
  let sum = 0;
  const half = steps.length >> 1;
  const first = await runAll(ctx, steps.slice(0, half));
  for (let i = 0; i < rounds; i++) sum = (sum * 31 + i) | 0;
  return [...first, ...(await runAll(ctx, steps.slice(half)))];
});

export const look = query(async (ctx, { steps }: any) => await runAll(ctx, steps));

/** Takes its steps one by one from the hand of a test, which answers this operation in the host's place. */
export const converse = mutation(async (ctx, { side }: any) => {
  let answer: unknown = null;
  for (;;) {
    const next: string | null = ctx.db.normalizeId("cells", JSON.stringify({ side, answer }));
    if (next === null) return null;
    answer = (await runAll(ctx, [JSON.parse(next)]))[0];
  }
});
