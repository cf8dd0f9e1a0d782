"""From an app's folder to a bundle, and back again to prove it.

``` build_app(folder)       sources -> one script (esbuild) -> image (engine + prelude + script, evaluated) ->
describe -> bundle rebuild(bundle)         the same from the bundle's own sources, clock and seed verify_bundle(file)
rebuild and compare bytes image_of(bundle, ...)   the image alone, from the bundle's script: what a host does after an
engine fix; needs no Node ```

Invariants: the bundle's bytes depend on the app's sources, the pinned packages, the engine, the prelude, the clock
and the seed alone, not on where folders lie, on the environment or on the time of the build. The default seed follows
from the sources; the clock is the caller's.

Tenant code runs here, while modules load and while `describe` runs: in what `instantiate` makes, under its limits, or,
while modules load, where `image_builder` has it run (`skerry.bundle.jail_jobs`: in a confined process).
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import orjson

from skerry.bundle.bundle_file import (
    IMAGE,
    MANIFEST,
    RESOLUTIONS,
    SCRIPT,
    SOURCE_MAP,
    SOURCES,
    Bundle,
    make_bundle,
    read_bundle,
)
from skerry.bundle.engine_build import engine_wasm
from skerry.bundle.esbuild import Bundler, Script
from skerry.bundle.folders import cache_folder
from skerry.bundle.image import STATUS_DONE, ImageBuilder, Runner, build_image
from skerry.bundle.image import Script as ImageScript
from skerry.bundle.manifest import Manifest, node_modules_of
from skerry.bundle.node import Progress
from skerry.bundle.prelude import PRELUDE_NAME, prelude_script
from skerry.bundle.source_maps import SCRIPT_NAME, StackMapper, shown_path
from skerry.bundle.sources import AppSources, EntryModule, find_sources
from skerry.errors import ClientError, Family, SkerryError
from skerry.limits import BUNDLE_FILE_BYTES_MAX, SOURCE_LINE_CHARS_MAX

ABI: Final = 1
ESBUILD_VERSION: Final = "0.27.0"
OPTIONS_VERSION: Final = "1"
# What the engine throws when modules take too long to load.
_ENDLESS: Final = ("InternalError", "interrupted")
# What `app.use` of the convex package says outside of Convex's own bundler.
_COMPONENT_WITHOUT_PATH: Final = "componentDefinitionPath"
_SEED_PURPOSE: Final = b"skerry deploy-time seed 1\0"

# Instances of a module for one build: (clock in ms, seed) -> (module bytes -> runner).
InstantiateAt = Callable[[int, bytes], Callable[[bytes], Runner]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What an image is made of besides the app: the engine's module and the prelude's text."""

    engine: bytes
    prelude: bytes


def default_parts(progress: Progress) -> Parts:
    """The engine and the prelude of this installation, built where a checkout has not built them yet."""
    return Parts(engine_wasm(cache_folder(), progress=progress), prelude_script(progress))


def build_app(
    folder: Path,
    *,
    clock_ms: int,
    instantiate_at: InstantiateAt,
    seed: bytes | None = None,
    progress: Progress = lambda _: None,
    bundler: Bundler | None = None,
    parts: Parts | None = None,
    image_builder: ImageBuilder | None = None,
) -> Bundle:
    """The bundle of the app in `folder`.

    `bundler` may be kept between builds; without a `seed`, it follows from the sources.

    Raises: ClientError `AppInvalid`, `CompileFailed`, `ModuleLoadFailed`, `NodeNotFound`,
    `NpmInstallFailed`, `BundleTooLarge`.
    """
    sources = find_sources(folder)
    progress("bundling")
    if bundler is not None:
        script = bundler.bundle(sources)
    else:
        with Bundler(progress) as own:
            script = own.bundle(sources)
    parts = parts or default_parts(progress)
    return _assemble(sources, script, clock_ms, seed, instantiate_at, parts, progress, image_builder)


def rebuild(
    bundle: Bundle, *, instantiate_at: InstantiateAt, progress: Progress = lambda _: None, parts: Parts | None = None
) -> Bundle:
    """The bundle that its own sources, clock and seed give with this installation's tools. Raises: as `build_app`."""
    manifest = bundle.manifest
    if RESOLUTIONS not in bundle.entries:
        raise ClientError("BundleInvalid", "The bundle does not carry what a rebuild needs.")
    resolutions = _text_map(bundle.entries[RESOLUTIONS])
    with tempfile.TemporaryDirectory(prefix="skerry-verify-") as temporary, Bundler(progress) as bundler:
        root, packages = _lay_out(bundle, Path(temporary).resolve())
        entries = tuple(EntryModule(name, path) for name, path in manifest.entries.items())
        sources = AppSources(root, manifest.functions_folder, entries, node_modules_of(manifest.features))
        progress("bundling again")
        script = bundler.bundle(sources, packages=packages, resolutions=resolutions)
        seed = bytes.fromhex(manifest.seed)
        parts = parts or default_parts(progress)
        return _assemble(sources, script, manifest.clock_ms, seed, instantiate_at, parts, progress)


