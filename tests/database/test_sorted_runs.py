"""Keys in no order, given back in order: from memory, from files, from files of files; in pieces of bounded size."""

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.database import sorted_runs
from skerry.database.sorted_runs import SortedRuns, merged
from skerry.database.steps import Steps, at_once
from skerry.limits import SORT_CHUNK_BYTES, SORT_CHUNK_KEYS, SORT_PIECE_KEYS, SORT_RUN_CHUNKS


def drive(steps: Steps) -> None:
    for waited in steps:
        if waited is not None:
            waited.result()


def gathered(runs: SortedRuns, keys: list[bytes], *, together: int = 7) -> list[list[bytes]]:
    """The pieces that come back of keys that were added some at a time."""
    for at in range(0, len(keys), together):
        some = keys[at : at + together]
        runs.add(some, sum(map(len, some)))
        if runs.is_full:
            drive(runs.spill())
    return list(runs.merged())


class Files:
    """Opens files in a folder. Shape: `opened` so far."""

    def __init__(self, folder: Path) -> None:
        self.opened: list[IO[bytes]] = []
        self._folder = folder

    def __call__(self) -> IO[bytes]:
        self.opened.append(TemporaryFile(dir=self._folder))  # noqa: SIM115 - whoever asks for it closes it
        return self.opened[-1]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def some_keys(count: int) -> list[bytes]:
    chance = random.Random(count)
    return [b"%d %d" % (chance.randrange(count), n) for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, SORT_CHUNK_KEYS, SORT_CHUNK_KEYS + 1, 20_000])
def test_few_keys_stay_in_memory(files: Files, count: int) -> None:
    keys = some_keys(count)
    runs = SortedRuns(files, at_once)
    pieces = gathered(runs, keys)
    assert [key for piece in pieces for key in piece] == sorted(keys)
    assert all(0 < len(piece) <= SORT_PIECE_KEYS for piece in pieces)
    assert not files.opened
    assert list(runs.merged()) == []
    runs.close()


def test_more_keys_go_to_a_file_and_can_be_added_again(files: Files) -> None:
    runs = SortedRuns(files, at_once)
    for count in (SORT_CHUNK_KEYS * SORT_RUN_CHUNKS * 2 + 100, 50):
        keys = some_keys(count)
        pieces = gathered(runs, keys)
        assert [key for piece in pieces for key in piece] == sorted(keys)
        assert all(0 < len(piece) <= SORT_PIECE_KEYS for piece in pieces)
    assert len(files.opened) == 1
    runs.close()
    runs.close()
    assert all(file.closed for file in files.opened)


def test_many_runs_become_larger_ones(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SORT_CHUNK_KEYS": 4,
        "SORT_RUN_CHUNKS": 2,
        "SORT_LEVEL_RUNS": 3,
        "SORT_BLOCK_KEYS": 3,
        "SORT_PIECE_KEYS": 5,
        "SORT_WRITE_BYTES": 20,
    }.items():
        monkeypatch.setattr(sorted_runs, name, value)
    runs = SortedRuns(files, at_once)
    keys = some_keys(700)
    pieces = gathered(runs, keys)
    assert [key for piece in pieces for key in piece] == sorted(keys)
    assert len(files.opened) >= 4, "three runs of a level make one of the next"
    runs.close()


def test_long_keys_fill_chunks_and_runs_by_their_bytes(files: Files) -> None:
    runs = SortedRuns(files, at_once)
    keys = [bytes([255 - n]) * (SORT_CHUNK_BYTES // 2) for n in range(40)]
    pieces = gathered(runs, keys, together=1)
    assert [key for piece in pieces for key in piece] == sorted(keys)
    assert files.opened
    runs.close()


@given(st.lists(st.lists(st.integers(0, 300), max_size=40), max_size=6))
def test_merging_is_sorting(sources: list[list[int]]) -> None:
    def blocks(keys: list[int]) -> Iterator[list[bytes]]:
        ordered = [b"%03d" % key for key in sorted(keys)]
        return iter([ordered[at : at + 4] for at in range(0, len(ordered), 4)])

    wanted = sorted(b"%03d" % key for source in sources for key in source)
    assert [key for piece in merged([blocks(source) for source in sources]) for key in piece] == wanted
