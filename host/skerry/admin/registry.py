"""The host's registry: which deployments there are, their keys, quotas and usage.

All of it is in memory and, in the same words, in a small storage engine of its own (`DIR/host`): the metadata tree with
these keys, values JSON.

    deployment/<name>     created, state, quotas
    key/<name>/<id>       scope, label, times, hash of the secret
    usage/<name>          totals since the deployment was created

A change is durable before it is visible, and each is one atomic batch. Deliberately absent: folders (the host's),
opinions on what a quota does (whoever enforces it), and secrets: only their hashes are here.

Concurrency: the loop thread.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

import orjson

from skerry import limits
from skerry.admin.access import KeyRecord, Scope
from skerry.errors import ClientError, SystemFault
from skerry.storage import StorageEngine, Tree, Write

_DEPLOYMENT: Final[bytes] = b"deployment/"
_KEY: Final[bytes] = b"key/"
_USAGE: Final[bytes] = b"usage/"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
RESERVED_NAMES: Final = frozenset(
    ("admin", "api", "d", "dashboard", "host", "localhost", "public", "site", "skerry", "static", "system", "www")
)
"""Names that mean something else where a deployment's name may stand: addresses, keys, folders."""

T = TypeVar("T")


class State(StrEnum):
    """What may be done with a deployment."""

    ACTIVE = "active"
    PAUSED = "paused"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a deployment may use; None leaves it to the host's bounds."""

    calls_at_once: int | None = None
    requests_per_minute: int | None = None
    cpu_ms_per_minute: int | None = None
    actions_at_once: int | None = None
    memory_bytes: int | None = None
    storage_bytes: int | None = None
    egress_requests_per_minute: int | None = None
    egress_bytes_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """One deployment. Units: ms since the Unix epoch."""

    name: str
    created_ms: int
    state: State
    quotas: Quotas = field(default_factory=Quotas)


class SharedEngine(Protocol):
    """A storage engine whose folder several processes change. Shape: `last_change` numbers the last change."""

    @property
    def last_change(self) -> int: ...

    def commit_after(self, change: int, writes: Sequence[Write]) -> "Future[bool]": ...


