"""`skerry deployments`, `keys`, `versions` and `rollback` against a server that runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.serving import RunningServer, serve, skerry


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, str]]:
    data = tmp_path_factory.mktemp("cli") / "data"
    with serve(data) as running:
        yield running, (data / "host.credential").read_text().strip()


def test_from_nothing_to_a_rollback_and_back_to_nothing(served: tuple[RunningServer, str], app_bundle: Path) -> None:
    running, credential = served
    host = {"SKERRY_HOST_CREDENTIAL": credential, "CONVEX_SELF_HOSTED_URL": running.url}
    made = skerry("deployments", "create", "blog", "--json", **host)
    assert made.returncode == 0, made.stderr
    own = {"CONVEX_SELF_HOSTED_URL": json.loads(made.stdout)["url"]}
    assert own["CONVEX_SELF_HOSTED_URL"] == f"{running.url}/d/blog"
    admin = {**own, "CONVEX_SELF_HOSTED_ADMIN_KEY": json.loads(made.stdout)["adminKey"]}
    created = skerry("keys", "create", "--scope", "deploy", "--label", "ci", "--days", "1", "--json", **admin)
    assert created.returncode == 0, created.stderr
    key = json.loads(created.stdout)
    deploying = {**own, "CONVEX_SELF_HOSTED_ADMIN_KEY": key["key"]}
    assert skerry("deploy", app_bundle, **deploying).returncode == 0
    assert skerry("run", "probe:echo", **own).stdout == "{}\n"
    named = {"CONVEX_SELF_HOSTED_URL": running.url.replace("127.0.0.1", "blog.localhost")}
    assert skerry("run", "probe:echo", **named).stdout == "{}\n", "whether or not this machine resolves the name"
    version = json.loads(skerry("versions", "--json", **deploying).stdout)["versions"][0]["version"]
    assert version[:16] in skerry("versions", **deploying).stdout
    assert skerry("rollback", version[:10], **deploying).returncode == 0
    none = skerry("rollback", "--json", **deploying)
    assert (none.returncode, json.loads(none.stdout)["error"]["code"]) == (1, "VersionNotFound")
    listed = skerry("keys", "list", "--deployment", "blog", **host)
    assert key["id"] in listed.stdout and "deploy" in listed.stdout and "ci" in listed.stdout
    assert key["key"] not in listed.stdout
    refused = skerry("keys", "list", "--json", **deploying)
    assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (3, "KeyNotAllowed")
    assert skerry("keys", "revoke", key["id"], **admin).returncode == 0
    assert skerry("versions", **deploying).returncode == 3
    assert "paused" in skerry("deployments", "pause", "blog", **host).stdout
    assert "active" in skerry("deployments", "resume", "blog", **host).stdout
    assert "blog" in skerry("deployments", "list", **host).stdout
    assert skerry("deployments", "delete", "blog", "--yes", **host).returncode == 0
    assert "blog" not in skerry("deployments", "list", **host).stdout


@pytest.mark.parametrize(
    "arguments",
    [["deployments", "create"], ["keys", "create"], ["keys", "revoke"], ["deployments", "explode"]],
)
def test_what_is_no_command(served: tuple[RunningServer, str], arguments: list[str]) -> None:
    running, credential = served
    keys = {"SKERRY_HOST_CREDENTIAL": credential, "CONVEX_SELF_HOSTED_ADMIN_KEY": running.admin_key}
    assert skerry(*arguments, "--url", running.url, **keys).returncode == 2


def test_operating_needs_the_credential(served: tuple[RunningServer, str]) -> None:
    running, credential = served
    for given, code in ([], "HostCredentialMissing"), (["--host-credential", credential + "x"], "BadHostCredential"):
        done = skerry("deployments", "list", "--url", running.url, *given, "--json")
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (3, code)


def test_a_domain_that_is_none(tmp_path: Path) -> None:
    done = skerry("serve", "--data", tmp_path / "data", "--port", "0", "--site-port", "0", "--domain", "http://a")
    assert done.returncode == 2
    assert "no domain name" in done.stderr
