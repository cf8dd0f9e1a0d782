// Users, as the npm package's own clients bring them: ConvexHttpClient.setAuth and ConvexClient.setAuth.
// SKERRY_URL and SKERRY_KEY name the server; the tokens come from a real identity provider (ADA, EVE), or were signed for
// the tests (CUSTOM; OTHER_AUDIENCE, which nobody asked for).
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi } from "convex/server";

const { SKERRY_URL: url, SKERRY_KEY: key, ADA, ADA_AGAIN, EVE, CUSTOM, OTHER_AUDIENCE, ISSUER } = process.env;
const api = anyApi;

const connect = (token) => {
  const client = new ConvexHttpClient(url, { logger: false });
  if (token) client.setAuth(token);
  return client;
};

const watch = (client, query) => {
  const results = [];
  const waiting = [];
  client.onUpdate(query, {}, (value) => (waiting.length ? waiting.shift()(value) : results.push(value)));
  return () => (results.length ? Promise.resolve(results.shift()) : new Promise((go) => waiting.push(go)));
};

const ada = {
  tokenIdentifier: `${ISSUER}|ada`,
  issuer: ISSUER,
  subject: "ada",
  name: "Ada",
  givenName: "Augusta",
  email: "ada@example.com",
  emailVerified: true,
  updatedAt: "2023-11-14T22:13:20+00:00",
  address: "London",
  roles: ["author"],
  "org.id": 5,
};

test("queries, mutations and actions see the user, and so does what they call", async () => {
  const client = connect(ADA);
  assert.deepEqual(await client.query(api.who.am, {}), ada);
  assert.deepEqual(await client.mutation(api.who.amInMutation, {}), [ada, ada]);
  assert.deepEqual(await client.action(api.who.amInAction, {}), [ada, ada, ada, ada]);
  assert.equal(await connect().query(api.who.am, {}), null);
  assert.deepEqual(await connect().action(api.who.amInAction, {}), [null, null, null, null]);
});

test("claims of a custom token keep their names", async () => {
  assert.deepEqual(await connect(CUSTOM).query(api.who.am, {}), {
    tokenIdentifier: "https://custom.example.com|carl",
    issuer: "https://custom.example.com",
    subject: "carl",
    given_name: "Carl",
    "nested.role": "admin",
    jti: "1",
  });
});

test("a token that nobody vouches for is refused before anything runs", async () => {
  await assert.rejects(connect(OTHER_AUDIENCE).query(api.who.am, {}), /NoAuthProvider/);
  await assert.rejects(connect(ADA.slice(0, -8) + "AAAAAAAA").mutation(api.who.amInMutation, {}), /Unauthenticated/);
  await assert.rejects(connect(CUSTOM.slice(0, -8) + "AAAAAAAA").query(api.who.am, {}), /InvalidAuthHeader.*Could not decode token/);
});

test("an admin acts as a user", async () => {
  const client = connect();
  client.setAdminAuth(key, { issuer: "abc", subject: "def" });
  assert.deepEqual(await client.query(api.who.am, {}), { tokenIdentifier: "abc|def", issuer: "abc", subject: "def" });
});

test("a live query follows its user through sign-in and to another user", async () => {
  const client = new ConvexClient(url, { logger: false });
  const next = watch(client, api.who.am);
  assert.equal(await next(), null);
  const states = [];
  let stated;
  const signedIn = new Promise((go) => (stated = go));
  const asked = [];
  client.setAuth(
    async ({ forceRefreshToken }) => {
      asked.push(forceRefreshToken);
      return forceRefreshToken ? ADA_AGAIN : ADA;
    },
    (isAuthenticated) => {
      states.push(isAuthenticated);
      if (isAuthenticated) stated();
    },
  );
  assert.deepEqual(await next(), ada);
  await signedIn;
  assert.deepEqual(await client.mutation(api.who.amInMutation, {}), [ada, ada]);
  assert.deepEqual(await client.action(api.who.amInAction, {}), [ada, ada, ada, ada]);
  assert.equal(states.at(-1), true);
  assert.deepEqual(asked.slice(0, 2), [false, true]);
  assert.ok(asked.length <= 3, `no loop: ${asked}`);
  client.setAuth(async () => EVE);
  assert.equal((await next()).subject, "eve");
  await client.close();
});

test("a client whose tokens are refused hears that it is nobody, and goes on without", async () => {
  const client = new ConvexClient(url, { logger: false });
  let asked = 0;
  const refused = new Promise((go) =>
    client.setAuth(
      async () => {
        asked += 1;
        return OTHER_AUDIENCE;
      },
      (isAuthenticated) => !isAuthenticated && go(),
    ),
  );
  await refused;
  assert.equal(await watch(client, api.who.am)(), null);
  assert.ok(asked <= 4, `no loop: ${asked}`);
  await client.close();
});

test("an admin acts as a user over a socket", async () => {
  const client = new ConvexClient(url, { logger: false });
  client.client.setAdminAuth(key, { issuer: "i", subject: "s", name: "N" });
  assert.deepEqual(await watch(client, api.who.am)(), { issuer: "i", subject: "s", name: "N", tokenIdentifier: "i|s" });
  await client.close();
});

test("what was asked as a user is kept apart from the same of another user", async () => {
  const [one, other] = [new ConvexClient(url, { logger: false }), new ConvexClient(url, { logger: false })];
  one.setAuth(async () => ADA);
  other.setAuth(async () => EVE);
  const until = async (next, subject) => {
    for (;;) if ((await next())?.subject === subject) return;
  };
  await Promise.all([until(watch(one, api.who.am), "ada"), until(watch(other, api.who.am), "eve")]);
  await Promise.all([one.close(), other.close()]);
});
