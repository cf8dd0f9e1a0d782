import { v } from "convex/values";
import type { GenericMutationCtx, GenericQueryCtx, DataModelFromSchemaDefinition } from "convex/server";
import type { GenericId } from "convex/values";
import { mutation, query } from "./builders";
import type schema from "./schema";

type DataModel = DataModelFromSchemaDefinition<typeof schema>;
type Account = DataModel["accounts"]["document"] & { _id: GenericId<"accounts"> };

const FIRST_BALANCE = 1_000_000;
const GROUP_SIZE = 100;
const BODY = "s".repeat(88);

async function byNumber(ctx: GenericQueryCtx<DataModel>, number: number) {
  const account = await ctx.db
    .query("accounts")
    .withIndex("by_number", (q) => q.eq("number", number))
    .unique();
  if (account === null) throw new Error(`There is no account ${number}.`);
  return account;
}

async function byId(ctx: GenericQueryCtx<DataModel>, id: GenericId<"accounts">) {
  const account = await ctx.db.get(id);
  if (account === null) throw new Error(`There is no account ${id}.`);
  return account;
}

async function move(ctx: GenericMutationCtx<DataModel>, payer: Account, payee: Account, amount: number) {
  if (payer.balance < amount) throw new Error(`Account ${payer.number} does not hold ${amount}.`);
  await ctx.db.patch(payer._id, { balance: payer.balance - amount });
  await ctx.db.patch(payee._id, { balance: payee.balance + amount });
  return null;
}

/** Moves money between two accounts that are named by number: two reads through the index, two writes. */
export const transfer = mutation({
  args: { from: v.number(), to: v.number(), amount: v.number() },
  handler: async (ctx, { from, to, amount }) => {
    const payer = await byNumber(ctx, from);
    const payee = await byNumber(ctx, to);
    return await move(ctx, payer, payee, amount);
  },
});

/** The same between two accounts that are named by document id. */
export const transferById = mutation({
  args: { from: v.id("accounts"), to: v.id("accounts"), amount: v.number() },
  handler: async (ctx, { from, to, amount }) => {
    const payer = await byId(ctx, from);
    const payee = await byId(ctx, to);
    return await move(ctx, payer, payee, amount);
  },
});

/** One account. Queries with another `ask` are others: each of them is run, whatever was kept. */
export const get = query({
  args: { id: v.number(), ask: v.optional(v.number()) },
  handler: async (ctx, { id }) => {
    const account = await byNumber(ctx, id);
    return { id: account.number, balance: account.balance };
  },
});

/** The accounts of a range, in the order of their numbers. */
export const page = query({
  args: { lo: v.number(), hi: v.number() },
  handler: async (ctx, { lo, hi }) =>
    await ctx.db
      .query("accounts")
      .withIndex("by_number", (q) => q.gte("number", lo).lt("number", hi))
      .collect(),
});

/** The documents of one group, in the order of their index. */
export const list = query({
  args: { grp: v.number(), ask: v.optional(v.number()) },
  handler: async (ctx, { grp }) =>
    await ctx.db
      .query("docs")
      .withIndex("by_grp", (q) => q.eq("grp", grp))
      .collect(),
});

/** What a check of the books needs: money is neither made nor lost, and each transfer moved it once. */
export const check = query({
  args: { lo: v.number(), hi: v.number() },
  handler: async (ctx, { lo, hi }) => {
    const accounts = await ctx.db
      .query("accounts")
      .withIndex("by_number", (q) => q.gte("number", lo).lt("number", hi))
      .collect();
    let sum = 0;
    let wsum = 0;
    for (const { number, balance } of accounts) {
      sum += balance;
      wsum += number * balance;
    }
    return { n: accounts.length, sum, wsum };
  },
});

/** Document ids of a range of accounts, in the order of their numbers. */
export const ids = query({
  args: { lo: v.number(), hi: v.number() },
  handler: async (ctx, { lo, hi }) => {
    const accounts = await ctx.db
      .query("accounts")
      .withIndex("by_number", (q) => q.gte("number", lo).lt("number", hi))
      .collect();
    return accounts.map((account) => account._id);
  },
});

/** Makes accounts and documents lo..hi-1. */
export const seed = mutation({
  args: { lo: v.number(), hi: v.number() },
  handler: async (ctx, { lo, hi }) => {
    for (let i = lo; i < hi; i++) {
      await ctx.db.insert("accounts", { number: i, balance: FIRST_BALANCE });
      await ctx.db.insert("docs", {
        grp: Math.floor(i / GROUP_SIZE),
        seq: i % GROUP_SIZE,
        author: `author ${i % 7}`,
        body: BODY,
      });
    }
    return null;
  },
});
