"""The auth config of an app: part of its version, judged where it is deployed, in force with it."""

import asyncio
from pathlib import Path

import pytest

from skerry.bundle.build import build_app
from skerry.bundle.bundle_file import Bundle
from skerry.errors import ClientError
from skerry.isolate import ModuleCache, build_runner_at, get_engine
from tests.bundle.apps import CLOCK_MS, SERVER, write_app
from tests.fixtures.world import World, request

PARTS = {
    "package.json": '{"dependencies": {"convex": "1"}}',
    "convex/server.ts": SERVER,
    "convex/names.ts": "export const audience = (name: string) => `${name}-${process.env.AUDIENCE}`;",
    "convex/who.ts": """
        import { query, mutation } from "./server";
        export const am = query({ handler: (ctx: any) => ctx.auth.getUserIdentity() });
        export const asks = mutation({ handler: async (ctx: any) => { await ctx.runQuery("who:am" as any, {}); } });
        export const isNot = query({ handler: async () => process.env.AUTH_DOMAIN });
    """,
}
READS_ENVIRONMENT = """
    import { audience } from "./names";
    const domain = `https://${process.env.AUTH_DOMAIN ?? "nowhere.example.com"}/`;
    export default { providers: [{ domain, applicationID: audience("app") }] };
"""
ENVIRONMENT = {"AUTH_DOMAIN": "a.example.com", "AUDIENCE": "one"}
IN_FORCE = ["OIDC(domain=https://a.example.com, app_id=app-one)"]


def build(folder: Path, config: str | None) -> Bundle:
    parts = PARTS if config is None else {**PARTS, "convex/auth.config.ts": config}
    cache = ModuleCache(get_engine(), None, b"key")
    return build_app(write_app(folder, parts), clock_ms=CLOCK_MS, instantiate_at=build_runner_at(cache))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    configs = {"reads": READS_ENVIRONMENT, "wrong": "export default { providers: [{ domain: 5 }] };", "none": None}
    folder = tmp_path_factory.mktemp("apps")
    return {name: build(folder / name, config).to_bytes() for name, config in configs.items()}


def in_force(world: World) -> list[str]:
    return [str(provider) for provider in world.deployment.authority.providers]


def test_providers_come_and_go_with_the_version_and_stay_over_a_restart(
    bundles: dict[str, bytes], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with World(data, tmp_path, environment=ENVIRONMENT) as world:
        assert in_force(world) == []
        world.activate(bundles["reads"])
        assert in_force(world) == IN_FORCE
        with pytest.raises(ClientError) as caught:
            world.activate(bundles["wrong"])
        assert caught.value.code == "InvalidAuthConfig" and "providers[0].domain" in caught.value.message
        assert in_force(world) == IN_FORCE, "what was refused changes nothing"
    with World(data, tmp_path, environment=ENVIRONMENT) as world:
        assert in_force(world) == IN_FORCE
        assert world.call("query", "who:isNot").value == b'"a.example.com"', "functions see the value"
        world.activate(bundles["none"])
        assert in_force(world) == []
    with World(data, tmp_path, environment={**ENVIRONMENT, "AUDIENCE": "two"}) as world:
        world.activate(bundles["reads"])
        assert in_force(world) == [IN_FORCE[0].replace("app-one", "app-two")]


def test_a_variable_that_is_not_set_refuses_the_deploy(
    bundles: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    with World(data, tmp_path) as world:
        with pytest.raises(ClientError) as caught:
            world.activate(bundles["reads"])
        assert caught.value.code == "AuthConfigMissingEnvironmentVariable"
        assert "Environment variable AUTH_DOMAIN is used in auth config" in caught.value.message
        assert world.deployment.version is None
    with World(data, tmp_path, environment=ENVIRONMENT) as world:
        world.activate(bundles["reads"])
    with World(data, tmp_path) as world:  # it was set once: the app runs on, and nobody can sign in
        assert world.call("query", "who:am").ok and in_force(world) == []
    assert "nobody can authenticate" in caplog.text


def test_a_config_without_a_default_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError) as caught:
        build(tmp_path / "app", "export const providers = [];")
    assert caught.value.code == "ModuleLoadFailed" and "auth.config must have a default export" in caught.value.message


def test_a_call_says_whether_it_asked_who_the_caller_is(bundles: dict[str, bytes], tmp_path: Path) -> None:
    with World(tmp_path / "data", tmp_path, environment=ENVIRONMENT) as world:
        world.activate(bundles["reads"])
        assert world.call("query", "who:am", identity={"subject": "ada"}).value == b'{"subject":"ada"}'
        for kind, path, used in [
            ("query", "who:am", True),
            ("query", "who:isNot", False),
            ("mutation", "who:asks", True),
        ]:
            asked = request(kind, path)
            asked.wants_reads = True
            result = world.wait(world.deployment.run(asked))
            assert (result.ok, result.has_read_identity) == (True, used), path


def test_a_token_of_nobody_is_refused_by_the_version_in_force(bundles: dict[str, bytes], tmp_path: Path) -> None:
    with World(tmp_path / "data", tmp_path, environment=ENVIRONMENT) as world:
        world.activate(bundles["reads"])
        told: asyncio.Future[object] = world.loop.create_future()
        world.deployment.authority.verify(b"e30.e30.AAAA", told.set_result)
        outcome = told.result()
        assert isinstance(outcome, ClientError) and outcome.code == "InvalidAuthHeader"