def verify_bundle(
    path: Path, *, instantiate_at: InstantiateAt, progress: Progress = lambda _: None, parts: Parts | None = None
) -> Bundle:
    """The bundle in the file, after a rebuild gave the same bytes.

    Raises: ClientError `BundleNotReproduced`, naming the first entry that differs; as `read_bundle` and `build_app`.
    """
    if path.stat().st_size > BUNDLE_FILE_BYTES_MAX:
        raise ClientError("BundleTooLarge", f"{path} has more than {BUNDLE_FILE_BYTES_MAX} bytes.")
    bundle = read_bundle(path.read_bytes())
    again = rebuild(bundle, instantiate_at=instantiate_at, progress=progress, parts=parts)
    if again.to_bytes() != bundle.to_bytes():
        _refuse_difference(bundle, again)
    return bundle


def image_of(bundle: Bundle, *, image_builder: ImageBuilder, parts: Parts) -> bytes:
    """The image that the bundle's script gives with `parts`, under its recorded clock and seed. Raises: as
    `build_app`.
    """
    script = bundle.entries.get(SCRIPT)
    if script is None:
        raise ClientError("BundleInvalid", "The bundle does not carry its script.")
    manifest = bundle.manifest

    def build(scripts: Sequence[ImageScript]) -> bytes:
        return image_builder(parts.engine, scripts, manifest.clock_ms, bytes.fromhex(manifest.seed))

    return _evaluate(parts, script, bundle.source_map, bundle.sources(), build)


