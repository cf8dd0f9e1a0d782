"""A bundle as one file: what `skerry build` writes, `skerry deploy` uploads and the host reads as hostile input.

Shape: a zip of stored (uncompressed) entries in the order of their names, with fixed times and modes, so that equal
content is equal bytes:

| entry | content |
|---|---|
| `image.wasm` | the app, booted (skerry.bundle.image) |
| `manifest.json` | skerry.bundle.manifest |
| `app.js`, `app.js.map` | the bundled script that was evaluated, and its source map |
| `resolutions.json` | what each bare import led to |
| `sources/...` | every file that went into the script, under its canonical name |
| `digest` | the bundle's digest: SHA-256 over one line `<sha256>  <name>` for each other entry, in order |

Without `image.wasm` the same file is *sources*: a host that takes them makes the image itself.

Reading accepts exactly the bytes that writing gives: whatever else a zip can hold (compression, comments, extra
fields, gaps, entries that overlap, names out of order or twice) is refused, so there is no second way to read the
same file.
"""

import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from skerry.bundle.manifest import Manifest
from skerry.errors import ClientError
from skerry.limits import (
    BUNDLE_ENTRIES_MAX,
    BUNDLE_ENTRY_NAME_BYTES_MAX,
    BUNDLE_FILE_BYTES_MAX,
    BUNDLE_IMAGE_BYTES_MAX,
    BUNDLE_MANIFEST_BYTES_MAX,
    SOURCE_MAP_BYTES_MAX,
)

IMAGE: Final = "image.wasm"
MANIFEST: Final = "manifest.json"
SCRIPT: Final = "app.js"
SOURCE_MAP: Final = "app.js.map"
RESOLUTIONS: Final = "resolutions.json"
SOURCES: Final = "sources/"
DIGEST: Final = "digest"

_REQUIRED: Final = frozenset({IMAGE, MANIFEST, DIGEST})
_REQUIRED_OF_SOURCES: Final = frozenset({MANIFEST, SCRIPT, SOURCE_MAP, DIGEST})
_OPTIONAL: Final = frozenset({SCRIPT, SOURCE_MAP, RESOLUTIONS})
_ENTRY_BYTES_MAX: Final = {
    IMAGE: BUNDLE_IMAGE_BYTES_MAX,
    MANIFEST: BUNDLE_MANIFEST_BYTES_MAX,
    SOURCE_MAP: SOURCE_MAP_BYTES_MAX,
}
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
_MODE: Final = 0o100644 << 16
# The record that ends a zip: signature, disk numbers, entry counts, size and offset of the directory, comment length.
_END: Final = struct.Struct("<4s4H2LH")
_DIRECTORY_ENTRY_BYTES: Final = 46
_UTF8_NAME: Final = 0x800
_UNSAFE_NAME: Final = re.compile(r"[\x00-\x1f\x7f\\]|(?:^|/)\.{0,2}(?:/|$)")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's content. `entries` holds every entry but the digest, by name; `digest` is hexadecimal."""

    entries: Mapping[str, bytes]
    manifest: Manifest
    digest: str

    @property
    def image(self) -> bytes:
        return self.entries[IMAGE]

    @property
    def has_image(self) -> bool:
        """Whether it is a whole bundle: without an image it is sources, of which a host makes the image."""
        return IMAGE in self.entries

    @property
    def source_map(self) -> bytes:
        """The source map's bytes, empty where the bundle has none."""
        return self.entries.get(SOURCE_MAP, b"")

    def sources(self) -> dict[str, bytes]:
        """The sources by canonical name (`app/convex/messages.ts`)."""
        return {name.removeprefix(SOURCES): data for name, data in self.entries.items() if name.startswith(SOURCES)}

    def to_bytes(self) -> bytes:
        """The file."""
        return _write({**self.entries, DIGEST: self.digest.encode()})


def make_bundle(entries: Mapping[str, bytes]) -> Bundle:
    """The bundle of these entries (without a digest). Raises: ClientError as `read_bundle`."""
    _check_entries({**entries, DIGEST: b""}, _REQUIRED)
    return Bundle(dict(entries), Manifest.from_json(entries[MANIFEST]), digest_of(entries))


def sources_of(bundle: Bundle) -> Bundle:
    """The bundle without its image: what a host needs to make the image itself. Raises: ClientError `BundleInvalid`."""
    entries = {name: data for name, data in bundle.entries.items() if name != IMAGE}
    _check_entries({**entries, DIGEST: b""}, _REQUIRED_OF_SOURCES)
    return Bundle(entries, bundle.manifest, digest_of(entries))


