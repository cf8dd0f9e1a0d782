"""Imports and exports over a database that the test turns by hand."""

from collections.abc import Callable
from concurrent.futures import Future
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import orjson

from skerry.database import Steps, verify
from skerry.database.bulk import clear_imported
from skerry.transfer.exporting import Export
from skerry.transfer.importing import Import, Plan, Source, order_of, plan_of
from tests.database.world import World


def beside(job: Callable[[], None]) -> Future[None]:
    done: Future[None] = Future()
    try:
        job()
    except Exception as error:  # as a thread would hand it on
        done.set_exception(error)
    else:
        done.set_result(None)
    return done


class Mover:
    """What a deployment does with steps, for one world."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self._chance = 0

    def drive(self, steps: Steps, between: Callable[[], None] | None = None) -> None:
        for waited in steps:
            if between is not None:
                between()
            self.world.turn()
            if waited is not None:
                waited.exception()
                self.world.turn()

    def export(self, name: str, between: Callable[[], None] | None = None) -> Path:
        path = self.folder / name
        running = Export(self.world.database, path, beside, with_storage=False)
        try:
            self.drive(running.steps(), between)
        finally:
            running.close()
        return path

    def plan(self, file: Path, mode: str, kind: str, table: str | None = None) -> Plan:
        with Source(order_of(mode, kind, table, file.name), file) as source:
            return plan_of(self.world.database, source)

    def take(
        self, file: Path, mode: str, kind: str, table: str | None = None, between: Callable[[], None] | None = None
    ) -> int:
        """Imports a file; how many documents."""
        with Source(order_of(mode, kind, table, file.name), file) as source:
            running = Import(self.world.database, source, lambda: self.world.now_ms, self._entropy, beside)
            try:
                self.drive(running.fill(), between)
                self.world.settle()
                self.drive(running.switch())
            finally:
                self.drive(running.settle())
                running.close()
                self.drive(clear_imported(self.world.database))
                self.world.settle()
        return running.rows_written

    def file(self, name: str, raw: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(raw)
        return path

    def assert_sound(self) -> None:
        self.world.settle()
        snapshot = self.world.engine.snapshot()
        try:
            walk = verify(snapshot)
        finally:
            snapshot.close()
        assert walk.is_sound, walk.differences

    def _entropy(self, n_bytes: int) -> bytes:
        self._chance += 1
        return blake2b(self._chance.to_bytes(8, "big"), digest_size=n_bytes).digest()


def contents(archive: Path) -> dict[str, bytes]:
    with ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def documents(world: World, table: str) -> list[Any]:
    query = {"source": {"type": "FullTableScan", "tableName": table, "order": None}, "operators": []}
    return orjson.loads(world.read(lambda t: t.collect_query(query)))
