import { actionGeneric, anyApi, internalQueryGeneric, mutationGeneric, queryGeneric } from "convex/server";
import { ConvexError, v } from "convex/values";

/** Its arguments, whatever they are. */
export const echo = queryGeneric(async (_ctx, args) => args);

export default queryGeneric(async () => "the default export");

export const greet = queryGeneric({
  args: { user: v.object({ name: v.string() }) },
  handler: async (_ctx, { user }) => `hello ${user.name}`,
});

export const special = queryGeneric(async () => ({
  bytes: new Uint8Array([0, 1, 255]).buffer,
  half: 0.5,
  int: 9007199254740993n,
  nan: NaN,
  plain: [1, "a", null],
}));

export const notAValue = queryGeneric(async () => () => 1);

export const talk = queryGeneric(async () => {
  console.log("hello", 1);
  console.warn("careful");
  return null;
});

export const fail = queryGeneric(async () => {
  console.log("before");
  throw new Error("it broke");
});

export const refuse = queryGeneric(async () => {
  throw new ConvexError({ count: 5n, reason: "no" });
});

export const refuseNull = queryGeneric(async () => {
  throw new ConvexError(null);
});

export const hidden = internalQueryGeneric(async () => "seen by admins");

/** Busy for a while, then writes: what a server that stops must still answer. */
export const slowWrite = mutationGeneric(async (ctx, { rounds }: { rounds: number }) => {
  let sum = 0;
  for (let i = 0; i < rounds; i++) sum = (sum + i) % 1000003;
  await ctx.db.insert("slow", { sum });
  return sum;
});

export const slowCount = queryGeneric(async (ctx) => (await ctx.db.query("slow").collect()).length);

export const addresses = queryGeneric(async () => [process.env.CONVEX_CLOUD_URL, process.env.CONVEX_SITE_URL]);

/** Calls a query and sleeps, at once. */
export const act = actionGeneric(async (ctx, { text }: any) => {
  console.log("acting");
  const slept = new Promise((resolve) => setTimeout(() => resolve("slept"), 1));
  return await Promise.all([ctx.runQuery(anyApi.probe.echo, { text }), slept]);
});

export const actAndFail = actionGeneric(async (ctx) => await ctx.runQuery(anyApi.probe.refuse, {}));

export const fetchText = actionGeneric(async (_ctx, { url, init }: any) => {
  const response = await fetch(url, init);
  return { status: response.status, redirected: response.redirected, text: await response.text() };
});

/** Fetches, then counts: its caller may have left. */
export const fetchThenCount = actionGeneric(async (ctx, { url }: any) => {
  await (await fetch(url)).text();
  await ctx.runMutation(anyApi.messages.send, { channel: "left", author: "Ada", body: "done" });
});

/** Counts messages, and takes its time: longer than what may run between two requests. */
export const busyCount = queryGeneric(async (ctx, { channel, rounds }: { channel: string; rounds: number }) => {
  const found = await ctx.db.query("messages").collect();
  let sum = 0;
  for (let i = 0; i < rounds; i++) sum = (sum + i) % 1000003;
  return found.filter((message) => message.channel === channel).length + (sum < 0 ? 1 : 0);
});
