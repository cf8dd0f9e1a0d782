import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  cells: defineTable({ key: v.string(), value: v.number() }).index("by_key", ["key"]).index("by_value", ["value"]),
  lists: defineTable({ key: v.string(), elements: v.array(v.number()) }).index("by_key", ["key"]),
  rows: defineTable({ key: v.string(), place: v.number(), element: v.number() }).index("by_key", ["key", "place"]),
  accounts: defineTable({ number: v.number(), balance: v.number() }).index("by_number", ["number"]),
  imported: defineTable({ generation: v.number(), place: v.number() }).index("by_place", ["place"]),
  links: defineTable({ name: v.number(), next: v.number() }).index("by_name", ["name"]),
});
