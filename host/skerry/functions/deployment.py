"""A deployment: one database, one active version of code, one lane.

```
Deployment(folder) -> database, the version that was active -> call, call, ... activate(bundle) ... -> close
```

**Activation is atomic.** The bundle is stored under its digest and synced first; then one storage commit switches the
schema, its indexes and the name of the active bundle together. A crash leaves the old version or the new one. Calls
that began before keep the version they began with. While documents are judged and indexes built (`schema_work`), all
calls go on. Once begun, a switch goes to its end, though whoever asked has left; a newer push takes its place.

Concurrency: the loop thread, except that checking, compiling and describing a bundle happen on a worker thread.
"""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from skerry.bundle.bundle_file import Bundle, read_bundle
from skerry.bundle.from_sources import with_image
from skerry.bundle.jail_jobs import jailed_image_builder
from skerry.bundle.source_maps import StackMapper
from skerry.database import Database, Steps
from skerry.database.bulk import clear_imported
from skerry.errors import ClientError, DeveloperError, SkerryError, SystemFault
from skerry.functions.action_fetch import WayOut
from skerry.functions.action_pool import ActionPool, get_action_pool
from skerry.functions.action_run import RunningAction
from skerry.functions.actions import Actions, Timers
from skerry.functions.awaited import awaited
from skerry.functions.care import Care
from skerry.functions.checked_versions import CheckedVersions
from skerry.functions.execution import is_long, parse_arguments
from skerry.functions.finding import find_function, missing, refused
from skerry.functions.function_table import Description
from skerry.functions.kept_versions import BUNDLES_FOLDER, KeptVersion, KeptVersions, Upload
from skerry.functions.lane import Done, Lane, Work
from skerry.functions.metering import Meter
from skerry.functions.patient_threads import PatientQueue, get_vector_threads
from skerry.functions.pushes import Pushes
from skerry.functions.query_cache import QueryCache
from skerry.functions.request import CallRequest, CallResult
from skerry.functions.scheduled import Scheduled
from skerry.functions.schema_work import SchemaWork
from skerry.functions.settings import Settings
from skerry.functions.stepping import Room, up_to_room
from skerry.functions.terms import Terms
from skerry.functions.upkeep import Upkeep
from skerry.functions.version import Version, check_version
from skerry.identity import Authority, read_providers
from skerry.isolate import CompiledModule, ModuleCache, compile_jailed, get_engine
from skerry.storage import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from skerry.vectors import Share, VectorIndexes, get_vector_memory

_log: Final = logging.getLogger("skerry.functions")
_CHECKED: Final[str] = "checked"
LOOK_SECONDS: Final = 0.01
LOOKS_MAX: Final = 200
_NS_PER_MS: Final = 1_000_000
Told = Callable[[], None]


