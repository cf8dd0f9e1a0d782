"""Keys of deployments: what a scope allows, when a key stops working, what is kept of it."""

import logging
from pathlib import Path
from typing import Any

import pytest

from skerry.admin.access import RIGHTS, Right, Scope
from skerry.admin.host import DEFAULT_NAME
from skerry.admin.keys import HOST_CREDENTIAL_FILE, open_keys
from skerry.admin.registry import RESERVED_NAMES, check_name
from skerry.errors import ClientError
from skerry.limits import (
    DEPLOYMENT_NAME_CHARS_MAX,
    DEPLOYMENTS_MAX,
    KEY_EXPIRY_MS_MAX,
    KEY_LABEL_CHARS_MAX,
    KEYS_PER_DEPLOYMENT_MAX,
)
from tests.admin.world import CREDENTIAL, DEFAULT_KEY, HostWorld
from tests.fixtures import shared
from tests.fixtures.world import NOW_MS


def make(host: HostWorld, name: str = DEFAULT_NAME, scope: Any = "admin", label: Any = "", expires: Any = None) -> str:
    return host.wait(host.host.create_key(name, scope, label, expires))[1]


def refusal(host: HostWorld, **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        make(host, **given)
    return caught.value.code


def test_the_table_of_rights() -> None:
    assert {scope: sorted(rights) for scope, rights in RIGHTS.items()} == {
        Scope.READ: ["see"],
        Scope.DEPLOY: ["deploy", "see"],
        Scope.ADMIN: ["call", "data", "deploy", "keys", "see", "storage"],
    }
    assert set(Right) == RIGHTS[Scope.ADMIN]


def test_a_key_has_its_scope_in_its_deployment_only(host: HostWorld) -> None:
    host.create("one", "two")
    for scope in Scope:
        key = make(host, "one", scope.value).encode()
        assert host.host.scope_of("one", key) is scope
        assert host.host.scope_of("two", key) is None
        assert host.host.scope_of("two", key.replace(b"one|", b"two|")) is None
        assert host.host.scope_of(DEFAULT_NAME, key) is None


def test_what_is_no_key(host: HostWorld) -> None:
    key = make(host).encode()
    digit = b"0" if key[-1:] != b"0" else b"1"
    for wrong in (
        b"",
        b"local|",
        key[:-1],
        key[:-1] + digit,
        key + b"0",
        key.upper(),
        b" " + key,
        key[6:],
        b"\xff" * 80,
    ):
        assert host.host.scope_of(DEFAULT_NAME, wrong) is None, wrong
    assert host.host.scope_of(DEFAULT_NAME, DEFAULT_KEY.encode()) is Scope.ADMIN
    assert host.host.scope_of("one", DEFAULT_KEY.encode()) is None
    assert host.host.is_host_credential(CREDENTIAL.encode())
    for wrong in (b"", key, DEFAULT_KEY.encode(), CREDENTIAL[:-1].encode()):
        assert not host.host.is_host_credential(wrong)


def test_a_key_ends_at_its_moment(host: HostWorld) -> None:
    key = make(host, expires=NOW_MS + 1_000).encode()
    host.now_ns = (NOW_MS + 999) * 1_000_000
    assert host.host.scope_of(DEFAULT_NAME, key) is Scope.ADMIN
    host.now_ns = (NOW_MS + 1_000) * 1_000_000
    assert host.host.scope_of(DEFAULT_NAME, key) is None


def test_a_revoked_key_ends_at_once_and_for_good(tmp_path: Path, base: Path) -> None:
    compiled = shared.compiled(base)
    with HostWorld(tmp_path / "data", compiled) as world:
        kept, revoked = make(world, label="kept").encode(), make(world).encode()
        (record,) = [key for key in world.host.registry.keys(DEFAULT_NAME) if not key.label]
        revoking = world.host.registry.remove_key(DEFAULT_NAME, record.id)
        world.wait(revoking)
        assert world.host.scope_of(DEFAULT_NAME, revoked) is None
        with pytest.raises(ClientError) as caught:
            world.wait(world.host.registry.remove_key(DEFAULT_NAME, record.id))
        assert caught.value.code == "KeyNotFound"
    with HostWorld(tmp_path / "data", compiled) as world:
        assert world.host.scope_of(DEFAULT_NAME, revoked) is None
        assert world.host.scope_of(DEFAULT_NAME, kept) is Scope.ADMIN
        assert [key.label for key in world.host.registry.keys(DEFAULT_NAME)] == ["kept"]


def test_no_secret_is_on_disk_or_in_the_log(host: HostWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = make(host, label="ci")
    secret = key.rpartition(".")[2]
    host.host.scope_of(DEFAULT_NAME, key.encode())
    host.host.scope_of(DEFAULT_NAME, key.encode() + b"x")
    (record,) = host.host.registry.keys(DEFAULT_NAME)
    host.close()
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
        assert not path.is_file() or bytes.fromhex(secret) not in path.read_bytes(), path
    assert secret not in caplog.text and CREDENTIAL not in caplog.text and DEFAULT_KEY not in caplog.text
    assert secret not in str(record.listed())
    assert not any("sha256" in name for name in record.listed())


@pytest.mark.parametrize(
    "given",
    [
        {"scope": "root"},
        {"scope": None},
        {"scope": ["admin"]},
        {"label": "a" * (KEY_LABEL_CHARS_MAX + 1)},
        {"label": "two\nlines"},
        {"label": 1},
        {"expires": NOW_MS},
        {"expires": KEY_EXPIRY_MS_MAX + 1},
        {"expires": True},
        {"expires": 1e15},
    ],
)
def test_what_no_key_is_made_of(host: HostWorld, given: dict[str, Any]) -> None:
    assert refusal(host, **given) == "InvalidKeyRequest"
    make(host, scope="read", label="a" * KEY_LABEL_CHARS_MAX, expires=KEY_EXPIRY_MS_MAX)


def test_keys_of_a_deployment_at_the_bound_and_one_past_it(host: HostWorld) -> None:
    for _ in range(KEYS_PER_DEPLOYMENT_MAX):
        make(host, scope="read")
    assert refusal(host) == "TooManyKeys"
    host.create("one")
    make(host, "one")
    assert refusal(host, name="nobody") == "DeploymentNotFound"


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a.b", "a_b", "é", "a\n", "a" * (DEPLOYMENT_NAME_CHARS_MAX + 1), "xn--a", "../a"]
)
def test_what_is_no_name(name: str) -> None:
    check_name("a" * DEPLOYMENT_NAME_CHARS_MAX)
    check_name("a--b-1")
    with pytest.raises(ClientError) as caught:
        check_name(name)
    assert caught.value.code == "DeploymentNameInvalid"


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_names_that_are_reserved(name: str) -> None:
    with pytest.raises(ClientError) as caught:
        check_name(name)
    assert caught.value.code == "DeploymentNameInvalid"


def test_a_name_is_given_once(host: HostWorld) -> None:
    host.create("one")
    for name in ("one", DEFAULT_NAME):
        with pytest.raises(ClientError) as caught:
            host.create(name)
        assert caught.value.code == "DeploymentNameTaken"


def test_deployments_at_the_bound_and_one_past_it(host: HostWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DEPLOYMENTS_MAX > 3
    monkeypatch.setattr("skerry.limits.DEPLOYMENTS_MAX", 3)
    host.create("one", "two")
    with pytest.raises(ClientError) as caught:
        host.create("three")
    assert caught.value.code == "TooManyDeployments"


def test_the_host_credential_is_kept_like_the_admin_key(tmp_path: Path) -> None:
    made = open_keys(tmp_path, "local", None, lambda length: b"\x07" * length)
    file = tmp_path / HOST_CREDENTIAL_FILE
    assert made.host_credential == "host|" + "07" * 32 == file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert open_keys(tmp_path, "local", None, lambda length: b"\x08" * length).host_credential == made.host_credential
    (tmp_path / "other").mkdir()
    given = open_keys(tmp_path / "other", "local", "local|k", lambda length: b"\x09" * length, "host|given")
    assert given.host_credential == "host|given"
    assert not (tmp_path / "other" / HOST_CREDENTIAL_FILE).exists()
