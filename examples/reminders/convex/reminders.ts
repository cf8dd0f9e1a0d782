import { v } from "convex/values";
import { internal } from "./_generated/api";
import { internalMutation, mutation, query } from "./_generated/server";

const WEEK_MS = 7 * 24 * 60 * 60 * 1000;

/** A reminder that fires at a time, in milliseconds since 1970. It is there together with what will fire it, or not at all. */
export const add = mutation({
  args: { text: v.string(), at: v.number() },
  handler: async (ctx, { text, at }) => {
    const job = await ctx.scheduler.runAt(at, internal.reminders.fire, { text });
    return await ctx.db.insert("reminders", { text, job });
  },
});

/** Takes a reminder back before it fires. */
export const remove = mutation({
  args: { id: v.id("reminders") },
  handler: async (ctx, { id }) => {
    const reminder = await ctx.db.get(id);
    if (reminder === null) return;
    await ctx.scheduler.cancel(reminder.job);
    await ctx.db.delete(id);
  },
});

export const fire = internalMutation({
  args: { text: v.string() },
  handler: async (ctx, { text }) => {
    const waiting = await ctx.db.query("reminders").withIndex("by_fired", (q) => q.eq("firedAt", undefined)).collect();
    const due = waiting.find((reminder) => reminder.text === text);
    if (due !== undefined) await ctx.db.patch(due._id, { firedAt: Date.now() });
  },
});

/** All reminders, each with what its job is up to. */
export const list = query({
  args: {},
  handler: async (ctx) => {
    const reminders = await ctx.db.query("reminders").collect();
    return await Promise.all(
      reminders.map(async ({ _id, text, firedAt, job }) => ({
        id: _id,
        text,
        firedAt: firedAt ?? null,
        state: (await ctx.db.system.get(job))?.state.kind ?? "forgotten",
      })),
    );
  },
});

/** Removes what fired more than a week ago; convex/crons.ts runs it every day. */
export const tidy = internalMutation({
  args: {},
  handler: async (ctx) => {
    const old = await ctx.db
      .query("reminders")
      .withIndex("by_fired", (q) => q.gt("firedAt", 0).lt("firedAt", Date.now() - WEEK_MS))
      .take(100);
    for (const { _id } of old) await ctx.db.delete(_id);
  },
});
