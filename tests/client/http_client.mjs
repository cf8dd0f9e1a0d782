// The npm package's own ConvexHttpClient against a real server, as an app would use it. SKERRY_URL and SKERRY_KEY name it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConvexHttpClient } from "convex/browser";
import { anyApi } from "convex/server";
import { ConvexError } from "convex/values";

const url = process.env.SKERRY_URL;
const api = anyApi;
const connect = () => new ConvexHttpClient(url, { logger: false });

test("a mutation is seen by the query after it", async () => {
  const client = connect();
  const id = await client.mutation(api.messages.send, { channel: "client", author: "Ada", body: "hello" });
  const listed = await client.query(api.messages.list, { channel: "client" });
  assert.equal(listed.length, 1);
  assert.equal(listed[0]._id, id);
  assert.equal(listed[0].body, "hello");
  assert.equal(typeof listed[0]._creationTime, "number");
});

test("mutations of one client run in order", async () => {
  const client = connect();
  const sends = [...Array(10).keys()].map((n) =>
    client.mutation(api.messages.send, { channel: "order", author: "Ada", body: String(n) }),
  );
  await Promise.all(sends);
  const listed = await client.query(api.messages.list, { channel: "order" });
  assert.deepEqual(
    listed.map((message) => Number(message.body)),
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
  );
});

test("an action calls functions and waits", async () => {
  assert.deepEqual(await connect().action(api.probe.act, { text: "hi" }), [{ text: "hi" }, "slept"]);
});

test("the data of an error comes through an action", async () => {
  await assert.rejects(connect().action(api.probe.actAndFail, {}), (error) => {
    assert.ok(error instanceof ConvexError);
    assert.deepEqual(error.data, { count: 5n, reason: "no" });
    return true;
  });
});

test("every kind of value comes back as it was sent", async () => {
  const sent = {
    array: [1, [2, [3]], {}],
    bytes: new Uint8Array([0, 1, 255]).buffer,
    false: false,
    float: 1.5,
    infinity: Infinity,
    int: -9223372036854775808n,
    large: 2 ** 60,
    minusZero: -0,
    nan: NaN,
    null: null,
    text: "ünï\u0000cöde 🦭",
  };
  const received = await connect().query(api.probe.echo, sent);
  assert.deepEqual(received, sent);
  assert.ok(Object.is(received.minusZero, -0));
});

test("values that need tags arrive as their own types", async () => {
  const received = await connect().query(api.probe.special, {});
  assert.equal(received.int, 9007199254740993n);
  assert.ok(Number.isNaN(received.nan));
  assert.deepEqual(new Uint8Array(received.bytes), new Uint8Array([0, 1, 255]));
});

test("an error of a function rejects with its message", async () => {
  await assert.rejects(connect().query(api.probe.fail, {}), (error) => {
    assert.ok(!(error instanceof ConvexError));
    assert.match(error.message, /^\[Request ID: [0-9a-f]{16}\] Server Error\nUncaught Error: it broke\n/);
    return true;
  });
});

test("a ConvexError arrives with its data", async () => {
  await assert.rejects(connect().query(api.probe.refuse, {}), (error) => {
    assert.ok(error instanceof ConvexError);
    assert.deepEqual(error.data, { count: 5n, reason: "no" });
    return true;
  });
  await assert.rejects(connect().query(api.probe.refuseNull, {}), (error) => {
    assert.ok(error instanceof ConvexError);
    assert.equal(error.data, null);
    return true;
  });
});

test("arguments that do not validate reject", async () => {
  await assert.rejects(connect().query(api.probe.greet, { user: { name: 1 } }), /ArgumentValidationError/);
});

test("missing and internal functions look the same", async () => {
  for (const name of ["nope", "hidden"]) {
    await assert.rejects(connect().query(api.probe[name], {}), new RegExp(`Could not find public function for 'probe:${name}'`));
  }
});

test("an admin calls internal functions", async () => {
  const client = connect();
  client.setAdminAuth(process.env.SKERRY_KEY);
  assert.equal(await client.query(api.probe.hidden, {}), "seen by admins");
  client.setAdminAuth(process.env.SKERRY_KEY, { subject: "someone", issuer: "https://example.com" });
  assert.equal(await client.query(api.probe.hidden, {}), "seen by admins");
});

test("a wrong admin key and a token are refused before anything runs", async () => {
  const client = connect();
  client.setAdminAuth("local|wrong");
  await assert.rejects(client.query(api.probe.echo, {}), /BadAdminKey/);
  client.setAuth("a.b.c");
  await assert.rejects(client.query(api.probe.echo, {}), /InvalidAuthHeader/);
});

test("a mutation that is skipped ahead of the queue is applied too", async () => {
  const client = connect();
  await client.mutation(api.messages.send, { channel: "skip", author: "Ada", body: "now" }, { skipQueue: true });
  assert.equal((await client.query(api.messages.list, { channel: "skip" })).length, 1);
});

test("consistent queries of one client read one state", async () => {
  const client = connect();
  const send = (body) => client.mutation(api.messages.send, { channel: "consistent", author: "Ada", body });
  const listed = async (ask) => (await ask(api.messages.list, { channel: "consistent" })).map((message) => message.body);
  await send("one");
  assert.deepEqual(await listed(client.consistentQuery.bind(client)), ["one"]);
  await send("two");
  assert.deepEqual(await listed(client.consistentQuery.bind(client)), ["one"]);
  assert.deepEqual(await listed(client.query.bind(client)), ["two", "one"]);
  assert.deepEqual(await listed((...call) => connect().consistentQuery(...call)), ["two", "one"]);
});
