"""What is kept of a version's checks: believed when this host wrote it about this very bundle, else made again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry import limits
from skerry.bundle.bundle_file import Bundle, read_bundle
from skerry.errors import ClientError
from skerry.functions import checked_versions as room
from skerry.functions import deployment as deployment_room
from skerry.functions.checked_versions import CheckedVersions
from skerry.functions.version import check_version
from skerry.isolate import CompiledModule, ModuleCache
from tests.fixtures import shared
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import HOST_KEY, World

MADE = "a" * 64
MODULE = "b" * 64


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of the bundles that went the whole way."""
    seen: list[str] = []

    def counted(bundle: Bundle, cache: ModuleCache, name: str) -> tuple[CompiledModule, bytes]:
        seen.append(bundle.digest)
        return check_version(bundle, cache, name)

    monkeypatch.setattr(deployment_room, "check_version", counted)
    return seen


@pytest.fixture
def data(tmp_path: Path, compiled: Path, base: Path) -> Iterator[Path]:
    """The folder of a closed deployment with the hostile functions; compiled code in a folder of the test's own."""
    with World(tmp_path / "data", tmp_path / "compiled") as world:
        world.activate(hostile_bundle(base))
    yield tmp_path / "data"


def reopened(data: Path) -> World:
    return World(data, data.parent / "compiled")


def files(data: Path) -> tuple[Path, Path]:
    """What is kept of the checks, and the source map."""
    main, source_map = sorted((data / "checked").iterdir())
    assert source_map.name == f"{main.name}.map"
    return main, source_map


def bundle_file(data: Path) -> Path:
    (file,) = (data / "bundles").iterdir()
    return file


def test_opening_reads_no_bundle(data: Path, checks: list[str]) -> None:
    bundle_file(data).unlink()
    with reopened(data) as world:
        assert world.query("h:ping") == "pong"
        assert "convex/h.ts:" in world.call("query", "h:throwNamed", {}).error_message
    assert checks == []


