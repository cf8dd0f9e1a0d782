"""How far a walk is: an estimate by keys."""

import pytest

from skerry.database.walking import ends, percent_at
from skerry.storage import Tree
from tests.database.world import memory_world


@pytest.mark.parametrize(
    ("first", "last", "key", "percent"),
    [
        (b"t\x00", b"t\x64", b"t\x00", 0),
        (b"t\x00", b"t\x64", b"t\x21", 33),
        (b"t\x00", b"t\x64", b"t\x64", 100),
        (b"t\x00", b"t\x64", b"t\xff", 100),
        (b"t\x10", b"t\x64", b"", 0),
        (b"t\x10", b"t\x64", b"t", 0),
        (b"t\x10", b"t\x10", b"t\x10", 0),
        (b"t\x10", b"t\x10", b"t\x11", 100),
        (b"t", b"u", b"t\x80", 50),
    ],
)
def test_the_place_of_a_key(first: bytes, last: bytes, key: bytes, percent: int) -> None:
    assert percent_at((first, last), key) == percent


def test_the_ends_of_a_table() -> None:
    world = memory_world()
    world.insert_all("t", [{"n": n} for n in range(10)])
    world.insert_all("empty", [{"n": 0}])
    table = world.database.catalog.tables["t"]
    snapshot = world.database.engine.snapshot()
    items = snapshot.scan_chunk(Tree.DOCUMENTS, table.prefix, table.end, False, 100)
    assert len(items) == 10
    assert ends(snapshot, Tree.DOCUMENTS, table.prefix, table.end) == (items[0][0], items[-1][0])
    assert ends(snapshot, Tree.DOCUMENTS, b"\xf0", b"\xf1") == (b"\xf0", b"\xf1")
    snapshot.close()
