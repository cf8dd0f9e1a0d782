"""The cache of compiled modules: only what this host made with its key is taken, and only for the same wasm."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

from skerry import limits
from skerry.errors import ClientError
from skerry.functions.module_check import check_module
from skerry.isolate import ModuleCache, get_engine
from skerry.isolate import compiled as compiled_room
from tests.fixtures.guests import wat_guest

KEY = b"one host's key"
WASM = "finds_table"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache folder in which one module is."""
    folder = tmp_path / "compiled"
    ModuleCache(get_engine(), folder, KEY).load(wat_guest(WASM))
    return folder


def kept(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was compiled, as against taken from a file."""
    seen: list[bytes] = []
    real = wasmtime.Module

    class Counted(wasmtime.Module):
        def __init__(self, engine: wasmtime.Engine, wasm: bytes) -> None:
            seen.append(wasm)
            super().__init__(engine, wasm)

        @classmethod
        def deserialize(cls, engine: wasmtime.Engine, encoded: bytes) -> wasmtime.Module:
            return real.deserialize(engine, encoded)

    monkeypatch.setattr(wasmtime, "Module", Counted)
    return seen


def test_what_was_compiled_once_is_taken_from_its_file(folder: Path, compilations: list[bytes]) -> None:
    module = ModuleCache(get_engine(), folder, KEY).load(wat_guest(WASM))
    assert compilations == []
    assert module.digest == hashlib.sha256(wat_guest(WASM)).hexdigest() == kept(folder).stem


def test_files_are_for_the_owner_alone(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept(folder).stat().st_mode) == 0o600


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] if at >= 0 else flip(len(raw) + at)(raw)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated in the header": lambda raw: raw[:20],
    "truncated in the code": lambda raw: raw[:-1],
    "longer": lambda raw: raw + b"\0",
    "flipped in the header": flip(0),
    "flipped in the MAC": flip(30),
    "flipped in the code": flip(200),
    "flipped at the end": flip(-1),
    "without header": lambda raw: raw[25 + 32 :],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_ignored_and_made_anew(folder: Path, compilations: list[bytes], damage: str) -> None:
    whole = kept(folder).read_bytes()
    kept(folder).write_bytes(DAMAGE[damage](whole))
    ModuleCache(get_engine(), folder, KEY).load(wat_guest(WASM))
    assert compilations == [wat_guest(WASM)]
    ModuleCache(get_engine(), folder, KEY).load(wat_guest(WASM))
    assert len(compilations) == 1, "the file was mended"


def test_a_file_of_another_hosts_key_is_ignored(folder: Path, compilations: list[bytes]) -> None:
    ModuleCache(get_engine(), folder, b"another host's key").load(wat_guest(WASM))
    assert len(compilations) == 1


def test_a_file_under_another_modules_digest_is_ignored(folder: Path, compilations: list[bytes]) -> None:
    other = wat_guest("fills_table")
    kept(folder).rename(folder / f"{hashlib.sha256(other).hexdigest()}.cwasm")
    ModuleCache(get_engine(), folder, KEY).load(other)
    assert compilations == [other]


@pytest.mark.parametrize("changed", ["engine", "processor"])
def test_a_file_of_another_engine_or_processor_is_ignored(
    folder: Path, compilations: list[bytes], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    if changed == "engine":
        monkeypatch.setattr(type(get_engine()), "fingerprint", lambda _: "wasmtime-0.0.0")
    else:
        monkeypatch.setattr(compiled_room, "_processor_fingerprint", lambda: "another processor")
    ModuleCache(get_engine(), folder, KEY).load(wat_guest(WASM))
    assert len(compilations) == 1


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, compilations: list[bytes]) -> None:
    cache = ModuleCache(get_engine(), tmp_path / "compiled", KEY)
    (tmp_path / "compiled").rmdir()
    for _ in range(2):
        cache.load(wat_guest(WASM))
    assert len(compilations) == 2


def test_compiled_code_or_text_is_not_accepted_in_place_of_wasm(folder: Path) -> None:
    """An upload reaches the compiler, never the loader of native code."""
    native = bytes(wasmtime.Module(get_engine().wasmtime, wat_guest(WASM)).serialize())
    for raw in (native, kept(folder).read_bytes(), b"(module)"):
        with pytest.raises(ClientError) as caught:
            check_module(raw)
        assert caught.value.code == "GuestModuleInvalid"
        with pytest.raises(ValueError, match="does not begin"):
            ModuleCache(get_engine(), folder, KEY).load(raw)


def test_the_files_used_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[bytes]
) -> None:
    monkeypatch.setattr(limits, "COMPILED_FILES_KEPT_MAX", 2)
    folder = tmp_path / "compiled"
    cache = ModuleCache(get_engine(), folder, KEY)
    modules = [wat_guest(name) for name in ("finds_table", "fills_table", "makes_nan")]
    for age, wasm in enumerate(modules[:2]):
        os.utime(folder / f"{cache.load(wasm).digest}.cwasm", ns=(age, age))
    (folder / "half.1.2.tmp").touch()
    os.utime(folder / "half.1.2.tmp", ns=(0, 0))
    cache.load(modules[0])  # used again: now the youngest
    cache.load(modules[2])
    assert {path.stem for path in folder.iterdir()} == {hashlib.sha256(modules[n]).hexdigest() for n in (0, 2)}
    assert len(compilations) == 3


def test_files_take_a_bounded_part_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "compiled"
    cache = ModuleCache(get_engine(), folder, KEY)
    modules = [wat_guest(name) for name in ("finds_table", "fills_table", "makes_nan")]
    digests = [cache.load(wasm).digest for wasm in modules[:2]]
    for age, digest in enumerate(digests):
        os.utime(folder / f"{digest}.cwasm", ns=(age, age))
    sizes = {path.stem: path.stat().st_size for path in folder.iterdir()}
    added = len(cache.machine_code(modules[2])) + 25 + 32
    (folder / f"{hashlib.sha256(modules[2]).hexdigest()}.cwasm").unlink()
    monkeypatch.setattr(limits, "COMPILED_FILES_BYTES_MAX", added + sizes[digests[1]])
    third = cache.load(modules[2]).digest
    assert {path.stem for path in folder.iterdir()} == {digests[1], third}, "at the bound"
    (folder / f"{third}.cwasm").unlink()
    monkeypatch.setattr(limits, "COMPILED_FILES_BYTES_MAX", added + sizes[digests[1]] - 1)
    ModuleCache(get_engine(), folder, KEY).load(modules[2])
    assert {path.stem for path in folder.iterdir()} == {third}, "one past it"


def test_what_is_in_a_file_is_mapped_for_every_engine(folder: Path) -> None:
    module = ModuleCache(get_engine(), folder, KEY).load(wat_guest(WASM))
    maps = Path("/proc/self/maps").read_text()
    assert module.digest in maps
    again = module.for_engine(get_engine())
    assert again.module is not module.module and again.digest == module.digest
    assert Path("/proc/self/maps").read_text().count(module.digest) > maps.count(module.digest)
    kept(folder).unlink()
    assert module.for_engine(get_engine()).digest == module.digest, "it is still there for those who run it"


def test_a_module_is_found_by_its_digest_where_it_is_known(folder: Path, compilations: list[bytes]) -> None:
    cache = ModuleCache(get_engine(), folder, KEY)
    digest = kept(folder).stem
    found = cache.find(digest)
    assert found is not None and found is cache.load(wat_guest(WASM)) and compilations == []
    assert cache.find("0" * 64) is None
    assert ModuleCache(get_engine(), folder, b"another host's key").find(digest) is None
    assert ModuleCache(get_engine(), None, KEY).find(digest) is None