def read_bundle(raw: bytes, *, is_image_needed: bool = True) -> Bundle:
    """The bundle in a file's bytes; where no image is needed it may be sources, see `sources_of`.

    Raises: ClientError `BundleTooLarge`, `BundleInvalid`, `BundleDigestMismatch`.
    Limits: BUNDLE_FILE_BYTES_MAX, BUNDLE_ENTRIES_MAX, BUNDLE_ENTRY_NAME_BYTES_MAX, BUNDLE_IMAGE_BYTES_MAX,
    BUNDLE_MANIFEST_BYTES_MAX, SOURCE_MAP_BYTES_MAX.
    """
    if len(raw) > BUNDLE_FILE_BYTES_MAX:
        _too_large(f"it has more than {BUNDLE_FILE_BYTES_MAX} bytes")
    _check_end_record(raw)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = _read_entries(archive)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, EOFError, struct.error, ValueError) as error:
        raise ClientError("BundleInvalid", f"The bundle does not read as a zip: {error}.") from None
    is_sources = not is_image_needed and IMAGE not in entries
    _check_entries(entries, _REQUIRED_OF_SOURCES if is_sources else _REQUIRED)
    if _write(entries) != raw:
        _invalid("it is not laid out as `skerry build` lays bundles out")
    stated = entries.pop(DIGEST)
    digest = digest_of(entries)
    if stated != digest.encode():
        raise ClientError(
            "BundleDigestMismatch",
            f"The bundle's content has the digest {digest}, not the one it states: build it again.",
        )
    return Bundle(entries, Manifest.from_json(entries[MANIFEST]), digest)


def digest_of(entries: Mapping[str, bytes]) -> str:
    """The digest of a bundle's entries: hexadecimal SHA-256, the same whatever file holds them."""
    lines = (f"{hashlib.sha256(entries[name]).hexdigest()}  {name}\n" for name in sorted(entries) if name != DIGEST)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _write(entries: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = _UNIX
            info.external_attr = _MODE
            archive.writestr(info, entries[name])
    return out.getvalue()


def _check_end_record(raw: bytes) -> None:
    """Bounds what the zip reader will allocate for the directory, before it reads one."""
    if len(raw) < _END.size:
        _invalid("it is too short")
    signature, _, _, _, count, directory_bytes, _, comment_bytes = _END.unpack_from(raw, len(raw) - _END.size)
    if signature != b"PK\x05\x06" or comment_bytes:
        _invalid("it does not end as a zip without a comment")
    if count > BUNDLE_ENTRIES_MAX:
        _too_large(f"it has more than {BUNDLE_ENTRIES_MAX} entries")
    if directory_bytes > count * (_DIRECTORY_ENTRY_BYTES + BUNDLE_ENTRY_NAME_BYTES_MAX):
        _too_large(f"its names are longer than {BUNDLE_ENTRY_NAME_BYTES_MAX} bytes")


def _read_entries(archive: zipfile.ZipFile) -> dict[str, bytes]:
    infos = archive.infolist()
    if len(infos) > BUNDLE_ENTRIES_MAX:
        _too_large(f"it has more than {BUNDLE_ENTRIES_MAX} entries")
    # What is stored takes as many bytes as it says, and all of it lies in the file: nothing here expands.
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in infos):
        _invalid("its entries are compressed")
    if any(info.flag_bits & ~_UTF8_NAME for info in infos):
        _invalid("its entries are encrypted or have flags")
    if sum(info.file_size for info in infos) > BUNDLE_FILE_BYTES_MAX:
        _too_large(f"its entries have more than {BUNDLE_FILE_BYTES_MAX} bytes")
    entries = {info.filename: archive.read(info) for info in infos}
    if len(entries) != len(infos):
        _invalid("it has two entries of one name")
    return entries


def _check_entries(entries: Mapping[str, bytes], required: frozenset[str]) -> None:
    if len(entries) > BUNDLE_ENTRIES_MAX:
        _too_large(f"it has more than {BUNDLE_ENTRIES_MAX} entries")
    for name, data in entries.items():
        if len(name.encode()) > BUNDLE_ENTRY_NAME_BYTES_MAX:
            _too_large(f"a name is longer than {BUNDLE_ENTRY_NAME_BYTES_MAX} bytes")
        if len(data) > _ENTRY_BYTES_MAX.get(name, BUNDLE_FILE_BYTES_MAX):
            _too_large(f"{name} has more than {_ENTRY_BYTES_MAX[name]} bytes")
        if _UNSAFE_NAME.search(name) or not (name.startswith(SOURCES) or name in _REQUIRED or name in _OPTIONAL):
            _invalid(f"it has an entry {name[:80]!r} that no bundle has")
    missing = required - entries.keys()
    if missing:
        _invalid(f"it has no {', '.join(sorted(missing))}")


def _invalid(reason: str) -> NoReturn:
    raise ClientError("BundleInvalid", f"The bundle cannot be read: {reason}.")


def _too_large(reason: str) -> NoReturn:
    raise ClientError("BundleTooLarge", f"The bundle is too large: {reason}.")
