"""A deployment: one database, one active version of code, one lane.

```
Deployment(folder) -> database, the version that was active -> call, call, ... activate(bundle) ... -> close
```

**Activation is atomic.** The bundle is stored under its digest and synced first; then one storage commit switches the
schema, its indexes and the name of the active bundle together. A crash leaves the old version or the new one. Calls
that began before keep the version they began with.

Concurrency: the loop thread, except that checking, compiling and describing a bundle happen on a worker thread.
"""

import asyncio
import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from skerry import limits
from skerry.bundle.bundle_file import Bundle, read_bundle
from skerry.database import Database
from skerry.errors import ClientError, DeveloperError, SkerryError, SystemFault
from skerry.functions.execution import parse_arguments
from skerry.functions.failures import error_message, host_failure
from skerry.functions.function_table import FunctionSpec, normalise_path
from skerry.functions.lane import Done, Lane, Work
from skerry.functions.operations import wrong_kind
from skerry.functions.request import CallRequest, CallResult
from skerry.functions.upkeep import Upkeep
from skerry.functions.version import Version, load_version
from skerry.isolate import ModuleCache, get_engine
from skerry.storage.folder import sync_folder
from skerry.storage.interface import Tree
from skerry.storage.lmdb_engine import LmdbEngine

_ACTIVE_KEY: Final[bytes] = b"active bundle"
_BUNDLES: Final[str] = "bundles"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Deployment:
    """The deployment in a folder, being served, with the version that was active when it was closed. Opening it blocks.

    Raises: SystemFault DataFolderInUse, DataFolderFormat, StorageFailed, StorageFull.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        clock_ns: Callable[[], int],
        entropy: Callable[[int], bytes],
        host_key: bytes,
        loop: asyncio.AbstractEventLoop,
        compiled_cache: Path | None,
        production: bool,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.production = production
        self._loop = loop
        self._environment = dict(environment or {})
        self._bundles = folder / _BUNDLES
        self._engine = LmdbEngine(folder)
        self._bundles.mkdir(mode=0o700, exist_ok=True)
        self._cache = ModuleCache(get_engine(), compiled_cache, host_key)
        self.database = Database(
            self._engine,
            clock_ns=clock_ns,
            call_soon_threadsafe=loop.call_soon_threadsafe,
            call_soon=loop.call_soon,
            cursor_key=hmac.digest(host_key, b"cursors " + name.encode(), "sha256"),
        )
        self.lane = Lane(self.database, loop, clock_ns, entropy)
        self._upkeep = Upkeep(self.database, self._engine, clock_ns, loop)
        self._activating = asyncio.Lock()
        self._closing = False
        try:
            self.version: Version | None = self._load_active()
        except BaseException:
            self.lane.close()
            self._engine.close()
            raise
        self._upkeep.start()

    # -- calls ---------------------------------------------------------------------------------------------------

    def call(self, request: CallRequest, done: Done) -> None:
        """Runs a function; `done` hears of the outcome on the loop thread, for a mutation once it is on disk.

        Shape of the outcome: a CallResult, also for a function's own failure; a SkerryError where the host could not
        run it.
        """
        if self._closing:
            done(_shutting_down())
            return
        version = self.version
        try:
            if version is None:
                raise DeveloperError(
                    "NoActiveVersion",
                    _missing(request, f" Deploy an app first: skerry deploy APP --url ... ({self.name})"),
                )
            spec = _find(version, request)
            args = parse_arguments(request.args)
        except DeveloperError as error:
            message = error_message(request.request_id, host_failure(error))
            done(CallResult(False, b"", [], None, message, None, error.code))
            return
        except SkerryError as error:
            done(error)
            return
        self.lane.run(Work(version, spec, args, request, done))

    async def run(self, request: CallRequest) -> CallResult:
        """The same as a coroutine. Raises: SkerryError."""
        future: asyncio.Future[CallResult] = self._loop.create_future()

        def done(outcome: CallResult | SkerryError) -> None:
            if future.done():
                return
            if isinstance(outcome, SkerryError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.call(request, done)
        return await future

    # -- versions ------------------------------------------------------------------------------------------------

    async def activate(self, raw: bytes) -> dict[str, Any]:
        """Makes an uploaded bundle the active version; nothing changes where it is refused.

        Raises: ClientError of the bundle, the module, its description or its schema; SystemFault of storage;
        `DeployInProgress`.
        """
        if self._activating.locked():
            raise ClientError("DeployInProgress", "Another deploy is under way. Try again when it is done.")
        async with self._activating:
            version = await asyncio.to_thread(self._load, raw)
            if self._closing:
                raise _shutting_down()
            try:
                self.database.apply_schema(version.schema, [(Tree.META, _ACTIVE_KEY, version.digest.encode())])
            except DeveloperError as error:
                if self.version is None or self.version.digest != version.digest:
                    (self._bundles / version.digest).unlink(missing_ok=True)
                raise ClientError("SchemaRefused", f"{error.code}: {error.message}") from error
            self.version = version
            await asyncio.to_thread(self._forget_old_bundles, version.digest)
            return self.describe()

    def describe(self) -> dict[str, Any]:
        """The active version. Shape: `version` (digest or None), `functions` as described, `features`."""
        version = self.version
        if version is None:
            return {"version": None, "functions": [], "features": []}
        return {"version": version.digest, "functions": version.listed, "features": version.features}

    async def close(self) -> None:
        """Takes no more calls, waits for those in flight, closes the storage."""
        self._closing = True
        async with self._activating:  # what is being activated ends first, refused
            pass
        await self.lane.idle()
        self._upkeep.stop()
        await asyncio.to_thread(self.lane.close)
        await asyncio.to_thread(self._engine.close)

    def _load(self, raw: bytes) -> Version:
        """The version in an uploaded bundle, which then is on disk under its digest. Not for the loop thread."""
        bundle = read_bundle(raw)
        version = load_version(bundle, self._cache, self.name, self._environment)
        self._store(bundle, raw)
        return version

    def _store(self, bundle: Bundle, raw: bytes) -> None:
        path = self._bundles / bundle.digest
        if not path.exists():
            temporary = path.with_suffix(".new")
            try:
                with temporary.open("wb") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
                sync_folder(self._bundles)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                raise SystemFault("StorageFull", f"The bundle could not be stored: {error.strerror}.") from error

    def _forget_old_bundles(self, active: str) -> None:
        """Keeps the newest `BUNDLES_KEPT_MAX` files, the active one among them, and nothing half written."""
        files = [path for path in self._bundles.iterdir() if path.name != active]
        for path in files:
            if not _DIGEST.fullmatch(path.name):
                path.unlink(missing_ok=True)
        files = [path for path in files if _DIGEST.fullmatch(path.name)]
        files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in files[limits.BUNDLES_KEPT_MAX - 1 :]:
            path.unlink(missing_ok=True)

    def _load_active(self) -> Version | None:
        snapshot = self._engine.snapshot()
        try:
            digest = snapshot.get(Tree.META, _ACTIVE_KEY)
        finally:
            snapshot.close()
        if digest is None:
            return None
        try:
            raw = (self._bundles / digest.decode()).read_bytes()
        except OSError as error:
            raise SystemFault(
                "StorageFailed", f"The active bundle {digest.decode():.12} cannot be read: {error.strerror}."
            ) from error
        return load_version(read_bundle(raw), self._cache, self.name, self._environment)


def _shutting_down() -> SystemFault:
    return SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment.")


def _find(version: Version, request: CallRequest) -> FunctionSpec:
    """The function a request means.

    Raises: ClientError for a malformed path; DeveloperError for a missing function or one of another kind.
    """
    path = normalise_path(request.path)
    if path is None:
        raise ClientError(
            "BadConvexFunctionIdentifier", f"{request.path!r:.200} is no function path. Write module:function."
        )
    spec = version.functions.get(path)
    if spec is None and f"node:{path.rpartition(':')[0]}" in version.features:
        raise DeveloperError(
            "FeatureNotServed", f"'{path}' is in a \"use node\" module: the Node runtime is not served yet."
        )
    if spec is None or spec.kind == "httpAction" or not (spec.is_public or request.is_admin):
        raise DeveloperError("FunctionPathNotFound", _missing(request, ""))
    if request.kind is not None and spec.kind != request.kind:
        raise DeveloperError("WrongFunctionKind", wrong_kind(spec.name, request.kind, spec.kind))
    if spec.kind == "action":
        raise DeveloperError("FeatureNotServed", "Actions are not served yet.")
    return spec


def _missing(request: CallRequest, advice: str) -> str:
    if request.wording == "public":
        return f"Could not find public function for '{request.path}'.{advice}"
    return f"Could not find function for '{request.path}'. Did you forget to run `npx convex dev`?{advice}"
