"""Several deployments on one server: how they are addressed, who may do what, and how an operator manages them."""

import http.client
import json
import socket
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from skerry.admin.access import RIGHTS, Right, Scope
from skerry.bundle.bundle_file import read_bundle, sources_of
from skerry.errors import ClientError
from skerry.http.addresses import Addresses, authority_of, check_domain, origin_for, split_prefix
from skerry.http.routes import CALL_ROUTES, DEPLOYMENT_ROUTES, HOST_ROUTES
from skerry.limits import HOST_BODY_BYTES_MAX, HTTP_HOST_BYTES_MAX, HTTP_HOSTS_REMEMBERED_MAX
from tests.http.serving import Answer, RunningServer, serve

Keys = dict[str, str]
QUERY = '{"path": "probe:echo", "args": {}}'


class Hosting:
    """A server with the deployments `one` and `two`, and the keys of each by scope."""

    def __init__(self, running: RunningServer, credential: str) -> None:
        self.running = running
        self.credential = credential
        self.keys: dict[str, Keys] = {}

    def operate(self, method: str, path: str, fields: Any = None, *, key: str | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {key or self.credential}"}
        return self.running.ask(method, path, None if fields is None else json.dumps(fields), headers)

    def ask(
        self, name: str, method: str, path: str, body: str | bytes | None = None, key: str | None = None, **more: Any
    ) -> Answer:
        headers = {"Host": f"{name}.localhost:1", **({"Authorization": f"Convex {key}"} if key else {})}
        return self.running.ask(method, path, body, {**headers, **more.pop("headers", {})}, **more)

    def deploy(self, name: str, raw: bytes, key: str, digest: str | None = None) -> Answer:
        stated = digest or b64encode(sha256(raw).digest()).decode()
        headers = {"Content-Digest": f"sha-256=:{stated}:"}
        return self.ask(name, "POST", "/api/skerry/deploy", raw, key, headers=headers)


@pytest.fixture(scope="module")
def hosting(app_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    data = tmp_path_factory.mktemp("hosting") / "data"
    with serve(data, "--domain", "Example.ORG") as running:
        made = Hosting(running, (data / "host.credential").read_text().strip())
        for name in ("one", "two"):
            created = made.operate("POST", "/host/deployments", {"name": name})
            assert created.status == 200, created
            made.keys[name] = {"admin": created.json()["adminKey"]}
            for scope in ("read", "deploy"):
                answer = made.operate("POST", f"/host/deployments/{name}/keys", {"scope": scope, "label": scope})
                made.keys[name][scope] = answer.json()["key"]
        deployed = made.deploy("one", app_bundle.read_bytes(), made.keys["one"]["deploy"])
        assert deployed.status == 200, deployed
        yield made


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (None, None),
        (b"", None),
        (b"127.0.0.1:3210", None),
        (b"[::1]:3210", None),
        (b"[::1]", None),
        (b"localhost", None),
        (b"example.org", None),
        (b"elsewhere.net", None),
        (b"notexample.org", None),
        (b"one.localhost", "one"),
        (b"one.localhost:3210", "one"),
        (b"one.localhost:", "one"),
        (b"one.localhost.", "one"),
        (b"one.localhost.:80", "one"),
        (b"ONE.LocalHost", "one"),
        (b"one.example.org", "one"),
        (b"a.one.example.org", "a.one"),
        (b"one.example.org.evil.net", None),
        (b"a" * (HTTP_HOST_BYTES_MAX - 10) + b".localhost", "a" * (HTTP_HOST_BYTES_MAX - 10)),
    ],
)
def test_what_a_host_header_means(host: bytes | None, name: str | None) -> None:
    assert Addresses("example.org").name_of(host) == name


