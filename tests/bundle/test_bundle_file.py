import io
import random
import struct
import zipfile
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.bundle import bundle_file
from skerry.bundle.bundle_file import Bundle, digest_of, make_bundle, read_bundle
from skerry.bundle.manifest import Manifest
from skerry.errors import ClientError, SkerryError
from skerry.limits import (
    BUNDLE_ENTRIES_MAX,
    BUNDLE_ENTRY_NAME_BYTES_MAX,
    BUNDLE_FILE_BYTES_MAX,
    BUNDLE_IMAGE_BYTES_MAX,
    BUNDLE_MANIFEST_BYTES_MAX,
)

EPOCH = (1980, 1, 1, 0, 0, 0)


def manifest(**changes: object) -> bytes:
    fields = orjson.loads(
        Manifest(
            language="javascript", abi=1, engine_digest="0" * 64, prelude_digest="1" * 64, clock_ms=5, seed="2" * 64,
            functions=[], schema=None, features=[], functions_folder="convex", entries={"a": "convex/a.ts"}, build={},
            sources={"app/convex/a.ts": "3" * 64},
        ).to_json()
    )  # fmt: skip
    return orjson.dumps({**fields, **changes}, option=orjson.OPT_SORT_KEYS)


def bundle(**more: bytes) -> Bundle:
    return make_bundle({"image.wasm": b"\0asm", "manifest.json": manifest(), "sources/app/convex/a.ts": b"x", **more})


def zip_of(entries: list[tuple[str, bytes]], tweak: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            tweak(info)
            archive.writestr(info, data)
    return out.getvalue()


def entries_of(made: Bundle) -> list[tuple[str, bytes]]:
    return sorted({**made.entries, "digest": made.digest.encode()}.items())


def code_of(raw: bytes) -> str:
    with pytest.raises(ClientError) as caught:
        read_bundle(raw)
    return caught.value.code


def test_what_is_written_is_read_back() -> None:
    made = bundle()
    raw = made.to_bytes()
    assert raw == zip_of(entries_of(made))
    again = read_bundle(raw)
    assert again == made and again.to_bytes() == raw
    assert again.sources() == {"app/convex/a.ts": b"x"}
    assert again.source_map == b""


def test_the_digest_covers_names_and_content() -> None:
    assert digest_of({"a": b"1", "b": b"2"}) == digest_of({"b": b"2", "a": b"1", "digest": b"whatever"})
    assert len({digest_of(e) for e in ({"a": b"1"}, {"a": b"2"}, {"b": b"1"}, {"a": b"1", "b": b""})}) == 4


def test_content_that_is_not_what_the_digest_says() -> None:
    made = bundle()
    changed = [(name, b"y" if name.startswith("sources/") else data) for name, data in entries_of(made)]
    assert code_of(zip_of(changed)) == "BundleDigestMismatch"
    stated = [(name, b"0" * 64 if name == "digest" else data) for name, data in entries_of(made)]
    assert code_of(zip_of(stated)) == "BundleDigestMismatch"


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../x", "sources/../x", "sources/a/../../x", "sources/./x", "sources//x", "sources/a/",
        "sources/",
        "sources/a\\b", "sources/a\n", "other.txt", "sources", "Manifest.json",
    ],
)  # fmt: skip
def test_names_that_no_bundle_has(name: str) -> None:
    entries = sorted([*entries_of(bundle()), (name, b"x")])
    assert code_of(zip_of(entries)) == "BundleInvalid"


@pytest.mark.parametrize("missing", ["image.wasm", "manifest.json", "digest"])
def test_a_part_that_is_missing(missing: str) -> None:
    assert code_of(zip_of([entry for entry in entries_of(bundle()) if entry[0] != missing])) == "BundleInvalid"