class Registry:
    """The registry in an engine, which it owns. Opening it blocks. Raises: SystemFault `DataFolderFormat`.

    Shape: where other processes share the engine's folder, it is a `SharedEngine`. A change is then decided on what
    this process last read and written only if that is still the newest state; else it is read and decided again. So
    two processes never give one name away twice, and usage that both count for a deployment adds up.
    """

    def __init__(self, engine: StorageEngine, shared: "SharedEngine | None" = None) -> None:
        self._engine = engine
        self._shared = shared
        self._seen_change = -1 if shared is None else shared.last_change
        self._deployments: dict[str, DeploymentRecord] = {}
        self._keys: dict[str, dict[str, KeyRecord]] = {}
        self._usage: dict[str, dict[str, int]] = {}
        self._unsaved: dict[str, dict[str, int]] = {}
        self._order = asyncio.Lock()
        self._load_all()

    # -- deployments -------------------------------------------------------------------------------------------------

    def find(self, name: str) -> DeploymentRecord | None:
        """The deployment of that name, in whatever state."""
        record = self._deployments.get(name)
        if record is None and self._shared is not None:
            self._refresh()
            record = self._deployments.get(name)
        return record

    def listed(self) -> list[DeploymentRecord]:
        """All deployments, by name."""
        self._refresh()
        return [self._deployments[name] for name in sorted(self._deployments)]

    async def create(
        self, name: str, now_ms: int, state: State = State.ACTIVE, quotas: Quotas | None = None
    ) -> DeploymentRecord:
        """A new deployment, durable on return; `DELETING` for one that is gone after a crash until `settle`.

        Raises: ClientError `DeploymentNameInvalid`, `DeploymentNameTaken`, `TooManyDeployments`.
        Limits: DEPLOYMENTS_MAX, DEPLOYMENT_NAME_CHARS_MAX.
        """
        check_name(name)
        record = DeploymentRecord(name, now_ms, state, quotas or Quotas())

        def decide() -> list[Write]:
            if name in self._deployments:
                raise ClientError(
                    "DeploymentNameTaken", f"There is a deployment '{name}' already: choose another name."
                )
            if len(self._deployments) >= limits.DEPLOYMENTS_MAX:
                raise ClientError("TooManyDeployments", f"A host has at most {limits.DEPLOYMENTS_MAX} deployments.")
            return [(Tree.META, _deployment_key(name), _dump_deployment(record))]

        await self._change(decide, lambda: self._deployments.__setitem__(name, record))
        return record

    async def find_or_create(self, name: str, now_ms: int) -> DeploymentRecord:
        """The deployment of that name, made when there is none: one of the processes that start together makes it."""
        try:
            return self.find(name) or await self.create(name, now_ms)
        except ClientError:
            record = self._deployments.get(name)
            if record is None:
                raise
            return record

    async def update(self, name: str, *, state: State | None = None, quotas: Quotas | None = None) -> DeploymentRecord:
        """Changes a deployment's state or quotas, durable on return. Raises: ClientError `DeploymentNotFound`."""
        changed: list[DeploymentRecord] = []

        def decide() -> list[Write]:
            record = self._deployments.get(name)
            if record is None:
                raise not_found(name)
            if record.state is State.DELETING:  # nothing brings it back
                raise not_found(name)
            changed[:] = [replace(record, state=state or record.state, quotas=quotas or record.quotas)]
            return [(Tree.META, _deployment_key(name), _dump_deployment(changed[0]))]

        await self._change(decide, lambda: self._deployments.__setitem__(name, changed[0]))
        return changed[0]

    async def settle(self, name: str) -> DeploymentRecord:
        """Makes a deployment active that was created as one that is being deleted."""
        record = replace(self._deployments[name], state=State.ACTIVE)
        writes = [(Tree.META, _deployment_key(name), _dump_deployment(record))]
        await self._change(lambda: writes, lambda: self._deployments.__setitem__(name, record))
        return record

    async def forget(self, name: str) -> None:
        """Takes a deployment, its keys and its usage out, all at once; the name is free afterwards."""

        def decide() -> list[Write]:
            keys = [_key_key(name, key_id) for key_id in self._keys.get(name, ())]
            return [(Tree.META, key, None) for key in (_deployment_key(name), _USAGE + name.encode(), *keys)]

        def apply() -> None:
            for table in (self._deployments, self._keys, self._usage, self._unsaved):
                table.pop(name, None)

        await self._change(decide, apply)

    # -- keys --------------------------------------------------------------------------------------------------------

    def key(self, name: str, key_id: str) -> KeyRecord | None:
        """A deployment's key by its id."""
        found = self._keys.get(name, {}).get(key_id)
        if found is None and self._shared is not None:
            self._refresh()
            found = self._keys.get(name, {}).get(key_id)
        return found

    def keys(self, name: str) -> list[KeyRecord]:
        """A deployment's keys, oldest first."""
        self._refresh()
        return sorted(self._keys.get(name, {}).values(), key=lambda record: (record.created_ms, record.id))

    async def add_key(self, record: KeyRecord) -> None:
        """Keeps a key, durable on return. Raises: ClientError `DeploymentNotFound`, `TooManyKeys`."""

        def decide() -> list[Write]:
            deployment = self._deployments.get(record.name)
            if deployment is None or deployment.state is State.DELETING:
                raise not_found(record.name)
            if len(self._keys.get(record.name, ())) >= limits.KEYS_PER_DEPLOYMENT_MAX:
                raise ClientError(
                    "TooManyKeys", f"A deployment has at most {limits.KEYS_PER_DEPLOYMENT_MAX} keys: revoke one first."
                )
            return [(Tree.META, _key_key(record.name, record.id), _dump_key(record))]

        await self._change(decide, lambda: self._keys.setdefault(record.name, {}).__setitem__(record.id, record))

    async def remove_key(self, name: str, key_id: str) -> None:
        """Revokes a key: it stops working at once, and for good on return.

        Raises: ClientError `KeyNotFound`; SystemFault of storage, and the key works on then.
        """
        revoked: list[KeyRecord] = []

        def decide() -> list[Write]:
            record = self._keys.get(name, {}).pop(key_id, None)  # before the sync: it must not work meanwhile
            if record is None:
                raise ClientError("KeyNotFound", f"Deployment '{name}' has no key with the id {key_id[:40]!r}.")
            revoked[:] = [record]
            return [(Tree.META, _key_key(name, key_id), None)]

        try:
            await self._change(decide, lambda: None)
        except SystemFault:
            for record in revoked:
                self._keys.setdefault(name, {})[key_id] = record
            raise

    # -- usage -------------------------------------------------------------------------------------------------------

    def add_usage(self, name: str, amounts: Mapping[str, int]) -> None:
        """Adds to a deployment's totals, in memory until `save_usage`."""
        if name not in self._deployments:  # it was deleted meanwhile, and its name may be taken anew
            return
        _add(self._unsaved.setdefault(name, {}), amounts)

    def usage(self, name: str) -> dict[str, int]:
        """A deployment's totals: what was saved, by whichever process, and what this one has not saved yet."""
        return _add(dict(self._usage.get(name, {})), self._unsaved.get(name, {}))

    @property
    def has_unsaved_usage(self) -> bool:
        """Whether totals were added to since they were saved."""
        return bool(self._unsaved)

    async def save_usage(self) -> None:
        """Makes the totals durable."""
        saving: dict[str, dict[str, int]] = {}
        totals: dict[str, dict[str, int]] = {}

        def decide() -> list[Write]:
            saving.clear()
            saving.update({name: dict(self._unsaved[name]) for name in self._unsaved if name in self._deployments})
            totals.clear()
            totals.update({name: _add(dict(self._usage.get(name, {})), saving[name]) for name in saving})
            return [(Tree.META, _USAGE + name.encode(), orjson.dumps(amounts)) for name, amounts in totals.items()]

        def apply() -> None:
            self._usage.update(totals)
            for name in [*self._unsaved]:
                left = _add(self._unsaved[name], saving.get(name, {}), -1)
                if name not in self._deployments or not any(left.values()):
                    del self._unsaved[name]

        await self._change(decide, apply)

    def close(self) -> None:
        """Lets go of the storage. Blocks for what is queued."""
        self._engine.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _change(self, decide: Callable[[], Iterable[Write]], apply: Callable[[], object]) -> None:
        """One change: decided on the state that it applies to, durable, then visible; whoever asked may be gone."""

        async def change() -> None:
            async with self._order:
                if self._engine.failed is not None:
                    await asyncio.to_thread(self._engine.recover)
                for _ in range(limits.REGISTRY_ATTEMPTS_MAX):
                    self._take_in()
                    writes = list(decide())
                    if not writes or await self._write(writes):
                        apply()
                        return
            raise SystemFault("RegistryBusy", "Other processes of the host kept changing its registry. Try again.")

        await asyncio.shield(asyncio.ensure_future(change()))

    async def _write(self, writes: list[Write]) -> bool:
        """Whether the writes are durable; not where another process has changed something since this one looked."""
        if self._shared is None:
            await asyncio.wrap_future(self._engine.commit(writes))
            return True
        if not await asyncio.wrap_future(self._shared.commit_after(self._seen_change, writes)):
            return False
        self._seen_change += 1
        return True

    def _load_all(self) -> None:
        snapshot = self._engine.snapshot()
        try:
            for key, value in snapshot.scan(Tree.META, b"", None, False):
                self._load(key, value)
        finally:
            snapshot.close()

    def _refresh(self) -> None:
        """Takes in what other processes changed, unless a change of our own is under way: then the next look does."""
        if not self._order.locked():
            self._take_in()

    def _take_in(self) -> None:
        if self._shared is None:
            return
        change = self._shared.last_change
        if change == self._seen_change:
            return
        for table in (self._deployments, self._keys, self._usage):
            table.clear()
        self._load_all()
        self._seen_change = change

    def _load(self, key: bytes, value: bytes) -> None:
        try:
            kind, _, rest = key.decode().partition("/")
            fields: dict[str, Any] = orjson.loads(value)
            if kind == "deployment":
                quotas = Quotas(**fields["quotas"])
                self._deployments[rest] = DeploymentRecord(rest, fields["created"], State(fields["state"]), quotas)
            elif kind == "usage":
                self._usage[rest] = fields
            elif kind == "key":
                record = _load_key(rest, fields)
                self._keys.setdefault(record.name, {})[record.id] = record
            else:
                raise ValueError(kind)
        except (ValueError, KeyError, TypeError) as error:
            raise SystemFault(
                "DataFolderFormat", f"The host's registry has an entry {key[:80]!r} it cannot read."
            ) from error


