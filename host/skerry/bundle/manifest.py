"""What a bundle says about itself: how it was made, and what it holds.

The host believes none of it. `functions`, `schema` and `features` are there for tools that look at a bundle without
running it; a server derives them again by running `describe`, and refuses a bundle whose manifest says something
else. `clock_ms`, `seed`, `entries` and the digests are what `skerry verify` builds again from.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import orjson

from skerry.errors import ClientError
from skerry.limits import APP_ENTRY_MODULES_MAX, BUNDLE_MANIFEST_BYTES_MAX
from skerry.value import values_are_within

FORMAT: Final = 1
_NODE: Final = "node:"
_CLOCK_MS_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says about itself.

    Shape: `functions`, `schema` and `features` as `describe` gives them; `clock_ms` since the Unix epoch; `seed` 32
    bytes in hexadecimal; `entries` from module name to file; `sources` from canonical name to SHA-256; `build` from
    tool to version.
    """

    language: str
    abi: int
    engine_digest: str
    prelude_digest: str
    clock_ms: int
    seed: str
    functions: list[Any]
    schema: Any
    features: list[Any]
    functions_folder: str
    entries: Mapping[str, str]
    build: Mapping[str, str]
    sources: Mapping[str, str]
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Canonical JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)

    @staticmethod
    def from_json(raw: bytes) -> "Manifest":
        """The manifest in these bytes.

        Raises: ClientError `BundleInvalid`, `BundleTooLarge`.
        Limits: BUNDLE_MANIFEST_BYTES_MAX, APP_ENTRY_MODULES_MAX.
        """
        if len(raw) > BUNDLE_MANIFEST_BYTES_MAX:
            raise ClientError("BundleTooLarge", f"The manifest has more than {BUNDLE_MANIFEST_BYTES_MAX} bytes.")
        try:
            parsed: Any = orjson.loads(raw) if values_are_within(raw) else None
        except orjson.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            raise ClientError("BundleInvalid", "The manifest is not a JSON object.")
        fields = cast("dict[str, Any]", parsed)
        wrong = sorted(name for name, check in _CHECKS.items() if name not in fields or not check(fields[name]))
        if fields.keys() != _CHECKS.keys() or wrong:
            named = wrong or sorted(str(name)[:40] for name in fields.keys() - _CHECKS.keys())
            raise ClientError("BundleInvalid", f"The manifest's field {named[0]} is not as a manifest has it.")
        return Manifest(**fields)


def node_modules_of(features: list[Any]) -> tuple[str, ...]:
    """The modules that ask for the Node runtime, as `describe` lists them among the features (`node:<module>`)."""
    return tuple(
        sorted(item.removeprefix(_NODE) for item in features if isinstance(item, str) and item.startswith(_NODE))
    )


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and all(c in "0123456789abcdef" for c in value)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in cast("dict[str, Any]", value).values())


def _is_entries(value: Any) -> bool:
    return _is_text_map(value) and len(cast("dict[str, Any]", value)) <= APP_ENTRY_MODULES_MAX


_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "format": lambda value: value == FORMAT and type(value) is int,
    "language": lambda value: isinstance(value, str) and len(value) <= 64,
    "abi": lambda value: type(value) is int,
    "engine_digest": _is_digest,
    "prelude_digest": _is_digest,
    "clock_ms": lambda value: type(value) is int and 0 <= value <= _CLOCK_MS_MAX,
    "seed": _is_digest,
    "functions": lambda value: isinstance(value, list),
    "schema": lambda value: value is None or isinstance(value, dict),
    "features": lambda value: isinstance(value, list),
    "functions_folder": lambda value: isinstance(value, str) and len(value) <= 512,
    "entries": _is_entries,
    "build": _is_text_map,
    "sources": _is_text_map,
}