def test_what_is_kept_is_what_the_checks_said(tmp_path: Path, compiled: Path, base: Path, checks: list[str]) -> None:
    with World(tmp_path / "data", compiled) as world:
        told = world.activate(hostile_bundle(base))
        failed = world.call("query", "h:throwNamed", {}).error_message
        schema = world.deployment.version and world.deployment.version.schema
    with World(tmp_path / "data", compiled) as world:
        assert world.deployment.describe() == told
        assert world.call("query", "h:throwNamed", {}).error_message == failed
        assert (world.deployment.version and world.deployment.version.schema) == schema
    assert checks == [told["version"]]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "torn": lambda raw: raw[:-1],
    "longer": lambda raw: raw + b" ",
    "another format": lambda raw: raw.replace(b"version 1\n", b"version 0\n", 1),
    "another MAC": lambda raw: raw[:30] + bytes([raw[30] ^ 1]) + raw[31:],
    "another module": lambda raw: raw[:57] + MODULE.encode() + raw[57 + 64 :],
    "another description": lambda raw: raw.replace(b'"public"', b'"internal"', 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_ignored_and_made_anew(data: Path, checks: list[str], damage: str) -> None:
    whole = files(data)[0].read_bytes()
    files(data)[0].write_bytes(DAMAGE[damage](whole))
    assert files(data)[0].read_bytes() != whole
    for _ in range(2):
        with reopened(data) as world:
            assert world.query("h:ping") == "pong"
    assert checks == [files(data)[0].name], "the second opening found it mended"
    assert files(data)[0].read_bytes() == whole


def test_nothing_is_believed_without_a_bundle(data: Path) -> None:
    files(data)[0].write_bytes(b"")
    raw = bytearray(bundle_file(data).read_bytes())
    raw[len(raw) // 2] ^= 1
    bundle_file(data).write_bytes(raw)
    with pytest.raises(ClientError) as caught:
        reopened(data)
    assert caught.value.code in ("BundleInvalid", "BundleDigestMismatch")


def test_code_that_is_not_compiled_any_more_goes_the_whole_way(data: Path, checks: list[str]) -> None:
    for file in (data.parent / "compiled").iterdir():
        file.unlink()
    for _ in range(2):
        with reopened(data) as world:
            assert world.query("h:ping") == "pong"
    assert len(checks) == 1


def test_a_damaged_map_comes_out_of_the_bundle_and_its_loss_costs_the_trace_only(data: Path) -> None:
    with reopened(data) as world:
        whole = world.call("query", "h:throwNamed", {}).error_message
    files(data)[1].write_bytes(files(data)[1].read_bytes()[:-1])
    with reopened(data) as world:
        assert world.call("query", "h:throwNamed", {}).error_message == whole
    bundle_file(data).unlink()
    with reopened(data) as world:
        told = world.call("query", "h:throwNamed", {}).error_message
    assert told and whole and whole.startswith(told.rstrip()) and "h.ts" not in told


@pytest.mark.parametrize("changed", ["host", "bundle", "kind", "checks", "skerry"])
def test_what_was_kept_for_something_else_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    made = CheckedVersions(tmp_path / "checked", HOST_KEY)
    made.keep(MADE, MODULE, b"{}", b"{}")
    assert made.find(MADE) == (MODULE, 2, b"{}")
    asked, digest = made, MADE
    if changed == "host":
        asked = CheckedVersions(tmp_path / "checked", b"another host's key")
    elif changed == "bundle":
        digest = "c" * 64
        for ending in ("", ".map"):
            (tmp_path / "checked" / (MADE + ending)).rename(tmp_path / "checked" / (digest + ending))
    elif changed == "kind":
        (tmp_path / "checked" / f"{MADE}.map").replace(tmp_path / "checked" / MADE)
    elif changed == "checks":
        monkeypatch.setattr(room, "CHECKS_VERSION", 0)
    else:
        monkeypatch.setattr(room, "__version__", "0")
    assert asked.find(digest) is None
    if changed != "kind":
        assert asked.source_map(digest) is None


def test_bounds_of_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CheckedVersions(tmp_path / "checked", HOST_KEY)
    monkeypatch.setattr(limits, "DESCRIPTION_BYTES_MAX", 8)
    monkeypatch.setattr(limits, "SOURCE_MAP_BYTES_MAX", 8)
    made.keep(MADE, MODULE, b"d" * 8, b"m" * 8)
    assert made.find(MADE) == (MODULE, 8, b"d" * 8) and made.source_map(MADE) == b"m" * 8
    made.keep(MADE, MODULE, b"d" * 9, b"m" * 9)
    assert made.find(MADE) is None and made.source_map(MADE) is None


def test_an_upload_is_never_taken_for_what_was_checked(data: Path, checks: list[str]) -> None:
    """The file itself, as an upload, is refused as a bundle, and changes nothing of what is believed."""
    main, _ = files(data)
    before = {path: path.read_bytes() for path in files(data)}
    with reopened(data) as world:
        for upload in before.values():
            with pytest.raises(ClientError) as caught:
                world.activate(upload)
            assert caught.value.code == "BundleInvalid"
    assert {path: path.read_bytes() for path in files(data)} == before
    assert checks == [] and main.stat().st_mode & 0o777 == 0o600


def test_files_go_with_the_versions(
    tmp_path: Path, compiled: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUNDLES_KEPT_MAX", 1)
    with World(tmp_path / "data", compiled) as world:
        world.activate(shared.bundle("c", base))
        version = world.activate(hostile_bundle(base))["version"]
    assert {path.name for path in (tmp_path / "data" / "checked").iterdir()} == {version, f"{version}.map"}


def test_a_folder_that_cannot_be_written_costs_time_only(data: Path, checks: list[str], base: Path) -> None:
    for file in files(data):
        file.unlink()
    (data / "checked").rmdir()
    (data / "checked").touch()
    for count in (1, 2):
        with reopened(data) as world:
            assert world.query("h:ping") == "pong"
        assert len(checks) == count


def test_a_version_knows_how_much_there_is_to_decode_before_its_map_is_read(data: Path, base: Path) -> None:
    size = len(read_bundle(hostile_bundle(base)).source_map)
    with reopened(data) as world:
        version = world.deployment.version
        assert version is not None and version.stacks.decoding_bytes == size > 0
        world.call("query", "h:throwNamed", {})
        assert version.stacks.decoding_bytes == 0
