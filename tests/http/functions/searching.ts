import { paginationOptsValidator } from "convex/server";
import { v } from "convex/values";
import { mutation, query } from "./_generated/server";

const words = v.string();

export const collected = query({
  args: { words, channel: v.optional(v.string()) },
  handler: async (ctx, { words, channel }) => {
    const found = await ctx.db
      .query("messages")
      .withSearchIndex("search_body", (q) =>
        channel === undefined ? q.search("body", words) : q.search("body", words).eq("channel", channel),
      )
      .collect();
    return found.map((message) => message.body);
  },
});

export const first = query({
  args: { words },
  handler: async (ctx, { words }) =>
    (await ctx.db.query("messages").withSearchIndex("search_body", (q) => q.search("body", words)).first())?.body ?? null,
});

export const filtered = query({
  args: { words, but: v.string() },
  handler: async (ctx, { words, but }) => {
    const bodies: string[] = [];
    const found = ctx.db
      .query("messages")
      .withSearchIndex("search_body", (q) => q.search("body", words))
      .filter((q) => q.neq(q.field("author"), but));
    for await (const message of found) bodies.push(message.body);
    return bodies;
  },
});

export const paged = query({
  args: { words, paginationOpts: paginationOptsValidator },
  handler: async (ctx, { words, paginationOpts }) => {
    const result = await ctx.db
      .query("messages")
      .withSearchIndex("search_body", (q) => q.search("body", words))
      .paginate(paginationOpts);
    return { ...result, page: result.page.map((message) => message.body) };
  },
});

/** Sends, edits and removes within one mutation, and says what a search finds after each of these. */
export const written = mutation({
  args: { word: v.string() },
  handler: async (ctx, { word }) => {
    const count = async () => {
      const found = await ctx.db
        .query("messages")
        .withSearchIndex("search_body", (q) => q.search("body", word).eq("channel", "written"))
        .collect();
      return found.length;
    };
    const counts = [await count()];
    const id = await ctx.db.insert("messages", { channel: "written", author: "Ada", body: `a ${word}` });
    counts.push(await count());
    await ctx.db.patch(id, { body: "nothing" });
    counts.push(await count());
    await ctx.db.patch(id, { body: `${word} again` });
    counts.push(await count());
    await ctx.db.delete(id);
    counts.push(await count());
    return counts;
  },
});

export const misused = query({
  args: { how: v.string() },
  handler: async (ctx, { how }) => {
    const messages: any = ctx.db.query("messages");
    if (how === "range") return await messages.withIndex("search_body").collect();
    if (how === "search") return await messages.withSearchIndex("by_channel", (q: any) => q.search("body", "x")).collect();
    if (how === "field") return await messages.withSearchIndex("search_body", (q: any) => q.search("author", "x")).collect();
    if (how === "filter")
      return await messages.withSearchIndex("search_body", (q: any) => q.search("body", "x").eq("author", "x")).collect();
    return await messages.withSearchIndex("search_body", (q: any) => q.eq("channel", "x")).collect();
  },
});
