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

/** Empties the lists. */
export const forget = mutation(async (ctx) => {
  for (const table of ["lists", "rows"]) {
    for (const { _id, key } of await ctx.db.query(table).collect()) if (key.length === 2) await ctx.db.delete(_id);
  }
  return null;
});

/** So many documents more, for whoever builds an index. */
export const fill = mutation(async (ctx, { count }: any) => {
  for (let i = 0; i < count; i++) await ctx.db.insert("rows", { key: `filler ${i}`, place: 0, element: i });
  return null;
});

/** Which imports the documents of one table are of, by the table and by its index, and how many there are. */
export const imported = query(async (ctx) => {
  const all = await ctx.db.query("imported").collect();
  const byPlace = await ctx.db.query("imported").withIndex("by_place").collect();
  const generations = new Set([...all, ...byPlace].map(({ generation }: any) => generation));
  return [[...generations], all.length, byPlace.filter(({ place }: any, at: number) => place === at).length];
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

// -- invariants over many documents ------------------------------------------------------------------------------------

const busy = (rounds: number) => {
  let sum = 0;
  for (let i = 0; i < rounds; i++) sum = (sum * 31 + i) | 0;
  return sum;
};

const account = (ctx: any, number: number) =>
  ctx.db.query("accounts").withIndex("by_number", (q: any) => q.eq("number", number)).unique();

const link = (ctx: any, name: number) =>
  ctx.db.query("links").withIndex("by_name", (q: any) => q.eq("name", name)).unique();

/** So many accounts of 100 each, and a ring of so many links: each knows the next. */
export const found = mutation(async (ctx, { count }: any) => {
  for (let i = 0; i < count; i++) {
    await ctx.db.insert("accounts", { number: i, balance: 100 });
    await ctx.db.insert("links", { name: i, next: (i + 1) % count });
  }
  return null;
});

export const deposit = mutation(async (ctx, { to, amount }: any) => {
  const { _id, balance } = await account(ctx, to);
  await ctx.db.patch(_id, { balance: balance + amount });
  if (amount % 5 === 0) throw new Error("not this much");
  return null;
});

/** Withdraws here and deposits in a sub-transaction; where that fails, the amount goes back to where it was. */
const transferBetween = async (ctx: any, { from, to, amount, rounds }: any) => {
  const { _id, balance } = await account(ctx, from);
  if (balance < amount) throw new Error("there is not enough");
  await ctx.db.patch(_id, { balance: balance - amount });
  busy(rounds);
  try {
    await ctx.runMutation(api.proof.deposit, { to, amount });
  } catch {
    await ctx.db.patch(_id, { balance });
    return false;
  }
  return true;
};
export const transfer = mutation(transferBetween);
export const transferLong = mutation(transferBetween);

const sumUp = async (ctx: any, { rounds }: any) => {
  const all = await ctx.db.query("accounts").collect();
  busy(rounds);
  let sum = 0;
  for (let number = 0; number < all.length; number++) sum += (await account(ctx, number)).balance;
  return [sum, all.reduce((so_far: number, { balance }: any) => so_far + balance, 0)];
};
export const total = query(sumUp);
export const totalLong = query(sumUp);

/** Closes an account and opens it again as a new document: the sum and the count stay. */
export const reopen = mutation(async (ctx, { number }: any) => {
  const { _id, balance } = await account(ctx, number);
  await ctx.db.delete(_id);
  await ctx.db.insert("accounts", { number, balance });
  return null;
});

/** Takes a link out of the ring and puts it in behind another one. */
const moveBehind = async (ctx: any, { name, behind, rounds }: any) => {
  if (name === behind) return null;
  const taken = await link(ctx, name);
  const before = await ctx.db.query("links").filter((q: any) => q.eq(q.field("next"), name)).unique();
  if (before.name === behind) return null;
  await ctx.db.patch(before._id, { next: taken.next });
  busy(rounds);
  const place = await link(ctx, behind);
  await ctx.db.patch(taken._id, { next: place.next });
  await ctx.db.patch(place._id, { next: name });
  return null;
};
export const move = mutation(moveBehind);
export const moveLong = mutation(moveBehind);

const walkRound = async (ctx: any, { rounds }: any) => {
  const names: number[] = [];
  for (let name = 0; names.length < 100; ) {
    names.push(name);
    name = (await link(ctx, name)).next;
    if (name === 0) break;
    busy(rounds / 8);
  }
  return names;
};
export const walk = query(walkRound);
export const walkLong = query(walkRound);
/** The same in a mutation, which sees what is not durable yet. */
export const walkNow = mutation(walkRound);
