import { v } from "convex/values";
import { mutation } from "./builders";

const BODY = "n".repeat(90);

/** One note of about 200 bytes; gives the sum, as the load generator expects of what it calls "add". */
export const write = mutation({
  args: { x: v.number(), y: v.number() },
  handler: async (ctx, { x, y }) => {
    await ctx.db.insert("notes", { owner: x, at: y, body: BODY });
    return x + y;
  },
});

/** Changes an indexed field of a note. */
export const move = mutation({
  args: { x: v.number(), y: v.number() },
  handler: async (ctx, { x, y }) => {
    const note = await ctx.db
      .query("notes")
      .withIndex("by_owner", (q) => q.gte("owner", x))
      .first();
    if (note !== null) await ctx.db.patch(note._id, { at: y });
    return x + y;
  },
});
