import { paginationOptsValidator } from "convex/server";
import { v } from "convex/values";
import { mutation, query } from "./_generated/server";

const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 200;

const message = v.object({
  _id: v.id("messages"),
  _creationTime: v.number(),
  channel: v.string(),
  author: v.string(),
  body: v.string(),
});

/** The newest messages of a channel, newest first. */
export const list = query({
  args: { channel: v.string(), limit: v.optional(v.number()) },
  returns: v.array(message),
  handler: async (ctx, { channel, limit }) => {
    return await ctx.db
      .query("messages")
      .withIndex("by_channel", (q) => q.eq("channel", channel))
      .order("desc")
      .take(Math.min(limit ?? LIMIT_DEFAULT, LIMIT_MAX));
  },
});

/** The messages of a channel page by page, newest first: what a page that scrolls back asks for. */
export const page = query({
  args: { channel: v.string(), paginationOpts: paginationOptsValidator },
  handler: async (ctx, { channel, paginationOpts }) => {
    return await ctx.db
      .query("messages")
      .withIndex("by_channel", (q) => q.eq("channel", channel))
      .order("desc")
      .paginate(paginationOpts);
  },
});

/** The messages of a channel that have some of these words, or begin with the last one, best first. */
export const search = query({
  args: { channel: v.string(), words: v.string(), limit: v.optional(v.number()) },
  returns: v.array(message),
  handler: async (ctx, { channel, words, limit }) => {
    return await ctx.db
      .query("messages")
      .withSearchIndex("search_body", (q) => q.search("body", words).eq("channel", channel))
      .take(Math.min(limit ?? LIMIT_DEFAULT, LIMIT_MAX));
  },
});

/** Posts a message and returns its id. */
export const send = mutation({
  args: { channel: v.string(), author: v.string(), body: v.string() },
  returns: v.id("messages"),
  handler: async (ctx, { channel, author, body }) => {
    return await ctx.db.insert("messages", { channel, author, body });
  },
});