@pytest.mark.parametrize(
    "host",
    [
        b"a" * (HTTP_HOST_BYTES_MAX - 9) + b".localhost",
        b"one.localhost:123456",
        b"one.localhost:80:80",
        b"one.localhost, two.localhost",
        b"one.localhost/",
        b"user@one.localhost",
        b"one..localhost",
        b".localhost",
        b"one.localhost..",
        b"one\x00.localhost",
        b"one .localhost",
        b"\xc3\xa9.localhost",
        b"[one].localhost",
        b"[::1",
        b"%6fne.localhost",
        b":80",
    ],
)
def test_what_is_no_host(host: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        Addresses(None).name_of(host)
    assert caught.value.code == "HostHeaderInvalid"


def test_what_is_remembered_is_bounded() -> None:
    addresses = Addresses(None)
    for number in range(HTTP_HOSTS_REMEMBERED_MAX + 1):
        assert addresses.name_of(b"d%d.localhost" % number) == f"d{number}"
    assert len(addresses._known) == 1


def test_pieces_of_addresses() -> None:
    assert split_prefix("/api/query") is None
    assert split_prefix("/d/one/api/query") == ("one", "/api/query")
    for path in ("/d/", "/d/one", "/d//api/x", "/d/one/", "/d/one/version", "/d/one/host/deployments", "/d/one/apiary"):
        with pytest.raises(ClientError):
            split_prefix(path)
    assert authority_of(b"/api/query") is None
    assert authority_of(b"http://one.localhost:1/api/query?a") == b"one.localhost:1"
    assert authority_of(b"HTTPS://u@h") == b"u@h"
    assert origin_for("one", "https://api.example.org:8443", "example.org") == "https://one.example.org:8443"
    assert origin_for("one", "http://[::1]:3210", None) == "http://one.localhost:3210"
    assert check_domain("Example.ORG.") == "example.org"
    for domain in ("", ".", "a b", "http://a", "1.2.3.4", "-a", "a" * 300, "a:80"):
        with pytest.raises(ValueError, match="no domain"):
            check_domain(domain)


def test_each_address_reaches_its_deployment(hosting: Hosting) -> None:
    for host, name in (("one.localhost", "one"), ("TWO.example.org.:80", "two"), ("example.org", "local")):
        assert hosting.running.ask("GET", "/instance_name", headers={"Host": host}).body.decode() == name
    assert hosting.ask("one", "POST", "/api/query", QUERY).json()["status"] == "success"
    by_path = hosting.running.ask("POST", "/d/one/api/query", QUERY)
    assert by_path.json()["status"] == "success"
    run = hosting.running.ask("POST", "/d/one/api/run/probe/echo", '{"args": {}}')
    assert run.json()["status"] == "success", run
    for target in ("/api/query", "/d/two/api/query"):
        elsewhere = hosting.running.ask("POST", target, QUERY).json()
        assert elsewhere["status"] == "error" and "Could not find public function" in elsewhere["errorMessage"]


def test_functions_know_their_own_address(hosting: Hosting) -> None:
    body = '{"path": "probe:addresses", "args": {}}'
    addresses = hosting.ask("one", "POST", "/api/query", body).json()["value"]
    ports = [urlsplit(url).port for url in (hosting.running.url, hosting.running.site_url)]
    assert addresses == [f"http://one.example.org:{port}" for port in ports]


def test_what_is_not_there_is_not_found(hosting: Hosting) -> None:
    for method, path in (("POST", "/api/query"), ("GET", "/version"), ("GET", "/"), ("GET", "/host/deployments")):
        assert hosting.ask("three", method, path, QUERY).refusal() == (404, "DeploymentNotFound")
    assert hosting.running.ask("POST", "/d/three/api/query", QUERY).refusal() == (404, "DeploymentNotFound")
    assert hosting.ask("a.one", "POST", "/api/query", QUERY).refusal() == (404, "DeploymentNotFound")
    for path in ("/d/one/version", "/d/one/", "/d/one/metrics"):
        assert hosting.running.ask("GET", path).refusal() == (404, "RouteNotFound")
    assert hosting.ask("one", "POST", "/d/two/api/query", QUERY).refusal() == (404, "RouteNotFound")


def test_sites_are_found_by_host_name_only(hosting: Hosting) -> None:
    assert hosting.ask("one", "GET", "/", site=True).status == 404
    assert b"HTTP actions" in hosting.ask("one", "GET", "/", site=True).body
    assert hosting.ask("three", "GET", "/", site=True).refusal() == (404, "DeploymentNotFound")


def _raw(hosting: Hosting, request: bytes) -> tuple[int, bytes]:
    parts = urlsplit(hosting.running.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


@pytest.mark.parametrize(
    ("target", "hosts", "expected"),
    [
        (b"http://one.localhost/instance_name", [b"two.localhost"], (200, b"one")),
        (b"http://one.localhost:99/instance_name", [b""], (200, b"one")),
        (b"/instance_name", [b""], (200, b"local")),
        (b"/instance_name", [b"one.localhost"], (200, b"one")),
        (b"/instance_name", [b"one.localhost", b"two.localhost"], (400, b"HostHeaderInvalid")),
        (b"/instance_name", [b"one.localhost", b"one.localhost"], (400, b"HostHeaderInvalid")),
        (b"/instance_name", [b"one.localhost/x"], (400, b"HostHeaderInvalid")),
        (b"http://u@one.localhost/instance_name", [b"one.localhost"], (400, b"HostHeaderInvalid")),
        (b"/instance_name", [b"a" * 300 + b".localhost"], (400, b"HostHeaderInvalid")),
    ],
)
def test_hostile_addresses_on_the_wire(
    hosting: Hosting, target: bytes, hosts: list[bytes], expected: tuple[int, bytes]
) -> None:
    head = b"GET " + target + b" HTTP/1.1\r\n" + b"".join(b"Host: " + host + b"\r\n" for host in hosts)
    status, body = _raw(hosting, head + b"Connection: close\r\n\r\n")
    assert status == expected[0]
    assert expected[1] in body


def test_two_hosts_of_a_call_are_refused_too(hosting: Hosting) -> None:
    head = b"POST /api/query HTTP/1.1\r\nHost: one.localhost\r\nHost: two.localhost\r\nContent-Length: %d\r\n\r\n%s"
    status, body = _raw(hosting, head % (len(QUERY), QUERY.encode()))
    assert (status, json.loads(body)["code"]) == (400, "HostHeaderInvalid")


def test_browsers_may_read_refusals_of_an_address(hosting: Hosting) -> None:
    answer = hosting.ask("three", "POST", "/api/query", QUERY, headers={"Origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in hosting.operate("GET", "/host/deployments").headers


# -- who may do what ---------------------------------------------------------------------------------------------------

BODIES: Mapping[str, str] = {"/api/skerry/rollback": '{"version": "000000"}', "/api/skerry/keys": '{"scope": "none"}'}
REFUSED = {(403, "BadDeployKey"), (401, "BadAdminKey"), (403, "KeyNotAllowed"), (401, "BadHostCredential")}


def _code(answer: Answer) -> tuple[int, str]:
    try:
        parsed = answer.json()
    except ValueError:
        return answer.status, ""
    return answer.status, parsed.get("code", "") if isinstance(parsed, dict) else ""


@pytest.mark.parametrize("scope", [*Scope, None])
def test_every_route_with_every_scope(hosting: Hosting, scope: Scope | None) -> None:
    """A key gets in where its scope has the route's right and nowhere else; keys of others nowhere."""
    key = None if scope is None else hosting.keys["one"][scope.value]
    rights = frozenset[Right]() if scope is None else RIGHTS[scope]
    for (method, route), right in DEPLOYMENT_ROUTES.items():
        path = route.replace("{id}", "nobody")
        got = _code(hosting.ask("one", method, path, BODIES.get(route), key))
        assert (got not in REFUSED) == (right is None or right in rights), (method, route, got)
        if key is not None and right is not None:
            wrong = _code(hosting.ask("two", method, path, BODIES.get(route), key))
            assert wrong == (403, "BadDeployKey"), (method, route, wrong)
    for method, route in CALL_ROUTES:
        path = route.replace("{path}", "probe/echo") + ("?path=probe:echo" if method == "GET" else "")
        got = _code(hosting.ask("one", method, path, QUERY if method == "POST" else None, key))
        may = Right.CALL in rights or (key is None and route != "/api/function")
        assert (got not in REFUSED) == may, (method, route, got)
        if key is not None:
            wrong = _code(hosting.ask("two", method, path, QUERY if method == "POST" else None, key))
            assert wrong == (401, "BadAdminKey"), (method, route, wrong)
    for method, route in HOST_ROUTES:
        path = route.replace("{name}", "one").replace("{id}", "nobody")
        got = _code(hosting.running.ask(method, path, headers={"Authorization": f"Convex {key}"} if key else {}))
        assert got in REFUSED, (method, route, got)
        assert _code(hosting.ask("one", method, path, None, hosting.credential)) == (404, "RouteNotFound")


def test_the_credential_of_the_host_is_no_key_of_a_deployment(hosting: Hosting) -> None:
    for name in ("one", "two"):
        assert _code(hosting.ask(name, "GET", "/api/skerry/versions", None, hosting.credential))[0] == 403
    assert hosting.operate("GET", "/metrics").status == 200


def test_a_key_that_may_not_call_may_not_act_as_a_user(hosting: Hosting) -> None:
    user = b64encode(b'{"subject": "ada"}').decode()
    key = f"{hosting.keys['one']['read']}:{user}"
    assert hosting.ask("one", "GET", "/api/skerry/functions", None, key).refusal() == (403, "KeyNotAllowed")


# -- operating ---------------------------------------------------------------------------------------------------------


def test_the_life_of_a_deployment(hosting: Hosting, app_bundle: Path) -> None:
    created = hosting.operate("POST", "/host/deployments", {"name": "brief"}).json()
    assert (created["state"], created["isOpen"]) == ("active", False)
    key = created["adminKey"]
    assert hosting.deploy("brief", app_bundle.read_bytes(), key).status == 200
    assert hosting.operate("POST", "/host/deployments", {"name": "brief"}).refusal() == (409, "DeploymentNameTaken")
    assert hosting.operate("POST", "/host/deployments/brief/pause").json()["state"] == "paused"
    assert hosting.ask("brief", "POST", "/api/query", QUERY).refusal() == (403, "DeploymentPaused")
    assert hosting.deploy("brief", app_bundle.read_bytes(), key).refusal() == (403, "DeploymentPaused")
    assert hosting.operate("POST", "/host/deployments/brief/resume").json()["state"] == "active"
    assert hosting.ask("brief", "POST", "/api/query", QUERY).json()["status"] == "success"
    listed = hosting.operate("GET", "/host/deployments").json()["deployments"]
    assert [entry["name"] for entry in listed] == ["brief", "local", "one", "two"]
    assert hosting.operate("GET", "/host/deployments/brief").json()["isOpen"]
    assert hosting.operate("DELETE", "/host/deployments/brief").json() == {"name": "brief"}
    assert hosting.ask("brief", "POST", "/api/query", QUERY).refusal() == (404, "DeploymentNotFound")
    assert hosting.operate("GET", "/host/deployments/brief").refusal() == (404, "DeploymentNotFound")
    again = hosting.operate("POST", "/host/deployments", {"name": "brief"}).json()
    assert again["adminKey"] != key
    assert hosting.ask("brief", "GET", "/api/skerry/versions", None, key).refusal() == (403, "BadDeployKey")
    assert hosting.ask("brief", "GET", "/api/skerry/versions", None, again["adminKey"]).json() == {"versions": []}
    assert hosting.operate("DELETE", "/host/deployments/brief").status == 200


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "Bad Name"}, (400, "DeploymentNameInvalid")),
        ({"name": "host"}, (400, "DeploymentNameInvalid")),
        ({"name": "local"}, (409, "DeploymentNameTaken")),
        ({"name": 1}, (400, "BadJsonBody")),
        ({}, (400, "BadJsonBody")),
        ({"name": "x" * HOST_BODY_BYTES_MAX}, (413, "RequestTooLarge")),
    ],
)
def test_what_is_not_created(hosting: Hosting, fields: Any, expected: tuple[int, str]) -> None:
    assert hosting.operate("POST", "/host/deployments", fields).refusal() == expected


