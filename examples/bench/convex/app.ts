import { v } from "convex/values";
import { action, query } from "./builders";

/** The trivial query: touches no data. */
export const add = query({
  args: { x: v.number(), y: v.number() },
  handler: async (_ctx, { x, y }) => x + y,
});

/** The same after one fetch, from the peer that the bench starts (tools/lib/bench/peer.py). */
export const fetchAndAdd = action({
  args: { x: v.number(), y: v.number() },
  handler: async (_ctx, { x, y }) => {
    const response = await fetch("http://127.0.0.1:32107/");
    return (await response.text()) === "hello" ? x + y : null;
  },
});

export const sleep = action({
  args: { ms: v.number() },
  handler: async (_ctx, { ms }) => {
    await new Promise<void>((resolve) => setTimeout(resolve, ms));
    return null;
  },
});
