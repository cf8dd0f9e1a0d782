import { v } from "convex/values";
import { query } from "./builders";

/** The trivial query: touches no data. */
export const add = query({
  args: { x: v.number(), y: v.number() },
  handler: async (_ctx, { x, y }) => x + y,
});
