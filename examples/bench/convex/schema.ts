import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  accounts: defineTable({ number: v.number(), balance: v.number() }).index("by_number", ["number"]),
  // One document is 200 bytes of JSON, give or take the digits of its numbers.
  docs: defineTable({ grp: v.number(), seq: v.number(), author: v.string(), body: v.string() })
    .index("by_grp", ["grp", "seq"]),
  // Small documents with two indexes whose entries come in no order: what storage and imports are measured with.
  notes: defineTable({ owner: v.number(), at: v.number(), body: v.string() })
    .index("by_owner", ["owner"])
    .index("by_at", ["at"]),
});