def test_other_ways_to_lay_out_the_same_content() -> None:
    entries = entries_of(bundle())

    def compress(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED

    def comment(info: zipfile.ZipInfo) -> None:
        info.comment = b"hello"

    def extra(info: zipfile.ZipInfo) -> None:
        info.extra = b"\x99\x99\x04\0abcd"

    def later(info: zipfile.ZipInfo) -> None:
        info.date_time = (1999, 1, 1, 0, 0, 0)

    for tweak in (compress, comment, extra, later):
        assert code_of(zip_of(entries, tweak)) == "BundleInvalid"
    assert code_of(zip_of(entries[::-1])) == "BundleInvalid"
    raw = zip_of(entries)
    assert code_of(b"prefix" + raw) == "BundleInvalid"
    assert code_of(raw + b"suffix") == "BundleInvalid"
    with pytest.warns(UserWarning, match="Duplicate"):
        doubled = zip_of([*entries, entries[-1]])
    assert code_of(doubled) == "BundleInvalid"


def test_a_zip_bomb_is_refused_before_anything_expands() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries_of(bundle()):
            archive.writestr(name, data)
        archive.writestr("sources/app/zeros", bytes(50_000_000))
    assert len(out.getvalue()) < 100_000
    assert code_of(out.getvalue()) == "BundleInvalid"


def test_file_bytes_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BUNDLE_FILE_BYTES_MAX >= 64 * 1024 * 1024
    raw = bundle().to_bytes()
    monkeypatch.setattr(bundle_file, "BUNDLE_FILE_BYTES_MAX", len(raw))
    read_bundle(raw)
    monkeypatch.setattr(bundle_file, "BUNDLE_FILE_BYTES_MAX", len(raw) - 1)
    assert code_of(raw) == "BundleTooLarge"


@pytest.mark.parametrize("name", ["image.wasm", "manifest.json", "app.js.map"])
def test_entry_bytes_at_the_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundle(**{"app.js.map": b"{}"})
    raw = made.to_bytes()
    monkeypatch.setitem(bundle_file._ENTRY_BYTES_MAX, name, len(made.entries[name]))  # pyright: ignore[reportPrivateUsage] - the bound under test
    read_bundle(raw)
    monkeypatch.setitem(bundle_file._ENTRY_BYTES_MAX, name, len(made.entries[name]) - 1)  # pyright: ignore[reportPrivateUsage] - the bound under test
    assert code_of(raw) == "BundleTooLarge"


@pytest.mark.parametrize(
    ("name", "bound"), [("image.wasm", BUNDLE_IMAGE_BYTES_MAX), ("manifest.json", BUNDLE_MANIFEST_BYTES_MAX)]
)
def test_the_large_entries_at_their_limit(name: str, bound: int) -> None:
    entries = dict(bundle().entries)
    entries[name] = entries[name].ljust(bound)  # a manifest may end in spaces
    assert make_bundle(entries).entries[name] == entries[name]
    entries[name] += b" "
    with pytest.raises(ClientError) as caught:
        make_bundle(entries)
    assert caught.value.code == "BundleTooLarge"


def test_the_number_of_entries_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BUNDLE_ENTRIES_MAX >= 10_000
    raw = bundle().to_bytes()
    monkeypatch.setattr(bundle_file, "BUNDLE_ENTRIES_MAX", 4)
    read_bundle(raw)
    monkeypatch.setattr(bundle_file, "BUNDLE_ENTRIES_MAX", 3)
    assert code_of(raw) == "BundleTooLarge"


def test_a_directory_that_understates_its_count_cannot_allocate() -> None:
    raw = bytearray(zip_of([(f"sources/{n}", b"") for n in range(2000)]))
    struct.pack_into("<HH", raw, len(raw) - 14, 1, 1)
    assert code_of(bytes(raw)) == "BundleTooLarge"


def test_a_name_at_its_limit() -> None:
    made = bundle(**{"sources/".ljust(BUNDLE_ENTRY_NAME_BYTES_MAX, "a"): b""})
    assert read_bundle(made.to_bytes()) == made
    with pytest.raises(ClientError) as caught:
        bundle(**{"sources/".ljust(BUNDLE_ENTRY_NAME_BYTES_MAX + 1, "a"): b""})
    assert caught.value.code == "BundleTooLarge"


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"format": True}, {"abi": "1"}, {"seed": "xyz"}, {"seed": None}, {"clock_ms": -1},
        {"clock_ms": 2**60},
        {"clock_ms": 1.5}, {"functions": {}}, {"schema": []}, {"entries": {"a": 1}}, {"entries": []},
        {"sources": {"a": None}},
        {"engine_digest": "0" * 63}, {"more": 1}, {"language": "x" * 65},
    ],
)  # fmt: skip
def test_manifests_that_are_none(changes: dict[str, object]) -> None:
    with pytest.raises(ClientError) as caught:
        Manifest.from_json(manifest(**changes))
    assert caught.value.code == "BundleInvalid"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b"[" * 100_000])
def test_manifests_that_are_no_object(raw: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        Manifest.from_json(raw)
    assert caught.value.code == "BundleInvalid"


@given(st.binary(max_size=400))
def test_bytes_of_any_kind_are_refused_with_a_code(raw: bytes) -> None:
    with pytest.raises(SkerryError):
        read_bundle(raw)


def test_damaged_bundles_are_refused_with_a_code() -> None:
    raw = bundle().to_bytes()
    chance = random.Random(7)
    for _ in range(1500):
        damaged = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        if damaged != raw:
            with pytest.raises(SkerryError):
                read_bundle(bytes(damaged))
    for length in range(0, len(raw), 7):
        with pytest.raises(SkerryError):
            read_bundle(raw[:length])
