"""Apps that declare what is not served yet build and deploy; only using it fails, and says so."""

from pathlib import Path

import pytest

from skerry.bundle.build import build_app
from skerry.bundle.bundle_file import Bundle, read_bundle
from skerry.bundle.manifest import node_modules_of
from skerry.isolate import ModuleCache, build_runner_at, get_engine
from tests.bundle.apps import CLOCK_MS, SERVER, write_app
from tests.fixtures.world import World

APP = {
    "package.json": '{"dependencies": {"convex": "1"}}',
    "convex/server.ts": SERVER,
    "convex/mail.ts": '"use node";\nimport fs from "node:fs";\nexport const send = fs.readFileSync;',
    "convex/auth.config.ts": 'export default { providers: [{ domain: "https://a.example.com", applicationID: "a" }] };',
    "convex/crons.ts": """
        import { cronJobs, makeFunctionReference } from "convex/server";
        const crons = cronJobs();
        crons.interval("tick", { minutes: 1 }, makeFunctionReference("jobs:run") as any);
        export default crons;
    """,
    "convex/http.ts": """
        import { httpRouter, httpActionGeneric } from "convex/server";
        const http = httpRouter();
        http.route({ path: "/a", method: "GET", handler: httpActionGeneric(async () => new Response("a")) });
        export default http;
    """,
    "convex/jobs.ts": """
        import { mutation, query } from "./server";
        export const run = mutation({ handler: async () => "ran" });
        export const file = mutation({ handler: async (ctx: any) => ctx.storage.generateUploadUrl() });
        export const url = query({ handler: async () => process.env.AUTH_DOMAIN ?? "unset" });
    """,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = write_app(tmp_path_factory.mktemp("app"), APP)
    cache = ModuleCache(get_engine(), None, b"key")
    return build_app(folder, clock_ms=CLOCK_MS, instantiate_at=build_runner_at(cache))


def test_the_bundle_names_what_it_declares(bundle: Bundle) -> None:
    assert node_modules_of(read_bundle(bundle.to_bytes()).manifest.features) == ("mail",)
    assert {"crons", "http", "auth"} <= set(bundle.manifest.features)


def test_only_using_it_fails(bundle: Bundle, tmp_path: Path) -> None:
    world = World(tmp_path / "data", None)
    try:
        world.activate(bundle.to_bytes())
        assert world.mutation("jobs:run") == "ran"
        assert world.query("jobs:url") == "unset"
        assert "file storage is not served yet" in world.failure("mutation", "jobs:file").lower()
        assert '"use node" module' in world.failure("action", "mail:send")
    finally:
        world.close()
