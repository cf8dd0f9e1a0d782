"""A host: many deployments in one process, of which few are open.

The registry says which there are; a deployment is opened by its first call and closed when nothing has asked for it
for `DEPLOYMENT_IDLE_SECONDS`, or sooner when another needs its place among `DEPLOYMENTS_OPEN_MAX`. What is the same for
all of them exists once: the engine with its pool and linkers, compiled code, the event loop. What is not shared:
storage (an environment and a writer thread for each that is open), lanes, versions, secrets.

**Creating** is one commit of the registry; the folder appears with the first opening. **Deleting** is: the registry
says so, calls are refused, those in flight end, the folder is renamed and removed, the registry forgets. A crash
anywhere in between is finished by the next start. The name is free after that.

**Usage** is added to the registry at each sweep and at the end: a crash forgets what was used since the last one
that was saved. Quotas are `shares`.

Deliberately absent: moving deployments between hosts.

Concurrency: the loop thread; opening, closing and deleting do their blocking parts on worker threads.
"""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from skerry import limits
from skerry.admin.access import KeyRecord, Scope, find_key, new_key
from skerry.admin.alarm import Alarm, Timers, due_of_all
from skerry.admin.hosted import Hosted, Opener
from skerry.admin.registry import DeploymentRecord, Quotas, Registry, State, check_name, not_found
from skerry.admin.restore import Restore, remove_left
from skerry.admin.shares import Share, changed_quotas, effective
from skerry.admin.way_out import WaysOut
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.care import StorageSeen
from skerry.functions.deployment import Deployment
from skerry.functions.metering import CallLog, Meter, shown_usage
from skerry.isolate import ModuleCache, compile_jailed, get_engine
from skerry.storage.folder import DataFolder, DeploymentFolder, Hold
from skerry.storage.lmdb_engine import LmdbEngine

DEFAULT_NAME: Final = "local"
_NS_PER_MS: Final = 1_000_000
_MS_PER_S: Final = 1_000
_log: Final = logging.getLogger("skerry.host")

T = TypeVar("T")


class QuarantineView(Protocol):
    """Which versions of deployments are not run, because they crashed the process."""

    def has(self, deployment: str, digest: str) -> bool:
        """Whether this one is not. Any thread."""
        ...

    def listed(self) -> list[tuple[str, str]]:
        """All of them, as (deployment, digest)."""
        ...

    async def lift(self, deployment: str) -> None:
        """Lets a deployment's versions run again. Raises: SystemFault `QuarantineUnchanged`."""
        ...