class Deployment:
    """The deployment in a folder, being served, with the version that was active when it was closed.

    Shape: `modules` is the cache of compiled code that the deployments of a process share; without it there is one of
    its own. `way_out` is how actions reach the network (None: not at all), `timers` are the loop's, and `action_pool`
    is the process's where none is given. Its folder's lock is waited for up to `lock_seconds_max`. What
    `is_quarantined` by its digest is not loaded. Concurrency: opening it blocks, and may happen on any thread.

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
        modules: ModuleCache | None = None,
        way_out: WayOut | None = None,
        timers: Timers | None = None,
        action_pool: ActionPool | None = None,
        terms: Terms | None = None,
        lock_seconds_max: float = 0,
        is_quarantined: Callable[[str], bool] | None = None,
    ) -> None:
        self.name, self.production, self._loop = name, production, loop
        self.folder, self.clock_ns, self.entropy = folder, clock_ns, entropy
        self._clock_ns = clock_ns
        self._environment = dict(environment or {})
        self._is_quarantined = is_quarantined or _never
        self._engine = LmdbEngine(folder, lock_seconds_max=lock_seconds_max)
        self._checked = CheckedVersions(folder / _CHECKED, host_key)
        self._cache = modules or ModuleCache(get_engine(), compiled_cache, host_key, compile_jailed)
        try:
            self.database = Database(
                self._engine,
                clock_ns=clock_ns,
                call_soon_threadsafe=loop.call_soon_threadsafe,
                call_soon=loop.call_soon,
                cursor_key=hmac.digest(host_key, b"cursors " + name.encode(), "sha256"),
            )
        except BaseException:  # its lock and its thread would stay, and refuse the next attempt
            self._engine.close()
            raise
        self.terms = terms = terms or Terms()
        self.lane = Lane(self.database, loop, clock_ns, entropy, terms=terms)
        self.actions = Actions(
            self.database,
            loop,
            clock_ns,
            entropy,
            call=self._call_from_action,
            pool=action_pool or get_action_pool(),
            timers=timers or loop,
            way_out=way_out,
            terms=terms,
        )
        self._is_settled, self.scheduled = False, self._make_scheduled(timers or loop)
        self.cache, self.care = self._make_cache(), Care(self.database, self._engine, loop)
        self.authority = self._make_authority(way_out)
        secret = hmac.digest(host_key, b"vector filters " + name.encode(), "sha256")
        self.vectors = self._vector_indexes(timers or loop, secret)
        self._schema = SchemaWork(self.database, self.lane, loop, terms.meter, _shutting_down)
        self._activating, self._pushes = asyncio.Lock(), Pushes()
        self._stepping: set[asyncio.Task[None]] = set()
        self._is_clearing = False
        self.on_activated, self.on_drained, self._closing = list[Told](), list[Told](), False
        try:
            self.settings = Settings(self._engine)
            self._kept = KeptVersions(folder / BUNDLES_FOLDER, self._engine)
            self.version: Version | None = self._load_active()
        except BaseException:
            self._engine.close()
            raise
        self._upkeep = self._begin_upkeep(clock_ns)

    def _make_scheduled(self, timers: Timers) -> Scheduled:
        return Scheduled(
            self.folder, self.database, self.lane, self.actions, lambda: self.version, self._loop, timers,
            self.clock_ns, self.entropy, self.terms,
        )  # fmt: skip

    def _make_cache(self) -> QueryCache:
        return QueryCache(self.database, self.meter, self._run_query)

    def _make_authority(self, way_out: WayOut | None) -> Authority:
        return Authority(way_out, self._clock_ns, self._loop, time.thread_time_ns, self._charge)

    def _begin_upkeep(self, clock_ns: Callable[[], int]) -> Upkeep:
        upkeep = Upkeep(self.database, self._engine, clock_ns, self._loop, self.terms)
        upkeep.retention_s = lambda: self.settings.retention_s
        upkeep.after_turn = self._after_upkeep
        self._loop.call_soon_threadsafe(upkeep.start)
        self._loop.call_soon_threadsafe(self._schema.start)
        self._loop.call_soon_threadsafe(self.clear_imported)
        self._loop.call_soon_threadsafe(self.scheduled.start)
        return upkeep

    def _after_upkeep(self, has_more: bool) -> None:
        self.care.turn(has_more)
        self.scheduled.forget()

    # -- calls ---------------------------------------------------------------------------------------------------

    def call(self, request: CallRequest, done: Done) -> None:
        """Runs a function; `done` hears of the outcome on the loop thread, for a mutation once it is on disk.

        Shape of the outcome: a CallResult, also for a function's own failure; a SkerryError where the host could not
        run it.
        """
        if self._closing:
            done(_shutting_down())
            return
        try:
            version = self._version_for(request)
            spec = find_function(version, request)
            if spec.kind == "query" and request.within is None:
                told = self.cache.take(spec, request, done)
                if told is None:
                    return
                done = told
            args = None if is_long(request) else parse_arguments(request.args)
        except SkerryError as error:
            done(refused(request, error))
            return
        if spec.kind == "action":
            self.actions.start(version, spec, args, request, done, None)
        else:
            self.lane.run(Work(version, spec, args, request, done))

    def _run_query(self, request: CallRequest, done: Done) -> None:
        """As `call`, for a query that the cache has no answer to."""
        try:
            if self._closing:
                raise _shutting_down()
            version = self._version_for(request)
            spec = find_function(version, request)
            args = None if is_long(request) else parse_arguments(request.args)
        except SkerryError as error:
            done(refused(request, error))
            return
        self.lane.run(Work(version, spec, args, request, done))

    def kept_answer(self, path: str, args: bytes | None, identity: dict[str, Any] | None) -> CallResult | None:
        """The answer to a public query by its canonical path, where one is kept; who takes it counts it."""
        version = self.version
        spec = None if version is None or self._closing else version.functions.get(path)
        if spec is None or not spec.is_public or spec.kind != "query" or self.cache.is_logging:
            return None
        return self.cache.find(path, args or b"{}", identity)

    def _call_from_action(
        self, request: CallRequest, args: Any, done: Done, parent: RunningAction
    ) -> RunningAction | None:
        """Runs what an action calls: a call of its own, of the version that is live by now, also while closing."""
        try:
            version = self._version_for(request)
            spec = find_function(version, request)
        except SkerryError as error:
            done(refused(request, error))
            return None
        if spec.kind == "action":
            return self.actions.start(version, spec, args, request, done, parent)
        self.lane.run(Work(version, spec, args, request, done))
        return None

    def _version_for(self, request: CallRequest) -> Version:
        version = self.version
        if version is None:
            if self._kept.active is not None:
                raise _quarantined(self._kept.active)
            raise DeveloperError(
                "NoActiveVersion",
                missing(request, f" Deploy an app first: skerry deploy APP --url ... ({self.name})"),
            )
        return version

    start = call
    """What `admit` let in; the same, for a deployment without a host's gate in front."""

    def admit(self, queued: int, calls: int = 1) -> SkerryError | None:
        """The refusal of a call beside those under way and `queued` ones, None where it may come."""
        return self.terms.admit(queued + self.under_way, calls)

    @property
    def meter(self) -> Meter:
        """What its calls use."""
        return self.terms.meter

    async def run(self, request: CallRequest) -> CallResult:
        """The same as a coroutine. Raises: SkerryError."""
        return await awaited(self._loop, self.call, request)

    def _vector_indexes(self, timers: Timers, secret: bytes) -> VectorIndexes:
        return VectorIndexes(
            self.database,
            submit=partial(get_vector_threads().submit, PatientQueue()),
            call_soon_threadsafe=self._loop.call_soon_threadsafe,
            timers=timers,
            share=Share(get_vector_memory()),
            secret=secret,
            thread_time_ns=time.thread_time_ns,
            charge=self._charge,
        )

    def _charge(self, cpu_ns: int) -> None:
        """Counts CPU time that no call can be named for."""
        self.meter.cpu_ns += cpu_ns

    # -- versions ------------------------------------------------------------------------------------------------

    def terms_changed(self) -> None:
        """Puts changed quotas in force now; what ran under other ones may have come to something else."""
        self.cache.clear()
        if not self._closing and self._engine.failed is None:
            self._upkeep.look_at_storage()

    @property
    def under_way(self) -> int:
        """How many calls run or wait."""
        return self.lane.in_flight + self.cache.n_waiting + self.actions.count

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight: no call, no activation."""
        is_calling = self.lane.in_flight or not self.actions.is_idle
        is_changing = self._activating.locked() or self._kept.arriving is not None
        return not is_calling and not is_changing and not self.care.is_busy and self._schema.is_idle

    @property
    def is_readable(self) -> bool:
        """Whether its storage can be looked at now."""
        return not self._closing and self._engine.failed is None

    def bundle_path(self, digest: str) -> Path:
        """Where the bundle of a kept version lies."""
        return self._kept.path(digest)

    def document_count(self) -> int:
        """How many documents there are, those that an import is about to show or to clear included."""
        return self._engine.items()[Tree.DOCUMENTS]

    def begin_upload(self) -> Upload:
        """A file for a bundle that arrives, to be activated or discarded.

        Raises: ClientError `DeployInProgress`; SystemFault `StorageFull`.
        """
        if self._kept.arriving is not None or (self._activating.locked() and not self._schema.gives_way):
            raise _in_progress()
        return self._kept.begin_upload()

    async def activate(self, upload: bytes | Path, push: str = "") -> dict[str, Any]:
        """Makes an uploaded bundle, or the file it is in, the active version; nothing changes where it is refused.

        A bundle without an image is sources: the image is built here first. `push` names it in `schema_progress`.

        Raises: ClientError of the bundle, the module, its description or its schema; SystemFault of storage;
        `DeployInProgress`.
        """
        return await self._switch(lambda: self._load(upload), push)

    async def rollback(self, version: str | None) -> dict[str, Any]:
        """Makes a kept version active again, by the beginning of its digest; None means the one before.

        The checks are those of an upload: its schema must fit the data as they are now.
        Raises: ClientError `VersionNotFound`, and as `activate`.
        """
        kept = self._kept.find(version)
        return await self._switch(lambda: (self._load_kept(kept.digest), kept.size_bytes))

    def versions(self) -> list[dict[str, Any]]:
        """The versions that are kept, the active one first, then by when each was last live."""
        return [{**kept.listed(), "active": kept.digest == self._kept.active} for kept in self._kept.list]

    async def _switch(self, load: Callable[[], tuple[Version, int]], push: str = "") -> dict[str, Any]:
        if self._activating.locked():
            if not self._schema.gives_way:
                raise _in_progress()
            self._schema.supersede()
        self._pushes.begun(push)
        try:
            await self._activating.acquire()
        except BaseException as error:
            self._pushes.ended(push, error)
            raise

        def ended(switched: asyncio.Task[dict[str, Any]]) -> None:
            self._activating.release()
            error = asyncio.CancelledError() if switched.cancelled() else switched.exception()
            self._pushes.ended(push, switched.result()["version"] if error is None else error)

        switching = self._loop.create_task(self._switch_alone(load))
        switching.add_done_callback(ended)
        return await asyncio.shield(switching)  # whoever asked may be gone

    async def _switch_alone(self, load: Callable[[], tuple[Version, int]]) -> dict[str, Any]:
        version, size_bytes = await asyncio.to_thread(load)
        if self._closing:
            raise _shutting_down()
        now_ms = self._clock_ns() // _NS_PER_MS
        entry = KeptVersion(version.digest, now_ms, size_bytes, len(version.listed))
        after, writes = self._kept.switch(entry)

        def on_switched() -> None:
            self._kept.switched(after)
            self.version = version
            self.cache.clear()
            self.scheduled.activated()
            self.authority.use(version.providers)
            for told in self.on_activated:
                told()

        try:
            await self._schema.apply(version.schema, writes, on_switched)
        except (DeveloperError, ClientError) as error:
            self._kept.discard(version.digest)
            self._checked.tidy(self._kept.digests)
            if isinstance(error, ClientError):
                raise
            raise ClientError("SchemaRefused", f"{error.code}: {error.message}") from error
        await asyncio.to_thread(self._tidy)
        return self.describe()

    def schema_progress(self) -> dict[str, Any]:
        """The state of each index, what is under way with them, and what became of the last pushes."""
        return {**self._schema.describe(), "pushes": self._pushes.describe()}

    async def _drive(self, steps: Steps) -> None:
        """Takes steps to their end, or until the deployment closes; others have the loop in between."""
        with contextlib.closing(steps):
            room = Room(self.database, self.lane)
            while await up_to_room(steps, self.meter):
                await room.make()
                if self._closing:
                    with contextlib.suppress(StopIteration):  # the switch is made, only clearing was left
                        steps.throw(_shutting_down())
                    return

    # -- imports and exports -------------------------------------------------------------------------------------

    async def take_steps(self, steps: Steps) -> None:
        """Takes steps to their end while calls go on, even if whoever asked has left. Closing waits for them.

        Raises: what the steps raise; SystemFault `ShuttingDown`.
        """
        stepping = self._loop.create_task(self._drive(steps))
        self._stepping.add(stepping)
        stepping.add_done_callback(self._stepping.discard)
        await asyncio.shield(stepping)

    async def take_steps_alone(self, make_steps: Callable[[], Steps]) -> None:
        """The same with the lane held and no deploy under way. The steps are few and short."""
        async with self._activating:
            await self.lane.hold()
            try:
                await self.take_steps(make_steps())
            finally:
                self.lane.release()

    def clear_imported(self) -> None:
        """Clears away what imports have left, in the background; once at a time."""
        if self._closing or self._is_clearing:
            return
        self._is_clearing = True

        def done(cleared: asyncio.Task[None]) -> None:
            self._is_clearing = False
            error = None if cleared.cancelled() else cleared.exception()
            if error is not None:  # the next opening tries again
                _log.warning("what imports left in %s could not be cleared: %s", self.name, error)

        self._loop.create_task(self.take_steps(clear_imported(self.database))).add_done_callback(done)

    def describe(self) -> dict[str, Any]:
        """The active version. Shape: `version` (digest or None), `functions` as described, `features`."""
        version = self.version
        if version is None:
            return {"version": None, "functions": [], "features": []}
        return {"version": version.digest, "functions": version.listed, "features": version.features}

    def drain(self) -> None:
        """Takes no more calls; actions have `ACTION_SHUTDOWN_SECONDS_MAX` from now on to end."""
        self._closing = True
        self.cache.clear()
        self.scheduled.stop()
        self.care.close()
        self.authority.close()
        self.actions.drain()
        for told in self.on_drained:
            told()

    async def close(self) -> None:
        """Takes no more calls, waits for those in flight, closes the storage."""
        self.drain()
        await self.actions.close()
        await self._schema.stop()
        async with self._activating:  # what is being activated ends first, refused
            pass
        while self._stepping:
            await asyncio.gather(*self._stepping, return_exceptions=True)
        await self.lane.idle()
        self._upkeep.stop()
        await self.care.walked()
        for _ in range(LOOKS_MAX):  # who looks asks `is_readable` between two pieces
            if self.database.looks.count:
                await asyncio.sleep(LOOK_SECONDS)
        settled: asyncio.Future[None] = self._loop.create_future()
        self.vectors.close(lambda: settled.set_result(None))
        await settled
        if not self._is_settled:
            self._is_settled = True
            due_ms = self.scheduled.next_due_ms() if self._engine.failed is None else 0.0
            await asyncio.to_thread(self._engine.close)
            await asyncio.to_thread(self.scheduled.settle, due_ms)
        await self.care.closed()

    def _load(self, upload: bytes | Path) -> tuple[Version, int]:
        """The version in an upload, which then is on disk under its digest. Not for the loop thread."""
        raw = upload if isinstance(upload, bytes) else upload.read_bytes()
        bundle = read_bundle(raw, is_image_needed=False)
        if not bundle.has_image:
            bundle = with_image(bundle, jailed_image_builder(self._cache))
            raw = bundle.to_bytes()
        if self._is_quarantined(bundle.digest):
            raise _quarantined(bundle.digest)
        version = self._check(bundle)
        self._kept.store(bundle.digest, raw)
        return version, len(raw)

    def _tidy(self) -> None:
        """Removes the files that are nobody's. What cannot be removed stays until the next time: a version is live."""
        try:
            self._kept.tidy()
            self._checked.tidy(self._kept.digests)
        except OSError as error:
            _log.warning("files of former versions of %s could not be removed: %s", self.name, error)

    def _load_kept(self, digest: str) -> Version:
        """The version in a kept bundle, checked again."""
        if self._is_quarantined(digest):
            raise _quarantined(digest)
        return self._check(read_bundle(self._kept.read(digest)))

    def _load_active(self) -> Version | None:
        """The active version, whose providers are in force from now on."""
        version = self._load_active_version()
        self.authority.use(() if version is None else version.providers)
        return version

    def _load_active_version(self) -> Version | None:
        """The active version by what was kept of its checks, or, where that is missing, checked again."""
        active = self._kept.active
        if active is None or self._is_quarantined(active):
            return None
        found = self._checked.find(active)
        module = None if found is None else self._cache.find(found.module_digest)
        if found is None or module is None:
            return self._load_kept(active)
        return self._version(active, module, found.description, found.map_bytes, is_known=True)

    def _check(self, bundle: Bundle) -> Version:
        """The version in a bundle that has passed all checks, of which the outcome is kept."""
        module, description = check_version(bundle, self._cache, self.name)
        self._checked.keep(bundle.digest, module.digest, description, bundle.source_map)
        return self._version(bundle.digest, module, description, len(bundle.source_map))

    def _version(
        self, digest: str, module: CompiledModule, description: bytes, map_bytes: int, *, is_known: bool = False
    ) -> Version:
        """A version ready to be called. Raises: ClientError, for an auth config that is not valid here, unless it was
        once."""
        stacks = StackMapper(lambda: self._source_map(digest), map_bytes)
        described = Description(description)
        try:
            providers = read_providers(described.auth, self._environment)
        except ClientError as error:
            if not is_known:
                raise
            _log.warning("nobody can authenticate with %s until it is deployed again: %s", self.name, error.message)
            providers = ()
        return Version(
            digest,
            module,
            described,
            stacks,
            self.name,
            self._environment,
            self.vectors,
            self.scheduled.due_mark,
            providers,
        )

    def _source_map(self, digest: str) -> bytes:
        """A kept version's source map: out of its bundle where it is nowhere else, empty where that is gone as well."""
        found = self._checked.source_map(digest)
        if found is not None:
            return found
        try:
            return read_bundle(self._kept.read(digest)).source_map
        except SkerryError:
            return b""


def _in_progress() -> ClientError:
    return ClientError("DeployInProgress", "Another deploy is under way. Try again when it is done.")


def _never(digest: str) -> bool:
    return False


def _quarantined(digest: str) -> SystemFault:
    return SystemFault(
        "ModuleQuarantined",
        f"The version {digest[:12]} crashed the server several times and is not run any more. Deploy another one.",
    )


def _shutting_down() -> SystemFault:
    return SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment.")