def test_the_default_deployment_cannot_be_deleted(hosting: Hosting) -> None:
    assert hosting.operate("DELETE", "/host/deployments/local").refusal() == (409, "DeploymentProtected")


def test_an_admin_manages_keys_of_its_own_deployment(hosting: Hosting) -> None:
    admin = hosting.keys["one"]["admin"]
    made = hosting.ask("one", "POST", "/api/skerry/keys", '{"scope": "read", "label": "ci"}', admin).json()
    listed = hosting.ask("one", "GET", "/api/skerry/keys", None, admin).json()["keys"]
    assert made["key"].partition(".")[2] not in json.dumps(listed)
    assert [entry["label"] for entry in listed][-1] == "ci"
    assert hosting.ask("one", "GET", "/api/check_admin_key", None, made["key"]).status == 200
    gone = f"/api/skerry/keys/{made['id']}"
    assert hosting.ask("two", "DELETE", gone, None, hosting.keys["two"]["admin"]).refusal() == (404, "KeyNotFound")
    assert hosting.ask("one", "DELETE", gone, None, admin).status == 200
    assert hosting.ask("one", "GET", "/api/check_admin_key", None, made["key"]).refusal() == (403, "BadDeployKey")


def test_a_key_does_not_outlive_the_key_that_made_it(hosting: Hosting) -> None:
    def make(key: str, **fields: Any) -> Answer:
        return hosting.ask("one", "POST", "/api/skerry/keys", json.dumps({"label": "chain", **fields}), key)

    endless = hosting.keys["one"]["admin"]
    end_ms = time.time_ns() // 1_000_000 + 3_600_000
    ending = make(endless, scope="admin", expiresMs=end_ms).json()
    made = make(ending["key"], scope="admin").json()
    assert made["expiresMs"] == end_ms
    assert make(made["key"], scope="read", expiresMs=end_ms - 1).json()["expiresMs"] == end_ms - 1
    assert make(made["key"], scope="read", expiresMs=end_ms).json()["expiresMs"] == end_ms
    assert make(made["key"], scope="read", expiresMs=end_ms + 1).refusal() == (400, "InvalidKeyRequest")
    assert make(endless, scope="read").json()["expiresMs"] is None
    default = hosting.running.admin_key
    made_by_default = hosting.ask("local", "POST", "/api/skerry/keys", '{"scope": "read"}', default)
    assert made_by_default.json()["expiresMs"] is None


