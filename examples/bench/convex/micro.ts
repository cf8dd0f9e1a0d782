import { v } from "convex/values";
import { mutation, query } from "./builders";

const BODY = "m".repeat(88);

/** Reads one document `times` times: the slope over `times` is what one `ctx.db.get` costs. */
export const gets = query({
  args: { id: v.id("docs"), times: v.number() },
  handler: async (ctx, { id, times }) => {
    for (let i = 0; i < times; i++) await ctx.db.get(id);
    return null;
  },
});

export const inserts = mutation({
  args: { times: v.number() },
  handler: async (ctx, { times }) => {
    for (let i = 0; i < times; i++) await ctx.db.insert("docs", { grp: -1, seq: i, author: "micro", body: BODY });
    return null;
  },
});

export const patches = mutation({
  args: { id: v.id("docs"), times: v.number() },
  handler: async (ctx, { id, times }) => {
    for (let i = 0; i < times; i++) await ctx.db.patch(id, { author: `author ${i}` });
    return null;
  },
});

/** Collects a group and returns only how many there are: `bank:list` without the way out. */
export const count = query({
  args: { grp: v.number() },
  handler: async (ctx, { grp }) => {
    const documents = await ctx.db
      .query("docs")
      .withIndex("by_grp", (q) => q.eq("grp", grp))
      .collect();
    return documents.length;
  },
});

/** The id of a document of a group. */
export const anId = query({
  args: { grp: v.number() },
  handler: async (ctx, { grp }) => {
    const first = await ctx.db
      .query("docs")
      .withIndex("by_grp", (q) => q.eq("grp", grp))
      .first();
    return first?._id ?? null;
  },
});

/** A mutation that thinks for `rounds` rounds and then writes one document of its own. Clocks stand still in a call, so time cannot end it. */
export const think = mutation({
  args: { rounds: v.number() },
  handler: async (ctx, { rounds }) => {
    let state = 1;
    for (let i = 0; i < rounds; i++) state = (state * 69_069 + 1) >>> 0;
    await ctx.db.insert("docs", { grp: -2, seq: state, author: "micro", body: BODY });
    return state;
  },
});
