// The npm package's own ConvexClient, which watches queries over a WebSocket, against a real server.
// SKERRY_URL and SKERRY_KEY name it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi } from "convex/server";
import { ConvexError } from "convex/values";

const url = process.env.SKERRY_URL;
const api = anyApi;

/** Watches a query and gives each result in turn. */
function watch(client, query, args) {
  const results = [];
  const waiting = [];
  const give = (result) => (waiting.length ? waiting.shift()(result) : results.push(result));
  const stop = client.onUpdate(query, args, (value) => give({ value }), (error) => give({ error }));
  return { next: () => (results.length ? Promise.resolve(results.shift()) : new Promise((go) => waiting.push(go))), results, stop };
}

async function using(run, count = 1) {
  const clients = [...Array(count)].map(() => new ConvexClient(url, { logger: false }));
  try {
    return await run(...clients);
  } finally {
    for (const client of clients) await client.close();
  }
}

const bodies = ({ value }) => value.map((message) => message.body);

test("a query is watched, and its own mutation has arrived when it resolves", () =>
  using(async (client) => {
    const live = watch(client, api.messages.list, { channel: "live" });
    assert.deepEqual(bodies(await live.next()), []);
    await client.mutation(api.messages.send, { channel: "live", author: "Ada", body: "one" });
    assert.deepEqual(bodies(await live.next()), ["one"]);
    await client.mutation(api.messages.send, { channel: "live", author: "Ada", body: "two" });
    assert.deepEqual(bodies(await live.next()), ["two", "one"]);
  }));

test("what one client writes, another sees; so does what came over HTTP", () =>
  using(async (writer, reader) => {
    const live = watch(reader, api.messages.list, { channel: "shared" });
    await live.next();
    await writer.mutation(api.messages.send, { channel: "shared", author: "Ada", body: "socket" });
    assert.deepEqual(bodies(await live.next()), ["socket"]);
    await new ConvexHttpClient(url).mutation(api.messages.send, { channel: "shared", author: "Ada", body: "http" });
    assert.deepEqual(bodies(await live.next()), ["http", "socket"]);
  }, 2));

test("what is written elsewhere is not heard of", () =>
  using(async (client) => {
    const quiet = watch(client, api.messages.list, { channel: "quiet" });
    const loud = watch(client, api.messages.list, { channel: "loud" });
    await quiet.next();
    await loud.next();
    await client.mutation(api.messages.send, { channel: "loud", author: "Ada", body: "x" });
    assert.deepEqual(bodies(await loud.next()), ["x"]);
    assert.deepEqual(quiet.results, []);
  }));

test("mutations run in the order in which they were sent", () =>
  using(async (client) => {
    const sends = [...Array(20).keys()].map((n) =>
      client.mutation(api.messages.send, { channel: "ordered", author: "Ada", body: String(n) }),
    );
    await Promise.all(sends);
    const listed = await client.query(api.messages.list, { channel: "ordered" });
    assert.deepEqual(listed.map((message) => Number(message.body)), [...Array(20).keys()].reverse());
  }));

test("failures arrive with their messages and data", () =>
  using(async (client) => {
    const failing = watch(client, api.probe.fail, {});
    assert.match((await failing.next()).error.message, /Server Error\nUncaught Error: it broke/);
    const refusing = watch(client, api.probe.refuse, {});
    const { error } = await refusing.next();
    assert.ok(error instanceof ConvexError);
    assert.deepEqual(error.data, { count: 5n, reason: "no" });
    const missing = watch(client, api.messages.nothing, {});
    assert.match((await missing.next()).error.message, /Could not find public function for 'messages:nothing'/);
    await assert.rejects(client.mutation(api.messages.list, { channel: "x" }), /Trying to execute/);
  }));

test("an action runs beside", () =>
  using(async (client) => {
    assert.deepEqual(await client.action(api.probe.act, { text: "hi" }), [{ text: "hi" }, "slept"]);
    await assert.rejects(client.action(api.probe.actAndFail, {}), (error) => error instanceof ConvexError);
  }));

test("one query for several watchers, until the last has left", () =>
  using(async (client) => {
    const first = watch(client, api.messages.list, { channel: "twice" });
    const second = watch(client, api.messages.list, { channel: "twice" });
    await first.next();
    await second.next();
    first.stop();
    await client.mutation(api.messages.send, { channel: "twice", author: "Ada", body: "x" });
    assert.deepEqual(bodies(await second.next()), ["x"]);
    assert.deepEqual(first.results, []);
  }));

test("values of every kind come back as they were sent", () =>
  using(async (client) => {
    const sent = { array: [1, [2]], bytes: new Uint8Array([0, 1, 255]).buffer, int: -5n, minusZero: -0, nan: NaN, text: "ü 🦭" };
    const { value } = await watch(client, api.probe.echo, sent).next();
    assert.deepEqual(value, sent);
  }));

test("a transition that goes in pieces is put together", () =>
  using(async (client) => {
    const text = 'é😀"\\'.repeat(700_000);
    const live = watch(client, api.probe.echo, { text });
    assert.deepEqual((await live.next()).value, { text });
    const after = watch(client, api.probe.echo, { n: 1 });
    assert.deepEqual((await after.next()).value, { n: 1 });
  }));
