import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  reminders: defineTable({
    text: v.string(),
    job: v.id("_scheduled_functions"),
    firedAt: v.optional(v.number()),
  }).index("by_fired", ["firedAt"]),
});
