"""Keys that come in no order, given back in order, with a bounded part of them in memory.

Entries put into an index in the order of its keys fill its pages one after the other; put in as they come, each one
dirties a page of its own, and a page is written for every few of them: among a million, a hundred times their bytes.

    add       keys gather in *chunks*, each of them sorted
    spill     enough chunks are merged into one *run* in a file without a name, which goes with whoever opened it
    merged    all runs, and the chunks that are left, merged into pieces

Merging takes pieces off the fronts of all sources up to a key that each of them reaches, and sorts those together: the
sort finds the pieces in order already, so it costs little more than comparing each key with its neighbour. No step
holds the thread for longer than sorting some thousand keys takes.

Concurrency: one thread; files are written beside it, and read on it, mostly out of the page cache.
"""

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from errno import EIO
from itertools import accumulate, pairwise
from typing import IO, Final, NamedTuple

from skerry.database.steps import Beside, Steps, run_beside
from skerry.limits import (
    SORT_BLOCK_BYTES,
    SORT_BLOCK_KEYS,
    SORT_CHUNK_BYTES,
    SORT_CHUNK_KEYS,
    SORT_LEVEL_RUNS,
    SORT_PIECE_KEYS,
    SORT_RUN_BYTES,
    SORT_RUN_CHUNKS,
    SORT_WRITE_BYTES,
)

_LENGTH_BYTES: Final = array("I").itemsize


class _Block(NamedTuple):
    """Keys in a file, side by side. Shape: the lengths of all, then all; `offset` is where they begin."""

    offset: int
    n_keys: int
    n_bytes: int


class _Level:
    """Runs of about one size, in one file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.n_bytes = 0
        self.runs: list[list[_Block]] = []


class SortedRuns:
    """Keys to be sorted. Shape: `is_full` says that it is time to `spill`; nothing breaks where that waits a little.

    Limits: of `SORT_LEVEL_RUNS` runs one of the next level is made, so that merging has few sources, however many keys
    there are.
    """

    def __init__(self, open_file: Callable[[], IO[bytes]], beside: Beside) -> None:
        self._open_file = open_file
        self._beside = beside
        self._levels: list[_Level] = []
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._chunks: list[list[bytes]] = []
        self._chunk_bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self._chunks) >= SORT_RUN_CHUNKS or self._chunk_bytes >= SORT_RUN_BYTES

    def add(self, keys: list[bytes], n_bytes: int) -> None:
        """Take some keys, which are so many bytes together."""
        gathered = self._gathered
        gathered += keys
        self._gathered_bytes += n_bytes
        if len(gathered) >= SORT_CHUNK_KEYS or self._gathered_bytes >= SORT_CHUNK_BYTES:
            self._end_chunk()

    def spill(self) -> Steps:
        """Move the chunks that there are to a file, as one run. Raises: OSError of the file."""
        sources = [iter((chunk,)) for chunk in self._chunks]
        self._chunks, self._chunk_bytes = [], 0
        yield from self._write_run(0, sources)
        number = 0
        while len(self._levels[number].runs) >= SORT_LEVEL_RUNS:
            level = self._levels[number]
            yield from self._write_run(number + 1, [_read(level.file, run) for run in level.runs])
            level.runs, level.n_bytes = [], 0
            number += 1

    def merged(self) -> Iterator[list[bytes]]:
        """All keys in order, in pieces; there are none afterwards. Raises: OSError of a file."""
        self._end_chunk()
        sources = [_read(level.file, run) for level in self._levels for run in level.runs]
        sources += [iter((chunk,)) for chunk in self._chunks]
        self._chunks, self._chunk_bytes = [], 0
        yield from merged(sources)
        for level in self._levels:
            level.runs, level.n_bytes = [], 0

    def close(self) -> None:
        """Let go of the files; a second time is no error."""
        self._gathered, self._chunks = [], []
        while self._levels:
            self._levels.pop().file.close()

    def _end_chunk(self) -> None:
        if self._gathered:
            self._gathered.sort()
            self._chunks.append(self._gathered)
            self._chunk_bytes += self._gathered_bytes
            self._gathered, self._gathered_bytes = [], 0

    def _write_run(self, number: int, sources: list[Iterator[list[bytes]]]) -> Steps:
        """Merge sources into one run of a level."""
        if number == len(self._levels):
            self._levels.append(_Level(self._open_file()))
        level = self._levels[number]
        run: list[_Block] = []
        out: list[bytes] = []
        n_out = 0
        for piece in merged(sources):
            for block in _blocks(piece):
                raw = array("I", map(len, block)).tobytes() + b"".join(block)
                run.append(_Block(level.n_bytes + n_out, len(block), len(raw)))
                out.append(raw)
                n_out += len(raw)
            yield None
            if n_out >= SORT_WRITE_BYTES:
                yield from run_beside(self._beside, _write, level.file, level.n_bytes, out)
                level.n_bytes += n_out
                out, n_out = [], 0
        yield from run_beside(self._beside, _write, level.file, level.n_bytes, out)
        level.n_bytes += n_out
        level.runs.append(run)


def merged(sources: list[Iterator[list[bytes]]]) -> Iterator[list[bytes]]:
    """One order out of sources that each give sorted lists in order; pieces of at most SORT_PIECE_KEYS keys.

    Limits: a source gives one key to each piece at least, so of more sources than that a piece has as many.
    """
    fronts: list[tuple[list[bytes], int, Iterator[list[bytes]]]] = []
    for source in sources:
        block = next(source, None)
        if block:
            fronts.append((block, 0, source))
    while fronts:
        each = max(1, SORT_PIECE_KEYS // len(fronts))
        bound = min([block[min(at + each, len(block)) - 1] for block, at, _ in fronts])
        piece: list[bytes] = []
        left: list[tuple[list[bytes], int, Iterator[list[bytes]]]] = []
        for block, at, source in fronts:
            end = bisect_right(block, bound, at, min(at + each, len(block)))
            piece += block[at:end]
            if end < len(block):
                left.append((block, end, source))
                continue
            more = next(source, None)
            if more:
                left.append((more, 0, source))
        fronts = left
        piece.sort()
        yield piece


def _blocks(keys: list[bytes]) -> Iterator[list[bytes]]:
    """The keys, in pieces that are read back together."""
    at = n_bytes = 0
    for end, key in enumerate(keys, 1):
        n_bytes += len(key)
        if end - at >= SORT_BLOCK_KEYS or n_bytes >= SORT_BLOCK_BYTES:
            yield keys[at:end]
            at, n_bytes = end, 0
    if at < len(keys):
        yield keys[at:]


def _read(file: IO[bytes], run: list[_Block]) -> Iterator[list[bytes]]:
    """The keys of a run, block by block. Raises: OSError."""
    handle = file.fileno()
    for offset, n_keys, n_bytes in run:
        raw = os.pread(handle, n_bytes, offset)
        if len(raw) != n_bytes:
            raise OSError(EIO, "sorted keys that were written cannot be read")
        lengths = array("I")
        lengths.frombytes(raw[: n_keys * _LENGTH_BYTES])
        ends = accumulate(lengths, initial=n_keys * _LENGTH_BYTES)
        yield [raw[begin:end] for begin, end in pairwise(ends)]


def _write(file: IO[bytes], offset: int, pieces: list[bytes]) -> None:
    """Writes pieces one after the other. Raises: OSError."""
    raw = memoryview(b"".join(pieces))
    while raw:
        written = os.pwrite(file.fileno(), raw, offset)
        raw, offset = raw[written:], offset + written


__all__ = ["SortedRuns", "merged"]