def test_the_state_of_indexes_is_shown(hosting: Hosting, app_bundle: Path) -> None:
    shown = hosting.ask("two", "GET", "/api/skerry/schema", None, hosting.keys["two"]["read"]).json()
    assert shown["push"] is None and shown["failure"] is None
    assert {index["state"] for index in shown["indexes"]} <= {"ready"}
    assert hosting.ask("two", "GET", "/api/skerry/schema").status in (401, 403)


def test_versions_and_rollback(hosting: Hosting, app_bundle: Path) -> None:
    key = hosting.keys["two"]["deploy"]
    raw = app_bundle.read_bytes()
    first = hosting.deploy("two", sources_of(read_bundle(raw)).to_bytes(), key).json()
    assert first["version"] == read_bundle(raw).digest, "sources give the bundle that was built of them"
    assert hosting.ask("two", "POST", "/api/skerry/rollback", "", key).refusal() == (404, "VersionNotFound")
    again = hosting.ask("two", "POST", "/api/skerry/rollback", json.dumps({"version": first["version"][:8]}), key)
    assert again.json() == first
    (listed,) = hosting.ask("two", "GET", "/api/skerry/versions", None, hosting.keys["two"]["read"]).json()["versions"]
    assert listed["version"] == first["version"] and listed["active"]


def test_an_upload_is_digested_as_it_arrives(hosting: Hosting, app_bundle: Path) -> None:
    key = hosting.keys["one"]["deploy"]
    wrong = b64encode(bytes(32)).decode()
    assert hosting.deploy("one", app_bundle.read_bytes(), key, wrong).refusal() == (400, "DigestMismatch")
    assert hosting.deploy("one", b"no bundle", key).refusal() == (400, "BundleInvalid")
    assert hosting.deploy("one", app_bundle.read_bytes(), key).status == 200


def test_no_key_is_in_the_log(app_bundle: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "data", admin_key=None) as running:
        credential = (tmp_path / "data" / "host.credential").read_text().strip()
        made = Hosting(running, credential)
        key = made.operate("POST", "/host/deployments", {"name": "one"}).json()["adminKey"]
        assert made.deploy("one", b"no bundle", key).status == 400
        assert made.ask("one", "POST", "/api/query", QUERY, key + "x").status == 401
        assert made.operate("GET", "/host/deployments", key=credential + "x").refusal() == (401, "BadHostCredential")
        _, errors = running.stop()
    for secret in (key, key.partition(".")[2], credential, running.admin_key):
        assert secret not in errors
