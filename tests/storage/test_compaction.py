"""Files shrink by copy and switch: under commits, beside snapshots, and with nothing lost when it cannot be done."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.errors import SystemFault
from skerry.limits import COMPACTION_ROUNDS_MAX, MIB
from skerry.storage import Tree
from skerry.storage.address_space import AddressSpace
from skerry.storage.compaction import COPY_FOLDER, Copy, Journal
from skerry.storage.lmdb_engine import LmdbEngine
from tests.storage.fault_programs import numbers_there
from tests.storage.test_durability import TIMEOUT_S, command, environment, run

WAIT_S = 30
MAP = 64 * MIB
VALUE = b"v" * 5_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LmdbEngine]:
    engine = LmdbEngine(tmp_path / "d", map_bytes=MAP, address_space=AddressSpace(8 * MAP))
    yield engine
    engine.close()


def key(number: int) -> bytes:
    return b"%06d" % number


def fill(engine: LmdbEngine, count: int = 1_000, keep: int = 10) -> None:
    """Writes documents and deletes most of them again, so that the file is mostly free."""
    engine.commit([(Tree.DOCUMENTS, key(n), VALUE) for n in range(count)]).result(WAIT_S)
    engine.commit([(Tree.DOCUMENTS, key(n), None) for n in range(count) if n >= keep]).result(WAIT_S)


def contents(engine: LmdbEngine) -> dict[bytes, bytes]:
    snapshot = engine.snapshot()
    try:
        return dict(snapshot.scan(Tree.DOCUMENTS, b"", None, False))
    finally:
        snapshot.close()


def data_file(folder: Path) -> Path:
    return folder / "trees" / "data.mdb"


def copier_pauses(engine: LmdbEngine, what: object) -> None:
    """Calls `what` once, on the thread that copies, when it rests for the first time."""
    once = [what]

    def pause(_: float) -> None:
        if threading.current_thread().name.startswith("compacting") and once:
            once.pop()()  # type: ignore[operator]  # a test's own function

    engine._pause = pause


def compact(engine: LmdbEngine) -> list[object]:
    """Runs a compaction on a thread of its own to its end; what it gave or raised."""
    outcome: list[object] = []

    def work() -> None:
        try:
            outcome.append(engine.compact())
        except SystemFault as fault:
            outcome.append(fault.code)

    thread = threading.Thread(target=work, name="compacting")
    thread.start()
    thread.join(WAIT_S)
    assert outcome
    return outcome


def test_the_file_shrinks_and_holds_the_same(engine: LmdbEngine, tmp_path: Path) -> None:
    fill(engine)
    before, there = data_file(tmp_path / "d").stat().st_size, contents(engine)
    assert engine.usage.free_bytes > before // 2
    done = engine.compact()
    assert done.after_bytes < done.before_bytes // 4 and done.pause_seconds >= 0
    assert data_file(tmp_path / "d").stat().st_size < before // 4
    assert engine.usage.free_bytes < MIB // 4
    assert contents(engine) == there and len(there) == 10
    assert not (tmp_path / "d" / COPY_FOLDER).exists()
    engine.commit([(Tree.DOCUMENTS, b"more", b"1")]).result(WAIT_S)
    engine.close()
    again = LmdbEngine(tmp_path / "d", map_bytes=MAP)
    assert contents(again) == {**there, b"more": b"1"}
    again.close()


def test_what_is_committed_while_the_copy_is_made_is_in_it(engine: LmdbEngine) -> None:
    fill(engine, keep=900)

    def write() -> None:
        long = b"k" * 600
        engine.commit([(Tree.DOCUMENTS, key(1), None), (Tree.DOCUMENTS, long, b"long")]).result(WAIT_S)
        engine.commit([(Tree.DOCUMENTS, key(2), b"changed"), (Tree.INDEXES, b"entry", b"")]).result(WAIT_S)
        engine.commit([(Tree.DOCUMENTS, key(n), b"x" * 900) for n in range(5_000, 6_000)]).result(WAIT_S)

    copier_pauses(engine, write)
    (done,) = compact(engine)
    assert not isinstance(done, str)
    there = contents(engine)
    assert key(1) not in there and there[key(2)] == b"changed" and there[b"k" * 600] == b"long"
    assert len(there) == 900 - 1 + 1 + 1_000
    snapshot = engine.snapshot()
    assert snapshot.get(Tree.INDEXES, b"entry") == b""
    snapshot.close()


def test_a_snapshot_goes_on_reading_and_its_file_goes_with_it(tmp_path: Path) -> None:
    space = AddressSpace(8 * MAP)
    engine = LmdbEngine(tmp_path / "d", map_bytes=MAP, address_space=space)
    fill(engine)
    snapshot = engine.snapshot()
    scan = snapshot.scan(Tree.DOCUMENTS, b"", None, False)
    assert next(scan)[0] == key(0)
    old = engine._home
    engine.compact()
    engine.commit([(Tree.DOCUMENTS, key(3), None)]).result(WAIT_S)
    assert [item[0] for item in scan] == [key(n) for n in range(1, 10)], "it sees its own state, mid-scan"
    assert space.bytes_used == 2 * MAP and not old.closed.is_set()
    snapshot.renew()
    assert snapshot.get(Tree.DOCUMENTS, key(3)) is None
    assert old.closed.wait(WAIT_S), "nobody reads the old file any more"
    assert space.bytes_used == MAP
    snapshot.close()
    engine.close()
    assert space.bytes_used == 0


def test_closing_ends_what_still_reads_an_old_file(tmp_path: Path) -> None:
    space = AddressSpace(8 * MAP)
    engine = LmdbEngine(tmp_path / "d", map_bytes=MAP, address_space=space)
    fill(engine)
    snapshot = engine.snapshot()
    engine.compact()
    engine.close()
    assert space.bytes_used == 0
    with pytest.raises(SystemFault, check=lambda e: e.code == "SnapshotGone"):
        snapshot.get(Tree.DOCUMENTS, key(1))


@pytest.mark.parametrize("what", ["grow", "recover", "close"])
def test_what_must_have_the_file_for_itself_ends_the_copy(engine: LmdbEngine, what: str) -> None:
    fill(engine, keep=900)
    there = contents(engine)
    other = threading.Thread(target=getattr(engine, what))

    def begin() -> None:
        copy = engine._copy
        assert copy is not None
        other.start()
        assert copy._cancelled.wait(WAIT_S)

    copier_pauses(engine, begin)
    assert compact(engine)[0] in ("CompactionFailed", "StorageFailed")
    other.join(WAIT_S)
    assert not other.is_alive() and not engine.is_compacting
    if what != "close":
        assert contents(engine) == there
        engine.commit([(Tree.DOCUMENTS, b"more", b"1")]).result(WAIT_S)
        assert not isinstance(compact(engine)[0], str), "the next attempt succeeds"


def test_one_at_a_time(engine: LmdbEngine) -> None:
    fill(engine, keep=900)
    refused: list[str] = []

    def second() -> None:
        try:
            engine.compact()
        except SystemFault as fault:
            refused.append(fault.code)

    copier_pauses(engine, second)
    compact(engine)
    assert refused == ["CompactionInProgress"]


def test_without_room_on_the_disk_it_is_not_begun(engine: LmdbEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine)
    monkeypatch.setattr("skerry.storage.compaction.COMPACTION_DISK_SPARE_BYTES", 2**62)
    assert compact(engine) == ["StorageFull"]
    assert len(contents(engine)) == 10 and engine.failed is None


@pytest.mark.parametrize(("room", "succeeds"), [(4_000, True), (3_999, False)])
def test_a_journal_at_its_bound_and_one_past_it(
    engine: LmdbEngine, monkeypatch: pytest.MonkeyPatch, room: int, succeeds: bool
) -> None:
    fill(engine, keep=900)
    monkeypatch.setattr("skerry.storage.compaction.COMPACTION_JOURNAL_BYTES_MAX", room)
    value = b"x" * (4_000 - 9 - 6)  # the bytes that stand before it
    copier_pauses(engine, lambda: engine.commit([(Tree.DOCUMENTS, key(7), value)]).result(WAIT_S))
    assert (compact(engine) != ["CompactionFailed"]) is succeeds
    assert contents(engine)[key(7)] == value, "the commit itself succeeds either way"


def test_catching_up_ends_after_its_rounds(engine: LmdbEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, keep=900)
    monkeypatch.setattr("skerry.storage.compaction.COMPACTION_REST_BYTES", 0)
    commits = 0

    def pause(_: float) -> None:
        nonlocal commits
        if threading.current_thread().name == "compacting":  # faster than it can be caught up with
            commits += 1
            engine.commit([(Tree.META, b"n", b"%d" % commits)]).result(WAIT_S)

    engine._pause = pause
    assert compact(engine) == ["CompactionFailed"]
    assert commits >= COMPACTION_ROUNDS_MAX and len(contents(engine)) == 900


def test_a_journal_gives_back_what_was_noted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    pairs = [(b"%05d" % n, b"v" * n) for n in range(5_000)]
    journal.add(Tree.DOCUMENTS, pairs, True)
    journal.add(Tree.DOCUMENTS, [b"a", b"b"], False)
    middle = journal.end()
    journal.add(Tree.META, [(b"empty", b"")], True)
    end = journal.end()
    first = list(journal.read(0, middle))
    assert [pair for _, puts, _ in first for pair in puts] == pairs
    assert first[-1] == (Tree.DOCUMENTS, [], [b"a", b"b"])
    assert list(journal.read(middle, end)) == [(Tree.META, [(b"empty", b"")], [])]
    assert list(journal.read(end, end)) == []
    journal.close()


def test_a_group_that_meets_a_journal_just_closed_is_durable_and_told_so(engine: LmdbEngine) -> None:
    """The attempt failed on its own thread while the writer was between its commit and the journal."""
    copy = Copy(engine._folder.trees, lambda _: None, lambda: 0.0)
    engine._command("begin copy", copy)
    copy.discard()
    engine.commit([(Tree.META, b"meanwhile", b"v")]).result(TIMEOUT_S)
    assert engine.failed is None and copy.journal.failed == "the journal was closed"
    assert engine.snapshot().get(Tree.META, b"meanwhile") == b"v"


def test_what_a_crash_left_of_a_copy_is_removed(engine: LmdbEngine, tmp_path: Path) -> None:
    fill(engine)
    engine.close()
    left = tmp_path / "d" / COPY_FOLDER
    left.mkdir()
    (left / "data.mdb").write_bytes(b"half a file")
    again = LmdbEngine(tmp_path / "d", map_bytes=MAP)
    assert not left.exists() and len(contents(again)) == 10
    again.close()


def test_a_full_disk_ends_the_copying_and_loses_nothing(tmp_path: Path) -> None:
    run("full_disk_in_a_copy", tmp_path / "deployment")


def test_a_full_disk_ends_the_journal_and_loses_nothing(engine: LmdbEngine) -> None:
    fill(engine, keep=900)

    def full() -> None:
        copy = engine._copy
        assert copy is not None
        copy.journal._file.close()
        copy.journal._file = open("/dev/full", "wb")  # noqa: SIM115  # the journal closes it
        engine.commit([(Tree.DOCUMENTS, key(7), b"seven")]).result(WAIT_S)

    copier_pauses(engine, full)
    assert compact(engine) == ["StorageFull"]
    assert contents(engine)[key(7)] == b"seven" and engine.failed is None


@pytest.mark.parametrize("name", ["full_disk_while_catching_up", "failed_sync_in_a_switch"])
def test_the_last_steps_behind_the_interposer(name: str, tmp_path: Path, interposer: Path) -> None:
    run(name, tmp_path / "deployment", LD_PRELOAD=str(interposer))


def test_each_acknowledged_batch_survives_a_kill_while_files_shrink(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    acknowledged: set[int] = set()
    switches = 0
    for n_before_kill in (60, 150, 300, 200, 77, 410):
        child = subprocess.Popen(
            command("commit_and_compact", folder), env=environment(), stdout=subprocess.PIPE, bufsize=0
        )
        assert child.stdout is not None
        lines: list[bytes] = []
        while len(lines) < n_before_kill:
            line = child.stdout.readline()
            assert line.endswith(b"\n"), "the child ended by itself"
            lines.append(line)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
        child.stdout.close()
        assert child.wait(TIMEOUT_S) == -signal.SIGKILL
        whole = [line for line in lines if line.endswith(b"\n")]
        switches += whole.count(b"switched\n")
        acknowledged |= {int(line) for line in whole if line != b"switched\n"}
        engine = LmdbEngine(folder, map_bytes=64 * MIB)
        there = numbers_there(engine)
        engine.close()
        assert acknowledged <= there
        assert there == set(range(1, max(there) + 1))
    assert switches
