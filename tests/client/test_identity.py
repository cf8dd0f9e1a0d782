"""Users of a real identity provider, brought by the npm package's own clients, against a real server."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.node_suite import run_suite
from tests.http.apps import build
from tests.http.serving import RunningServer, serve
from tests.identity import signing
from tests.identity.oidc_server import CLIENT, OidcServer, running_provider

SCRIPT = Path(__file__).parent / "identity_client.mjs"
FUNCTIONS = """
import { query, mutation, action, internalQuery, internalMutation, internalAction } from "./_generated/server";
import { internal } from "./_generated/api";

export const am = query({ args: {}, handler: (ctx) => ctx.auth.getUserIdentity() });
export const amInMutation = mutation({
  args: {},
  handler: async (ctx) => [await ctx.auth.getUserIdentity(), await ctx.runQuery(internal.who.inner, {})],
});
export const amInAction = action({
  args: {},
  handler: async (ctx): Promise<any> => [
    await ctx.auth.getUserIdentity(),
    await ctx.runQuery(internal.who.inner, {}),
    await ctx.runMutation(internal.who.innerMutation, {}),
    await ctx.runAction(internal.who.innerAction, {}),
  ],
});
export const inner = internalQuery({ args: {}, handler: (ctx) => ctx.auth.getUserIdentity() });
export const innerMutation = internalMutation({ args: {}, handler: (ctx) => ctx.auth.getUserIdentity() });
export const innerAction = internalAction({ args: {}, handler: (ctx) => ctx.auth.getUserIdentity() });
"""
GENERATED = {
    "server.js": "export * from 'convex/server';\n"
    "export { queryGeneric as query, mutationGeneric as mutation, actionGeneric as action,\n"
    "  internalQueryGeneric as internalQuery, internalMutationGeneric as internalMutation,\n"
    "  internalActionGeneric as internalAction } from 'convex/server';\n",
    "api.js": "import { anyApi } from 'convex/server';\nexport const api = anyApi;\nexport const internal = anyApi;\n",
}


def make_app(folder: Path, provider: OidcServer) -> Path:
    """An app that trusts the provider, and one whose keys are in its config."""
    keys = signing.data_uri(signing.jwks(signing.public_jwk("ES256")))
    config = f"""
const custom = {{ type: "customJwt", issuer: "https://custom.example.com", jwks: "{keys}", algorithm: "ES256" }};
export default {{ providers: [{{ domain: "{provider.domain}", applicationID: "{CLIENT}" }}, custom] }};
"""
    generated = folder / "convex" / "_generated"
    generated.mkdir(parents=True)
    for name, text in GENERATED.items():
        (generated / name).write_text(text)
    (folder / "package.json").write_text('{"name": "who", "dependencies": {"convex": "1.48.0"}}')
    (folder / "convex" / "who.ts").write_text(FUNCTIONS)
    (folder / "convex" / "auth.config.ts").write_text(config)
    return folder


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcServer]:
    with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
def trusting(provider: OidcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("trusting")
    bundle = build(make_app(folder / "app", provider), folder / "app.skerry")
    with serve(folder / "data", "--allow-egress", provider.allowed) as running:
        answer = running.deploy(bundle.read_bytes())
        assert answer.status == 200, answer
        yield running


def test_the_npm_clients_with_users(trusting: RunningServer, provider: OidcServer, tmp_path: Path) -> None:
    about_ada = {
        "name": "Ada", "given_name": "Augusta", "email": "ada@example.com", "email_verified": True,
        "updated_at": 1_700_000_000, "address": {"formatted": "London"}, "roles": ["author"], "org": {"id": 5},
    }  # fmt: skip
    custom = signing.claims(
        time.time(), iss="https://custom.example.com", sub="carl", aud=None, given_name="Carl",
        nested={"role": "admin"}, jti="1",
    )  # fmt: skip
    run_suite(
        SCRIPT,
        trusting,
        tmp_path,
        ISSUER=provider.domain,
        ADA=provider.sign_in("ada", about_ada),
        ADA_AGAIN=provider.sign_in("ada", about_ada),
        EVE=provider.sign_in("eve", {"name": "Eve"}),
        CUSTOM=signing.sign(custom, "ES256").decode(),
        OTHER_AUDIENCE=signing.sign(signing.claims(time.time()), "ES256").decode(),
    )
