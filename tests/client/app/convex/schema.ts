import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  rows: defineTable({ list: v.string(), n: v.number() }).index("by_list", ["list", "n"]),
  sums: defineTable({ list: v.string(), name: v.string(), value: v.number() }).index("by_name", ["list", "name"]),
});