def _assemble(
    sources: AppSources,
    script: Script,
    clock_ms: int,
    seed: bytes | None,
    instantiate_at: InstantiateAt,
    parts: Parts,
    progress: Progress,
    image_builder: ImageBuilder | None = None,
) -> Bundle:
    files = {name: text.encode() for name, text in script.sources.items()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    seed = seed or _default_seed(digests)
    assert len(seed) == 32, "a seed has 32 bytes"
    instantiate = instantiate_at(clock_ms, seed)
    progress("evaluating modules")
    source_map = script.source_map.encode()

    def build(scripts: Sequence[ImageScript]) -> bytes:
        if image_builder is not None:
            return image_builder(parts.engine, scripts, clock_ms, seed)
        return build_image(parts.engine, scripts, instantiate)

    image = _evaluate(parts, script.text.encode(), source_map, files, build)
    described = _describe(image, instantiate, StackMapper(source_map))
    manifest = Manifest(
        language=described["language"],
        abi=ABI,
        engine_digest=hashlib.sha256(parts.engine).hexdigest(),
        prelude_digest=hashlib.sha256(parts.prelude).hexdigest(),
        clock_ms=clock_ms,
        seed=seed.hex(),
        functions=described["functions"],
        schema=described["schema"],
        features=described["features"],
        functions_folder=sources.functions_folder,
        entries={entry.name: entry.path for entry in sources.entries},
        build={"esbuild": ESBUILD_VERSION, "options": OPTIONS_VERSION},
        sources=digests,
    )
    return make_bundle(
        {
            IMAGE: image,
            MANIFEST: manifest.to_json(),
            SCRIPT: script.text.encode(),
            SOURCE_MAP: source_map,
            RESOLUTIONS: orjson.dumps(dict(script.resolutions), option=orjson.OPT_SORT_KEYS),
            **{SOURCES + name: data for name, data in files.items()},
        }
    )


def _evaluate(
    parts: Parts,
    script: bytes,
    source_map: bytes,
    sources: Mapping[str, bytes],
    build: Callable[[Sequence[ImageScript]], bytes],
) -> bytes:
    scripts = (ImageScript(PRELUDE_NAME, parts.prelude, seldom=True), ImageScript(SCRIPT_NAME, script))
    try:
        return build(scripts)
    except SkerryError as error:
        if error.code == "ImageBuildFailed":
            _refuse_load(_error_object(error.data), StackMapper(source_map), sources)
        if error.code == "GuestModuleInvalid" or error.spec.family is Family.SYSTEM:
            raise
        raise ClientError("ModuleLoadFailed", f"The app's modules do not finish loading: {error.message}") from error


def _describe(image: bytes, instantiate: Callable[[bytes], Runner], stacks: StackMapper) -> dict[str, Any]:
    runner = instantiate(image)
    try:
        packed = runner.call("describe", None)
    except SkerryError as error:
        raise ClientError("ModuleLoadFailed", f"The app does not describe its functions: {error.message}") from error
    payload = runner.read(packed & 0xFFFFFFFF, packed >> 32 & 0x0FFFFFFF)
    if packed >> 60 != STATUS_DONE:
        _refuse_load(_error_object(payload.decode("utf-8", "replace")), stacks, {})
    try:
        described: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        described = None
    fields = cast("dict[str, Any]", described) if isinstance(described, dict) else {}
    if not {"language", "functions", "schema", "features"} <= fields.keys():
        raise ClientError("ModuleLoadFailed", "The app does not describe its functions.")
    return fields


def _refuse_load(error: Mapping[str, Any], stacks: StackMapper, sources: Mapping[str, bytes]) -> NoReturn:
    """Says where in the user's own code loading failed, as far as the error's stack shows it."""
    name, message, stack = (str(error.get(field) or "") for field in ("name", "message", "stack"))
    what = f"Uncaught {name}: {message}" if name else f"Uncaught {message}"
    if (name, message) == _ENDLESS:
        what = "This code runs for too long while its module loads: does it end?"
    elif _COMPONENT_WITHOUT_PATH in message:
        what = "Components are not served yet: leave app.use out."
    place = stacks.locate(stack)
    if place is None:
        raise ClientError("ModuleLoadFailed", f"A module fails while it loads: {what}", {"message": what})
    lines = sources.get(place.source, b"").decode("utf-8", "replace").split("\n")
    line = lines[place.line - 1].rstrip()[:SOURCE_LINE_CHARS_MAX] if place.line <= len(lines) else ""
    shown = f"{place.source.removeprefix('app/')}:{place.line}:{place.column}"
    caret = "\n    " + line + "\n    " + " " * (place.column - 1) + "^" if place.column <= len(line) else ""
    data = {
        "message": what,
        "file": shown_path(place.source),
        "line": place.line,
        "column": place.column,
        "sourceLine": line,
        "stack": stacks.map_stack(stack),
    }
    raise ClientError("ModuleLoadFailed", f"{shown}: {what}{caret}\n{data['stack']}", data)


def _refuse_difference(bundle: Bundle, again: Bundle) -> NoReturn:
    ours = bundle.manifest
    for what, stated, found in (
        ("engine", ours.engine_digest, again.manifest.engine_digest),
        ("prelude", ours.prelude_digest, again.manifest.prelude_digest),
    ):
        if stated != found:
            raise ClientError(
                "BundleNotReproduced",
                f"The bundle was built with another {what} ({stated[:12]}..., here {found[:12]}...): verify it with "
                "the version of Skerry that built it.",
            )
    names = sorted(bundle.entries.keys() | again.entries.keys())
    # Causes before effects: a source that differs explains the script, the script explains the image.
    order = sorted(names, key=lambda name: (not name.startswith(SOURCES), name != SCRIPT, name != SOURCE_MAP, name))
    first = next(name for name in order if bundle.entries.get(name) != again.entries.get(name))
    raise ClientError("BundleNotReproduced", f"Rebuilding gives another {first} than the bundle has.", {"entry": first})


def _lay_out(bundle: Bundle, temporary: Path) -> tuple[Path, Path]:
    """Writes the bundle's sources as they lay; the app's folder and the folder of the pinned packages."""
    names = list(bundle.sources())
    above = max((int(area[2:]) for area in (name.partition("/")[0] for name in names) if _is_above(area)), default=0)
    root = temporary.joinpath("tree", *(f"u{n}" for n in range(above)), "app")
    packages = temporary / "packages" / "node_modules"
    root.mkdir(parents=True)
    packages.mkdir(parents=True)
    for name, data in bundle.sources().items():
        area, _, rest = name.partition("/")
        if not rest or ".." in rest.split("/") or not (area in ("app", "tools") or _is_above(area)):
            raise ClientError("BundleInvalid", f"The bundle has a source {name[:80]!r} that no build writes.")
        base = packages if area == "tools" else root if area == "app" else root.parents[int(area[2:]) - 1]
        file = base / rest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return root, packages


def _is_above(area: str) -> bool:
    return len(area) == 3 and area.startswith("up") and area[2] in "12345678"


def _default_seed(digests: Mapping[str, str]) -> bytes:
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(_SEED_PURPOSE + listed.encode()).digest()


def _error_object(data: Any) -> dict[str, Any]:
    try:
        parsed: Any = orjson.loads(data) if isinstance(data, str) else data
    except orjson.JSONDecodeError:
        parsed = None
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {"message": str(data)}


def _text_map(raw: bytes) -> dict[str, str]:
    try:
        parsed: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        parsed = None
    fields = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else None
    if fields is None or not all(isinstance(value, str) for value in fields.values()):
        raise ClientError("BundleInvalid", f"{RESOLUTIONS} of the bundle is not an object of strings.")
    return fields