@dataclass(frozen=True, slots=True)
class HostShare:
    """One process's share of a host that several serve.

    Shape: `owns` says by its name which deployments are this process's; no other is ever opened here. A process that
    `succeeds` another opens nothing before it is called. `quarantine` is what its supervisor keeps from being run.
    Of what the host has so much of, each of `workers` processes takes its part.
    """

    owns: Callable[[str], bool]
    succeeds: bool
    quarantine: "QuarantineView"
    workers: int = 1


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What a host is made with.

    Shape: `environment` gives a deployment's own variables by its name; `monotonic` is in seconds. `default_key` is the
    admin key of the default deployment, `credential` the host's.
    """

    clock_ns: Callable[[], int]
    monotonic: Callable[[], float]
    entropy: Callable[[int], bytes]
    host_key: bytes
    default_key: str
    credential: str
    compiled_cache: Path | None
    production: bool
    environment: Callable[[str], dict[str, str]]
    ways_out: WaysOut | None = None
    share: HostShare | None = None
    open_max: int = limits.DEPLOYMENTS_OPEN_MAX
    idle_seconds: float = limits.DEPLOYMENT_IDLE_SECONDS
    call_log: CallLog | None = None
    timers: Timers | None = None


class Host:
    """The deployments of a data folder. `start` before anything else, `close` at the end.

    Raises: SystemFault `DataFolderInUse`, `DataFolderFormat`, of storage. Opening it blocks.
    """

    def __init__(self, folder: DataFolder, options: HostOptions, loop: asyncio.AbstractEventLoop) -> None:
        self._folder = folder
        self._options = options
        self._loop = loop
        self._modules = ModuleCache(get_engine(), options.compiled_cache, options.host_key, compile_jailed)
        self._default_key = sha256(options.default_key.encode()).digest()
        self._credential = sha256(options.credential.encode()).digest()
        workers = 1 if options.share is None else options.share.workers
        self._opener = Opener(self._make, self._take_place, self._leave_place, options.monotonic, loop, workers)
        self._hosted: dict[str, Hosted] = {}
        self._open: dict[str, Hosted] = {}
        self._restoring: dict[str, Restore] = {}
        self._is_usage_saved = True
        self._timer: asyncio.TimerHandle | None = None
        self._alarm = Alarm(options.timers or loop, options.clock_ns, self._wake)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.registry = _open_registry(folder, is_shared=options.share is not None)

    async def start(self) -> None:
        """Finishes deletions that a crash interrupted, opens the default deployment and begins to sweep."""
        await asyncio.to_thread(remove_left, self._folder.deployments, self._owns)
        for record in self.registry.listed():
            if record.state is State.DELETING and self._owns(record.name):
                with contextlib.suppress(SystemFault):  # it is in the log, and no reason to serve none of the others
                    await self._finish_delete(record.name)
        record = await self.registry.find_or_create(DEFAULT_NAME, self._now_ms())
        default = self._hosted_of(record)
        default.is_pinned = True
        share = self._options.share
        if self._owns(DEFAULT_NAME) and not (share is not None and share.succeeds):
            self._open[DEFAULT_NAME] = default
            default.adopt(await asyncio.to_thread(self._make, DEFAULT_NAME))
        await self._set_alarm()
        self._schedule()

    def drain(self) -> None:
        """Takes no more calls; actions have a bounded time from now on to end."""
        self._opener.is_closing = True
        self._alarm.stop()
        for hosted in self._open.values():
            hosted.drain()

    async def close(self) -> None:
        """Takes no more calls, waits for those in flight, closes everything."""
        self._opener.is_closing = True
        self._alarm.stop()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            closings = (hosted.close() for hosted in list(self._hosted.values()))  # also of those that wait to open
            for outcome in await asyncio.gather(*closings, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    _log.error("a deployment did not close in order", exc_info=outcome)
            self._gather_usage()
            await self.registry.save_usage()
            if self._options.call_log is not None:
                await asyncio.to_thread(self._options.call_log.write)
        finally:
            await asyncio.to_thread(self.registry.close)

    # -- quarantine --------------------------------------------------------------------------------------------------

    def owns(self, name: str) -> bool:
        """Whether this process serves the deployment of that name."""
        return self._owns(name)

    def quarantined(self) -> list[tuple[str, str]]:
        """The versions that are not run, as (deployment, bundle digest)."""
        share = self._options.share
        return [] if share is None else share.quarantine.listed()

    async def lift_quarantine(self, name: str) -> list[str]:
        """Lets the quarantined versions of a deployment run again, from its next call on; their digests.

        Raises: SystemFault `QuarantineUnchanged`.
        """
        lifted = await self._forget_quarantine(name)
        hosted = self._hosted.get(name)
        if lifted and hosted is not None and hosted.is_open and hosted.closing is None:
            await hosted.begin_close()  # what is called next opens it, with the version that it did not load
        return lifted

    async def activated(self, name: str) -> None:
        """Takes note that a deployment runs another version: what crashed before may be gone back to."""
        try:
            await self._forget_quarantine(name)
        except SystemFault as fault:
            _log.warning("quarantined versions of %s stay quarantined: %s", name, fault.message)

    async def _forget_quarantine(self, name: str) -> list[str]:
        digests = [digest for deployment, digest in self.quarantined() if deployment == name]
        share = self._options.share
        if digests and share is not None:
            await share.quarantine.lift(name)
        return digests

    # -- finding -----------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Hosted | None:
        """The deployment of that name, None where there is none. It may be paused."""
        hosted = self._hosted.get(name)
        if hosted is not None:
            return hosted
        record = self.registry.find(name)
        return None if record is None or record.state is State.DELETING else self._hosted_of(record)

    @property
    def default(self) -> Hosted:
        return self._hosted[DEFAULT_NAME]

    @property
    def open_count(self) -> int:
        """How many deployments are open, opening or closing."""
        return len(self._open)

    # -- keys --------------------------------------------------------------------------------------------------------

    def is_host_credential(self, sent: bytes) -> bool:
        """Whether this is the host's own credential, in constant time."""
        return hmac.compare_digest(sha256(sent).digest(), self._credential)

    def scope_of(self, name: str, sent: bytes) -> Scope | None:
        """The scope of a sent key for a deployment, None where it is none. Constant time in the secret."""
        if name == DEFAULT_NAME and hmac.compare_digest(sha256(sent).digest(), self._default_key):
            return Scope.ADMIN
        record = self.key_of(name, sent)
        return None if record is None else record.scope

    def key_of(self, name: str, sent: bytes) -> KeyRecord | None:
        """What is kept of a sent key, None where it is none or is the default deployment's own."""
        return find_key(sent, name, lambda key_id: self.registry.key(name, key_id), self._now_ms())

    async def create_key(
        self, name: str, scope: object, label: object, expires_ms: object, ends_by_ms: int | None = None
    ) -> tuple[KeyRecord, str]:
        """A new key of a deployment, and its text, which nobody can be shown again; it ends by `ends_by_ms`.

        Raises: ClientError `InvalidKeyRequest`, `DeploymentNotFound`, `TooManyKeys`.
        """
        record, text = new_key(name, scope, label, expires_ms, self._now_ms(), self._options.entropy, ends_by_ms)
        await self.registry.add_key(record)
        return record, text

    # -- operating ---------------------------------------------------------------------------------------------------

    async def create(self, name: str) -> DeploymentRecord:
        """A new deployment, without code. Raises: as `Registry.create`; `DeploymentNameTaken` also for a folder that
        lies in its place: nobody inherits another's data.
        """
        if self.registry.find(name) is None and name in self._folder.deployment_names():
            raise ClientError(
                "DeploymentNameTaken",
                f"The data folder has a folder for '{name}' that the registry does not know: move it away first.",
            )
        return await self.registry.create(name, self._now_ms())

    def begin_restore(self, name: str, quotas: dict[str, Any] | None = None) -> Restore:
        """A new deployment, with these quotas set, that is to be made of backups, which arrive next; ended by
        `end_restore`.

        Raises: ClientError `DeploymentNameInvalid`, `DeploymentNameTaken`, `InvalidQuotas`, `RestoreInProgress`,
        `TooManyRestores`; SystemFault `StorageFull`. Limits: RESTORES_MAX.
        """
        check_name(name)
        wanted = changed_quotas(Quotas(), quotas or {})
        if self.registry.find(name) is not None or name in self._folder.deployment_names():
            raise ClientError("DeploymentNameTaken", f"There is a deployment '{name}' already: choose another name.")
        if name in self._restoring:
            raise ClientError("RestoreInProgress", f"'{name}' is being restored already: wait for its end.")
        if len(self._restoring) >= limits.RESTORES_MAX:
            raise ClientError("TooManyRestores", f"{limits.RESTORES_MAX} restores are under way: wait for one's end.")
        restore = self._restoring[name] = Restore(name, self._folder.deployments, wanted)
        return restore

    async def restore(self, restore: Restore) -> dict[str, Any]:
        """Makes the deployment of what has arrived: all of it or nothing. What it came to.

        Raises: ClientError `BackupInvalid`, as `Registry.create`; SystemFault of storage.
        """

        async def work() -> dict[str, Any]:
            quota = effective(restore.quotas).storage_bytes
            made = await asyncio.to_thread(restore.build, self._options.clock_ns, quota or limits.QUOTA_MAX)
            await self.registry.create(restore.name, self._now_ms(), State.DELETING, restore.quotas)
            try:
                await asyncio.to_thread(restore.put_in_place)
            except BaseException:
                await self._finish_delete(restore.name)
                raise
            await self.registry.settle(restore.name)
            self._alarm.look(restore.name, self._folder.deployment_path(restore.name))
            return made

        try:
            return await asyncio.shield(self._spawn(self._restored(restore, work())))
        except asyncio.CancelledError:
            raise ClientError("ShuttingDown", "The server is stopping: it finishes what it has begun.") from None

    async def _restored(self, restore: Restore, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        try:
            return await work
        finally:
            self.end_restore(restore)

    def end_restore(self, restore: Restore) -> None:
        """Takes away what is left of a restore that was begun. A second time is no error."""
        if self._restoring.pop(restore.name, None) is not None:
            restore.discard()

    async def pause(self, name: str) -> DeploymentRecord:
        """Refuses further calls; those in flight finish. Raises: ClientError `DeploymentNotFound`."""
        return await self._set_state(name, State.PAUSED)

    async def resume(self, name: str) -> DeploymentRecord:
        """Takes calls again. Raises: ClientError `DeploymentNotFound`."""
        return await self._set_state(name, State.ACTIVE)

    async def set_quotas(self, name: str, quotas: Quotas) -> DeploymentRecord:
        """Puts quotas in force. Raises: ClientError `DeploymentNotFound`."""
        record = await self.registry.update(name, quotas=quotas)
        hosted = self._hosted.get(name)
        if hosted is not None:
            hosted.set_quotas(record.quotas)
        return record

    async def change_quotas(self, name: str, asked: dict[str, Any]) -> DeploymentRecord:
        """Sets some quotas; None gives one back to the host's default.

        Raises: ClientError `DeploymentNotFound`, `InvalidQuotas`.
        """
        record = self.registry.find(name)
        if record is None:
            raise not_found(name)
        return await self.set_quotas(name, changed_quotas(record.quotas, asked))

    def usage_now(self) -> Mapping[str, Meter]:
        """What the deployments that were called since this process began have used in it, by name."""
        return {name: hosted.share.meter for name, hosted in self._hosted.items()}

    def storage_now(self) -> Mapping[str, tuple[StorageSeen, int]]:
        """What the storage of the open deployments takes, and how many seconds their history is kept, by name."""
        seen = {name: hosted.storage_seen() for name, hosted in self._open.items()}
        return {name: one for name, one in seen.items() if one is not None}

    def usage(self, name: str) -> dict[str, int]:
        """What a deployment has used since it was created, as `shown_usage` shows it. Shape: also `storageBytes`, of
        one that is open.

        Raises: ClientError `DeploymentNotFound`.
        """
        if self.registry.find(name) is None:
            raise not_found(name)
        hosted = self._hosted.get(name)
        if hosted is not None:
            self._add_usage(hosted)
        shown = shown_usage(self.registry.usage(name))
        if hosted is not None and hosted.storage_bytes is not None:
            shown["storageBytes"] = hosted.storage_bytes
        return shown

    async def delete(self, name: str) -> None:
        """Deletes a deployment with everything in it; on return its name is free.

        Raises: ClientError `DeploymentNotFound`, `DeploymentProtected`; SystemFault where files could not be removed,
        and the next start tries again.
        """
        if name == DEFAULT_NAME:
            raise ClientError("DeploymentProtected", f"'{name}' is the default deployment: pause it instead.")
        await asyncio.shield(self._spawn(self._delete(name)))  # whoever asked may be gone

    def sweep(self) -> None:
        """Closes what nobody asked for lately; runs every `DEPLOYMENT_SWEEP_SECONDS`."""
        now = self._options.monotonic()
        for hosted in list(self._open.values()):
            if hosted.used:
                hosted.used = False
                hosted.idle_since = now
            elif hosted.may_close and now - hosted.idle_since >= self._options.idle_seconds:
                self._spawn(self._close_idle(hosted))
        self._gather_usage()
        if self.registry.has_unsaved_usage:
            self._spawn(self._save_usage())

    # -- inside ------------------------------------------------------------------------------------------------------

    def _make(self, name: str) -> Deployment:
        """Opens a deployment. Blocks: on a worker thread."""
        options, share, hosted = self._options, self._options.share, self._hosted.get(name)
        if not self._owns(name):
            raise SystemFault(
                "InternalServerError", f"Deployment '{name}' was asked for in a process that has no part in it."
            )
        return Deployment(
            self._folder.deployment_path(name),
            name=name,
            clock_ns=options.clock_ns,
            entropy=options.entropy,
            host_key=options.host_key,
            loop=self._loop,
            compiled_cache=options.compiled_cache,
            production=options.production,
            environment=options.environment(name),
            modules=self._modules,
            way_out=None
            if options.ways_out is None
            else options.ways_out.make(None if hosted is None else hosted.share),
            terms=None if hosted is None else hosted.share,
            lock_seconds_max=0 if share is None else limits.STORAGE_LOCK_SECONDS_MAX,
            is_quarantined=None if share is None else partial(share.quarantine.has, name),
            timers=options.timers,
        )

    async def _set_alarm(self) -> None:
        """Takes in when which deployment is to be opened. What another process has open still is left to it for now."""
        names = [record.name for record in self.registry.listed() if self._owns(record.name)]
        found = await asyncio.to_thread(due_of_all, self._folder.deployment_path, names)
        share = self._options.share
        wait_s = limits.SCHEDULED_SUCCESSOR_SECONDS if share is not None and share.succeeds else 0
        for name, due_ms in found.items():
            self._alarm.set(name, max(due_ms, self._now_ms() + wait_s * _MS_PER_S))

    def _wake(self, name: str) -> None:
        """Opens a deployment of which a scheduled function is due."""
        hosted = self.find(name)
        if hosted is None or hosted.is_open or hosted.state is not State.ACTIVE:
            return

        async def open_it() -> None:
            try:
                async with hosted.using():
                    pass
            except SkerryError as error:
                _log.warning("%s could not be opened for what it has scheduled: %s", name, error.code)
                if hosted.state is State.ACTIVE:
                    self._alarm.set_in(name, limits.SCHEDULED_OPEN_AGAIN_SECONDS)

        self._spawn(open_it())

    def _owns(self, name: str) -> bool:
        share = self._options.share
        return share is None or share.owns(name)

    async def _take_place(self, hosted: Hosted) -> None:
        """A place for one that is opening, made by closing the one that was idle for longest.

        Raises: SystemFault `TooManyDeploymentsOpen`.
        """
        while len(self._open) >= self._options.open_max:
            closing = next((other.closing for other in self._open.values() if other.closing is not None), None)
            if closing is None:
                idle = [other for other in self._open.values() if other.may_close]
                if not idle:
                    raise SystemFault(
                        "TooManyDeploymentsOpen", "Too many deployments of this host are busy at once. Try again soon."
                    )
                closing = min(idle, key=lambda other: (other.used, other.idle_since)).begin_close()
            await asyncio.gather(closing, return_exceptions=True)
        self._open[hosted.name] = hosted

    def _leave_place(self, hosted: Hosted) -> None:
        if self._open.get(hosted.name) is hosted:
            del self._open[hosted.name]
        if hosted.state is State.ACTIVE:
            self._alarm.look(hosted.name, self._folder.deployment_path(hosted.name))

    def _hosted_of(self, record: DeploymentRecord) -> Hosted:
        hosted = self._hosted.get(record.name)
        if hosted is None:
            hosted = self._hosted[record.name] = Hosted(record.name, record.state, self._opener, self._share_of(record))
        return hosted

    def _share_of(self, record: DeploymentRecord) -> Share:
        options = self._options
        return Share(record.name, record.quotas, options.monotonic, call_log=options.call_log)

    def _gather_usage(self) -> None:
        for hosted in self._hosted.values():
            self._add_usage(hosted)

    def _add_usage(self, hosted: Hosted) -> None:
        amounts = hosted.share.take_usage()
        if amounts:
            self.registry.add_usage(hosted.name, amounts)

    async def _close_idle(self, hosted: Hosted) -> None:
        if not hosted.may_close:  # something came before this task's turn
            return
        try:
            await hosted.begin_close()
        except Exception:
            _log.exception("deployment %s did not close in order", hosted.name)

    async def _save_usage(self) -> None:
        try:
            await self.registry.save_usage()
        except SystemFault as fault:
            if self._is_usage_saved:
                _log.warning("usage cannot be saved, and is tried again: %s: %s", fault.code, fault.message)
            self._is_usage_saved = False
        else:
            self._is_usage_saved = True

    async def _set_state(self, name: str, state: State) -> DeploymentRecord:
        async def change() -> DeploymentRecord:
            record = await self.registry.update(name, state=state)
            hosted = self._hosted.get(name)
            if hosted is not None:
                hosted.set_state(state)
            if state is State.ACTIVE and (hosted is None or not hosted.is_open) and self._owns(name):
                self._alarm.look(name, self._folder.deployment_path(name))
            return record

        return await asyncio.shield(self._spawn(change()))  # whoever asked may be gone

    async def _delete(self, name: str) -> None:
        await self.registry.update(name, state=State.DELETING)
        hosted = self._hosted.pop(name, None)
        if hosted is not None:
            hosted.state = None
            await hosted.close()
        await self._finish_delete(name)
        await self.activated(name)  # whoever has the name next begins without its crashes

    async def _finish_delete(self, name: str) -> None:
        try:
            await asyncio.to_thread(self._folder.delete_deployment, name)
        except SystemFault as fault:
            _log.error("deployment %s cannot be deleted now; the next start tries again: %s", name, fault.message)
            raise
        await self.registry.forget(name)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _schedule(self) -> None:
        def turn() -> None:
            self.sweep()
            self._schedule()

        self._timer = self._loop.call_later(limits.DEPLOYMENT_SWEEP_SECONDS, turn)

    def _now_ms(self) -> int:
        return self._options.clock_ns() // _NS_PER_MS


def _open_registry(folder: DataFolder, *, is_shared: bool) -> Registry:
    hold = Hold.SHARED if is_shared else Hold.ALONE
    engine = LmdbEngine(folder.host, folder_format=DeploymentFolder.HOST_FORMAT, hold=hold)
    return Registry(engine, engine if is_shared else None)


__all__ = ["DEFAULT_NAME", "Host", "HostOptions", "HostShare", "Hosted", "not_found"]
