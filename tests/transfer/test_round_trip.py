"""What is exported and imported elsewhere is exported again as the same bytes, and an export is of one moment."""

import math
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.database.bulk import clear_imported
from skerry.errors import DeveloperError
from skerry.limits import EXPORT_STEP_ITEMS
from skerry.transfer.exporting import Export
from skerry.transfer.importing import Import, Source, order_of
from skerry.value import Int64
from tests.database.world import lmdb_world, memory_world
from tests.transfer.moving import Mover, beside, contents, documents

NAMES = st.text("abc_$ \"'\\{}[],:", min_size=1, max_size=6).filter(lambda name: name[0] != "$")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**53), 2**53)
    | st.sampled_from([-0.0, math.inf, -math.inf, math.nan, 1e300, 5e-324, 2.0**53])
    | st.integers(-(2**63), 2**63 - 1).map(Int64)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES), min_size=1, max_size=6))
def test_every_value_survives(values: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = Mover(memory_world(), Path(folder)), Mover(memory_world(), Path(folder))
        first.world.insert_all("empty", [{"gone": True}])
        first.world.run(lambda t: t.delete(documents(first.world, "empty")[0]["_id"]))
        first.world.insert_all("things", values)
        archive = first.export("a.zip")
        assert second.take(archive, "requireEmpty", "zip") == len(values)
        again = second.export("b.zip")
        assert archive.read_bytes() == again.read_bytes()
        assert documents(first.world, "things") == documents(second.world, "things")
        assert second.take(again, "replaceAll", "zip") == len(values)
        assert second.export("c.zip").read_bytes() == archive.read_bytes()
        second.assert_sound()


def test_an_export_is_of_the_moment_it_began(tmp_path: Path) -> None:
    mover = Mover(lmdb_world(tmp_path), tmp_path)
    world = mover.world
    ids = world.insert_all("things", [{"n": n} for n in range(6 * EXPORT_STEP_ITEMS)])
    for document_id in ids[::7]:  # versions with milestones among them, and deletions of before
        for _ in range(3):
            world.run(lambda t, i=document_id: t.patch(i, {"n": -1}))
    world.run(lambda t: t.delete(ids[1]))
    before = contents(mover.export("before.zip"))
    turn = iter(range(10_000))

    def write() -> None:
        i = next(turn)
        if i < len(ids) // 4:
            world.run(lambda t: t.patch(ids[-1 - 4 * i], {"n": 1_000_000}))
            world.run(lambda t: t.delete(ids[-3 - 4 * i]))
            world.insert_all("things", [{"n": 2_000_000}])

    during = contents(mover.export("during.zip", write))
    assert next(turn) > 6, "it took several steps"
    assert during == before
    assert contents(mover.export("after.zip")) != before
    world.engine.close()


def test_a_table_that_is_replaced_meanwhile_is_exported_as_it_was(tmp_path: Path) -> None:
    mover = Mover(lmdb_world(tmp_path), tmp_path)
    mover.world.insert_all("things", [{"n": n} for n in range(4 * EXPORT_STEP_ITEMS)])
    before = contents(mover.export("before.zip"))
    file = mover.file("new.jsonl", b'{"n":"new"}\n')
    steps = iter(range(10_000))

    def replace() -> None:
        if next(steps) == 5:
            mover.take(file, "replace", "jsonLines", "things")

    assert contents(mover.export("during.zip", replace)) == before
    assert [document["n"] for document in documents(mover.world, "things")] == ["new"]
    mover.assert_sound()
    mover.world.engine.close()


def test_an_export_that_outlives_the_history_says_so(tmp_path: Path) -> None:
    from skerry.database import retain

    mover = Mover(lmdb_world(tmp_path), tmp_path)
    world = mover.world
    ids = world.insert_all("things", [{"n": n} for n in range(3 * EXPORT_STEP_ITEMS)])

    def forget() -> None:
        world.run(lambda t: t.patch(ids[0], {"n": -1}))
        retain(world.database, world.database.durable_ts, 100)
        world.settle()

    with pytest.raises(DeveloperError) as refused:
        mover.export("a.zip", forget)
    assert refused.value.code == "OutOfRetention"
    world.engine.close()


def test_what_an_export_looks_like(tmp_path: Path) -> None:
    mover = Mover(memory_world(), tmp_path)
    values: dict[str, Any] = {"i": Int64(5), "f": 5, "n": math.nan, "b": b"\0\1\xff", "deep": [{"x": 1}]}
    mover.world.insert_all("things", [values])
    found = contents(mover.export("a.zip"))
    assert list(found) == [
        "README.md",
        "_tables/documents.jsonl",
        "things/documents.jsonl",
        "things/generated_schema.jsonl",
    ]
    assert found["_tables/documents.jsonl"] == b'{"name":"things","id":10001}\n'
    assert found["things/generated_schema.jsonl"] == b'"uniform"\n'
    line = found["things/documents.jsonl"]
    assert b'"i":5,' in line and b'"f":5.0,' in line and b'"deep":[{"x":1.0}]' in line
    assert orjson.loads(line)["b"] == {"$bytes": "AAH/"} and line.endswith(b"\n")


def test_an_export_that_begins_as_an_import_is_switched_in_has_what_was_there_before(tmp_path: Path) -> None:
    mover = Mover(lmdb_world(tmp_path), tmp_path)
    world = mover.world
    world.insert_all("notes", [{"text": "old"}])
    world.settle()
    file = mover.file("notes.jsonl", b'{"text": "new"}\n')
    with Source(order_of("replace", "jsonLines", "notes"), file) as source:
        running = Import(world.database, source, lambda: world.now_ms, bytes, beside)
        mover.drive(running.fill())
        world.settle()
        switching = running.switch()
        next(switching)
        assert world.database.n_pending, "the switch is not durable yet"
        export = Export(world.database, mover.folder / "between.zip", beside, with_storage=False)
        mover.drive(switching)
        running.close()
    mover.drive(export.steps())
    export.close()
    (line,) = contents(mover.folder / "between.zip")["notes/documents.jsonl"].splitlines()
    assert orjson.loads(line)["text"] == "old"
    mover.drive(clear_imported(world.database))
    mover.assert_sound()