def check_name(name: str) -> None:
    """Raises: ClientError `DeploymentNameInvalid`. Limits: DEPLOYMENT_NAME_CHARS_MAX."""
    if len(name) > limits.DEPLOYMENT_NAME_CHARS_MAX or not _NAME.fullmatch(name):
        raise ClientError(
            "DeploymentNameInvalid",
            f"{name[:80]!r} is no deployment name: it has 1 to {limits.DEPLOYMENT_NAME_CHARS_MAX} lower-case letters, "
            "digits and inner hyphens.",
        )
    if name in RESERVED_NAMES or name.startswith("xn--"):
        raise ClientError("DeploymentNameInvalid", f"The name '{name}' is reserved: choose another.")


def not_found(name: str) -> ClientError:
    """The refusal of a deployment that is not there."""
    return ClientError("DeploymentNotFound", f"There is no deployment {name[:80]!r} on this host.")


def _add(totals: dict[str, int], amounts: Mapping[str, int], sign: int = 1) -> dict[str, int]:
    for counter, amount in amounts.items():
        totals[counter] = totals.get(counter, 0) + sign * amount
    return totals


def _deployment_key(name: str) -> bytes:
    return _DEPLOYMENT + name.encode()


def _key_key(name: str, key_id: str) -> bytes:
    return _KEY + f"{name}/{key_id}".encode()


def _dump_deployment(record: DeploymentRecord) -> bytes:
    return orjson.dumps({"created": record.created_ms, "state": record.state.value, "quotas": asdict(record.quotas)})


def _dump_key(record: KeyRecord) -> bytes:
    fields = record.listed()
    del fields["id"]
    return orjson.dumps({**fields, "sha256": record.secret_hash.hex()})


def _load_key(rest: str, fields: dict[str, Any]) -> KeyRecord:
    name, _, key_id = rest.partition("/")
    return KeyRecord(
        name,
        key_id,
        Scope(fields["scope"]),
        fields["label"],
        fields["createdMs"],
        fields["expiresMs"],
        bytes.fromhex(fields["sha256"]),
    )
