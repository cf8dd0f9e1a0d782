"""Looks that last: they see one state, and what they cost of the disk has a bound."""

from pathlib import Path

import pytest

from skerry.database import long_looks, retain
from skerry.errors import SystemFault
from skerry.limits import LONG_LOOK_GROWTH_BYTES_MAX, MIB
from skerry.storage import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from tests.database.world import World


@pytest.mark.parametrize(("data_bytes", "bound"), [(0, LONG_LOOK_GROWTH_BYTES_MAX), (5 << 30, 5 << 30)])
def test_growth_at_the_bound_and_one_past_it(memory: World, data_bytes: int, bound: int) -> None:
    memory.insert_all("t", [{"n": 1}])
    looks = memory.database.looks
    early, late = looks.snapshot(), looks.snapshot()
    looks.watch(10_000, data_bytes)
    looks.watch(10_000 + bound, data_bytes)
    assert early.scan_chunk(Tree.DOCUMENTS, b"", None, False, 10)
    late.renew()
    looks.watch(10_001 + bound, data_bytes)
    for use in (
        lambda: early.get(Tree.META, b"x"),
        lambda: early.scan_chunk(Tree.DOCUMENTS, b"", None, False, 10),
        lambda: early.scan_index_keys(1, b"", None, False, 10),
    ):
        with pytest.raises(SystemFault, match=f"grew by {bound // MIB} MiB", check=lambda e: e.code == "SnapshotGone"):
            use()
    assert late.scan_chunk(Tree.DOCUMENTS, b"", None, False, 10), "it has begun anew meanwhile"
    early.renew()
    looks.watch(20_000 + bound, data_bytes)
    assert early.scan_chunk(Tree.DOCUMENTS, b"", None, False, 10)
    early.close()
    late.close()
    assert looks.count == 0


def test_a_file_that_was_compacted_meanwhile_counts_anew(memory: World) -> None:
    looks = memory.database.looks
    look = looks.snapshot()
    for file_bytes in (LONG_LOOK_GROWTH_BYTES_MAX, 10, LONG_LOOK_GROWTH_BYTES_MAX + 10):
        looks.watch(file_bytes, 0)
    look.get(Tree.META, b"x")
    looks.watch(LONG_LOOK_GROWTH_BYTES_MAX + 11, 0)
    with pytest.raises(SystemFault):
        look.get(Tree.META, b"x")
    look.close()


def test_a_file_grows_no_further_once_a_look_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_looks, "LONG_LOOK_GROWTH_BYTES_MAX", 2 * MIB)
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    ids = world.insert_all("t", [{"text": "x" * 1_000} for _ in range(200)])

    def rewrite(rounds: int) -> int:
        """Every document again and again, and no past of it kept; how far the file has grown."""
        before = engine.usage.used_bytes
        for _ in range(rounds):
            t = world.begin()
            for document_id in ids:
                t.patch(document_id, {"text": "y" * 1_000})
            world.commit(t)
            world.settle()
            while retain(world.database, world.database.newest_ts, 1_000):
                world.settle()
            world.database.looks.watch(engine.usage.used_bytes, 0)
        return engine.usage.used_bytes - before

    rewrite(10)
    assert rewrite(30) < MIB, "pages are used again"
    look = world.database.looks.snapshot()
    world.database.looks.watch(engine.usage.used_bytes, 0)
    grown = rewrite(30)
    assert 2 * MIB < grown < 4 * MIB, "not beside a look, until it is ended"
    with pytest.raises(SystemFault):
        look.get(Tree.META, b"x")
    assert rewrite(30) < MIB
    look.close()
    engine.close()
