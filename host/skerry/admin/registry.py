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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

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


class Registry:
    """The registry in an engine, which it owns. Opening it blocks. Raises: SystemFault `DataFolderFormat`.

    Shape: where other processes share the engine's folder, `last_change` numbers the last change of any of them. Each
    deployment's record, keys and usage are then changed by one process, its owner; the others look when they need to.
    """

    def __init__(self, engine: StorageEngine, last_change: Callable[[], int] | None = None) -> None:
        self._engine = engine
        self._last_change = last_change
        self._seen_change = -1 if last_change is None else last_change()
        self._deployments: dict[str, DeploymentRecord] = {}
        self._keys: dict[str, dict[str, KeyRecord]] = {}
        self._usage: dict[str, dict[str, int]] = {}
        self._usage_changed: set[str] = set()
        self._order = asyncio.Lock()
        self._load_all()

    # -- deployments -------------------------------------------------------------------------------------------------

    def find(self, name: str) -> DeploymentRecord | None:
        """The deployment of that name, in whatever state."""
        record = self._deployments.get(name)
        if record is None and self._last_change is not None:
            self._refresh()
            record = self._deployments.get(name)
        return record

    def listed(self) -> list[DeploymentRecord]:
        """All deployments, by name."""
        self._refresh()
        return [self._deployments[name] for name in sorted(self._deployments)]

    async def create(self, name: str, now_ms: int) -> DeploymentRecord:
        """A new deployment, durable on return.

        Raises: ClientError `DeploymentNameInvalid`, `DeploymentNameTaken`, `TooManyDeployments`.
        Limits: DEPLOYMENTS_MAX, DEPLOYMENT_NAME_CHARS_MAX.
        """
        check_name(name)
        record = DeploymentRecord(name, now_ms, State.ACTIVE)

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

    async def update(self, name: str, *, state: State | None = None, quotas: Quotas | None = None) -> DeploymentRecord:
        """Changes a deployment's state or quotas, durable on return. Raises: ClientError `DeploymentNotFound`."""
        changed: list[DeploymentRecord] = []

        def decide() -> list[Write]:
            record = self._deployments.get(name)
            if record is None:
                raise not_found(name)
            if record.state is State.DELETING:  # nothing brings it back
                raise not_found(name)
            changed.append(replace(record, state=state or record.state, quotas=quotas or record.quotas))
            return [(Tree.META, _deployment_key(name), _dump_deployment(changed[0]))]

        await self._change(decide, lambda: self._deployments.__setitem__(name, changed[0]))
        return changed[0]

    async def forget(self, name: str) -> None:
        """Takes a deployment, its keys and its usage out, all at once; the name is free afterwards."""

        def decide() -> list[Write]:
            keys = [_key_key(name, key_id) for key_id in self._keys.get(name, ())]
            return [(Tree.META, key, None) for key in (_deployment_key(name), _USAGE + name.encode(), *keys)]

        def apply() -> None:
            for table in (self._deployments, self._keys, self._usage):
                table.pop(name, None)
            self._usage_changed.discard(name)

        await self._change(decide, apply)

    # -- keys --------------------------------------------------------------------------------------------------------

    def key(self, name: str, key_id: str) -> KeyRecord | None:
        """A deployment's key by its id."""
        found = self._keys.get(name, {}).get(key_id)
        if found is None and self._last_change is not None:
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
            revoked.append(record)
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
        totals = self._usage.setdefault(name, {})
        for counter, amount in amounts.items():
            totals[counter] = totals.get(counter, 0) + amount
        self._usage_changed.add(name)

    def usage(self, name: str) -> dict[str, int]:
        """A deployment's totals."""
        return dict(self._usage.get(name, {}))

    @property
    def has_unsaved_usage(self) -> bool:
        """Whether totals were added to since they were saved."""
        return bool(self._usage_changed)

    async def save_usage(self) -> None:
        """Makes the totals durable."""
        saved: set[str] = set()

        def decide() -> list[Write]:
            saved.update(self._usage_changed & self._deployments.keys())
            self._usage_changed.clear()
            return [(Tree.META, _USAGE + name.encode(), orjson.dumps(self._usage[name])) for name in saved]

        try:
            await self._change(decide, lambda: None)
        except SystemFault:
            self._usage_changed |= saved
            raise

    def close(self) -> None:
        """Lets go of the storage. Blocks for what is queued."""
        self._engine.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _change(self, decide: Callable[[], Iterable[Write]], apply: Callable[[], object]) -> None:
        """One change: decided on the state that it applies to, durable, then visible; whoever asked may be gone."""

        async def change() -> None:
            async with self._order:
                self._take_in()
                writes = list(decide())
                if self._engine.failed is not None:
                    await asyncio.to_thread(self._engine.recover)
                if writes:
                    await asyncio.wrap_future(self._engine.commit(writes))
                apply()

        await asyncio.shield(asyncio.ensure_future(change()))

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
        if self._last_change is None:
            return
        change = self._last_change()
        if change == self._seen_change:
            return
        unsaved = {name: self._usage[name] for name in self._usage_changed}
        for table in (self._deployments, self._keys, self._usage):
            table.clear()
        self._load_all()
        self._usage.update(unsaved)
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
