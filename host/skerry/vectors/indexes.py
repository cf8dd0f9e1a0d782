"""The vector indexes of one deployment: which copies there are, who waits for them, and the one job that works on them.

```
search (an action)  -> waits until its copy is ready -> the deployment's vector job -> done, on the loop thread
search_at (a query) -> the copy, from the thread it runs on; where it is not ready the query goes to a thread that can
                       wait, and there waits
```

A copy is made when an index is first asked, and ends with its deployment, its declaration, or for want of memory; the
next search makes another. Until the first one nothing is loaded and commits are not listened to.

Concurrency: the loop thread, but for `search_at` of a detached transaction, and the job.
"""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from skerry.database import CommitRecord, Database, Transaction
from skerry.database.past import PastSnapshot
from skerry.errors import DeveloperError, SkerryError, SystemFault
from skerry.limits import (
    VECTOR_DOCUMENTS_PER_PIECE,
    VECTOR_PIECE_BYTES,
    VECTOR_QUERY_WAIT_SECONDS_MAX,
    VECTOR_SEARCHES_WAITING_MAX,
    VECTOR_WAIT_SECONDS_MAX,
)
from skerry.storage import Item, StorageSnapshot, Tree
from skerry.value import encode_document_id
from skerry.vectors.lazily import new_copy
from skerry.vectors.memory import Share
from skerry.vectors.question import Asked, Definition, Question, definitions_of, find_definition

if TYPE_CHECKING:
    from skerry.vectors.copied import Copy

Answer = Callable[["bytes | SkerryError"], None]
"""Hears of a search's results (JSON), or of its error."""

_log: Final = logging.getLogger("skerry.vectors")
_NUMBERS_PER_US: Final = 1_500  # that an exact search looks at, at least
_US_PER_CHANGE: Final = 200  # to take a changed document in
_DOCUMENT_BYTES_FIRST: Final = 32 * 1024  # that a document is taken to have, before one was read


class Cancellable(Protocol):
    """What a timer can be stopped by."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Whoever calls back: the event loop, or a test's hand."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Cancellable: ...


class Costs(Protocol):
    """The budget of the call that searches."""

    def expect(self, cost_us: int) -> None: ...
    def leave_slice(self) -> None: ...


class _Search:
    """One search of an action, on its way."""

    __slots__ = ("answer", "asked", "timer")

    def __init__(self, asked: Asked, answer: Answer) -> None:
        self.asked = asked
        self.answer: Answer | None = answer
        self.timer: Cancellable | None = None


class VectorIndexes:
    """Shape: `submit` runs the deployment's vector job, one at a time, in the order of the calls; `secret` hashes
    filter values; `charge` is told, on the loop thread, of CPU time in ns, as `thread_time_ns` measures it.
    """

    def __init__(
        self,
        database: Database,
        *,
        submit: Callable[[Callable[[], None]], None],
        call_soon_threadsafe: Callable[[Callable[[], None]], object],
        timers: Clock,
        share: Share,
        secret: bytes,
        thread_time_ns: Callable[[], int],
        charge: Callable[[int], None],
    ) -> None:
        self._database = database
        self._submit = submit
        self._call_soon_threadsafe = call_soon_threadsafe
        self._timers = timers
        self._share = share
        self._secret = secret
        self._thread_time_ns = thread_time_ns
        self._charge = charge
        self._copies: dict[Definition, Copy] = {}
        self._of_table: dict[int, list[Copy]] = {}
        self._catalog = database.durable_catalog
        self._epoch = -1
        self._waiting: dict[Copy, list[_Search]] = {}
        self._ready: deque[tuple[Copy, _Search]] = deque()
        self._n_searches = 0
        self._is_working = False
        self._is_closed = False
        self._is_care_due = False
        self._on_closed: Callable[[], None] | None = None
        self._snapshot: StorageSnapshot | None = None
        self._document_bytes = _DOCUMENT_BYTES_FIRST

    @property
    def bytes_held(self) -> int:
        """What its copies take in memory, as far as it is counted."""
        return self._share.used

    # -- searching -------------------------------------------------------------------------------------------------

    def search(self, question: Question, answer: Answer) -> None:
        """Searches the newest durable state; `answer` is called on the loop thread, once.

        The error is one of: DeveloperError of `Question.of` and `find_definition`, `VectorIndexTooLarge`; SystemFault
        `VectorIndexesUnavailable`, `TooManyConcurrentRequests`.
        """
        try:
            copy, asked = self._copy_for(question)
        except SkerryError as error:
            answer(error)
            return
        if self._n_searches >= VECTOR_SEARCHES_WAITING_MAX:
            answer(SystemFault("TooManyConcurrentRequests", "Too many vector searches wait. Try again in a moment."))
            return
        self._n_searches += 1
        search = _Search(asked, answer)
        search.timer = self._timers.call_later(VECTOR_WAIT_SECONDS_MAX, partial(self._expire, search))
        if copy.is_ready.is_set():
            self._ready.append((copy, search))
        else:
            self._waiting.setdefault(copy, []).append(search)
        self._kick()

    def search_at(self, transaction: Transaction, question: Question, costs: Costs) -> bytes:
        """The exact answer as of a query's snapshot, as JSON; the query has read the whole table then.

        Raises: as `search`; SystemFault `SnapshotGone` where the query must begin again with a newer snapshot,
        `OutOfRetention` where it reads the past; what `costs` raises where the query must go on elsewhere.
        """
        if transaction.writable:
            raise DeveloperError(
                "FeatureNotServed",
                "Vector search is offered in actions and queries, not in mutations: search in an action, and pass the "
                "ids to the mutation.",
            )
        definition = find_definition(transaction.catalog, question.index_name)
        asked = question.of(definition, self._secret)
        transaction.read_table(definition.table_number)
        copy = self._copies.get(definition)
        if copy is None or copy.error is not None:
            copy = self._copy_beside(definition) if transaction.detached else self._copy_of(definition)
        if not copy.is_ready.is_set():
            if not transaction.detached:
                self._kick()
                costs.leave_slice()
            if not copy.is_ready.wait(VECTOR_QUERY_WAIT_SECONDS_MAX):
                raise _loading()
        size = copy.count * definition.dimensions
        costs.expect(size // _NUMBERS_PER_US + copy.waiting * _US_PER_CHANGE)
        try:
            return _results(definition, copy.search_at(asked, transaction.snapshot_ts))
        except SystemFault as fault:
            if fault.code != "SnapshotGone" or not isinstance(transaction.snapshot, PastSnapshot):
                raise
            raise SystemFault(
                "OutOfRetention",
                "The vector index does not know so old a state. Read at a later timestamp, or search the present.",
            ) from None

    def _copy_for(self, question: Question) -> "tuple[Copy, Asked]":
        definition = find_definition(self._database.durable_catalog, question.index_name)
        return self._copy_of(definition), question.of(definition, self._secret)

    def _copy_of(self, definition: Definition) -> "Copy":
        """The copy of an index, made where there is none. The loop thread."""
        if self._epoch != self._database.epoch:  # storage went back to what was durable: begin again
            self._drop_all()
        copy = self._copies.get(definition)
        if copy is not None and copy.error is None:
            return copy
        if copy is not None:
            if copy.error is not None and copy.is_refused:
                raise copy.error
            self._forget(copy)
        if self._is_closed:
            raise SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment.")
        copy = self._copies[definition] = new_copy(definition, self._share, self._secret, self._database.durable_ts)
        self._of_table.setdefault(definition.space, []).append(copy)
        self._epoch = self._database.epoch
        self._catalog = self._database.durable_catalog
        if self._hear not in self._database.on_commit:
            self._database.on_commit.append(self._hear)
        return copy

    def _copy_beside(self, definition: Definition) -> "Copy":
        """The same from another thread, which waits for the loop thread."""
        made: deque[Copy | SkerryError] = deque()
        is_made = threading.Event()

        def make() -> None:
            try:
                made.append(self._copy_of(definition))
                self._kick()
            except SkerryError as error:
                made.append(error)
            finally:
                is_made.set()

        self._call_soon_threadsafe(make)
        if not is_made.wait(VECTOR_QUERY_WAIT_SECONDS_MAX) or not made:
            raise _loading()
        copy = made[0]
        if isinstance(copy, SkerryError):
            raise copy
        return copy

    # -- commits ---------------------------------------------------------------------------------------------------

    def _hear(self, record: CommitRecord) -> None:
        """Takes note of a durable commit; what it costs the loop thread is a look at the tables it wrote."""
        of_table = self._of_table
        for write in record.writes:
            copies = of_table.get(write.table.space)
            if copies is not None:
                for copy in copies:
                    copy.feed(record.commit_ts, write)
                if not self._is_working:
                    self._kick()
        catalog = self._database.durable_catalog
        if catalog is not self._catalog:
            self._catalog = catalog
            declared = definitions_of(catalog)
            for definition, copy in [*self._copies.items()]:
                if definition not in declared:
                    self._forget(copy)

    # -- the job ---------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        """Sees to it that the job runs. The loop thread, or the job itself."""
        if not self._is_working and not self._is_closed:
            self._is_working = True
            self._submit(self._work)

    def _work(self) -> None:
        """One turn of the job: the searches that can be answered, and a piece of what else there is to do."""
        begin_ns = self._thread_time_ns()
        answered: list[tuple[_Search, bytes | SkerryError]] = []
        has_more = False
        try:
            for _ in range(len(self._ready)):
                copy, search = self._ready.popleft()
                answered.append((search, self._answer_of(copy, search)))
            if answered and not self._is_care_due:
                has_more = self._is_care_due = True  # whoever searched does not wait for care, and care not for long
            else:
                self._is_care_due = False
                for copy in [*self._copies.values()]:
                    has_more = self._care_for(copy) or has_more
        except Exception:
            _log.exception("the vector indexes of a deployment failed; they are made anew")
            for copy in [*self._copies.values()]:
                copy.close()
        spent_ns = self._thread_time_ns() - begin_ns
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._call_soon_threadsafe(partial(self._take_turn, answered, has_more, spent_ns))

    def _answer_of(self, copy: "Copy", search: _Search) -> "bytes | SkerryError":
        if search.answer is None:  # nobody waits for it any more
            return b""
        try:
            return _results(copy.definition, copy.search(search.asked))
        except SkerryError as error:
            return error

    def _care_for(self, copy: "Copy") -> bool:
        if copy.error is not None:
            return False
        if copy.resume is not None:
            items = self._read(copy.resume, copy.definition.space)
            if items is not None:
                copy.fill(items)
            return True
        return copy.work(self._database.oldest_ts)

    def _read(self, lower: bytes, space: int) -> list[Item] | None:
        """The next documents, of a piece's size, in the newest durable state; None where it has to be tried again."""
        count = max(1, min(VECTOR_DOCUMENTS_PER_PIECE, VECTOR_PIECE_BYTES // self._document_bytes))
        upper = (space + 1).to_bytes(4, "big")
        snapshot = self._snapshot
        try:
            if snapshot is None:
                snapshot = self._snapshot = self._database.looks.snapshot()
            snapshot.renew()
            items = snapshot.scan_chunk(Tree.DOCUMENTS, lower, upper, False, count)
        except SystemFault as fault:
            if fault.code != "SnapshotGone" or self._database.engine.failed is not None:
                raise
            return None  # the storage grew meanwhile
        if items:
            self._document_bytes = max(1, sum([len(stored) for _, stored in items]) // len(items))
        return items

    def _take_turn(self, answered: "list[tuple[_Search, bytes | SkerryError]]", has_more: bool, spent_ns: int) -> None:
        """What a turn of the job came to; the loop thread."""
        self._charge(spent_ns)
        self._is_working = False
        if self._on_closed is not None:
            self._end()
        for search, outcome in answered:
            self._finish(search, outcome)
        for copy in [*self._waiting]:
            if copy.is_ready.is_set():
                self._ready.extend([(copy, search) for search in self._waiting.pop(copy)])
        is_filling = any(copy.resume is not None and copy.error is None for copy in self._copies.values())
        if self._snapshot is not None and not is_filling:
            self._snapshot.close()
            self._snapshot = None
        if has_more or self._ready or any(copy.waiting for copy in self._copies.values() if copy.error is None):
            self._kick()

    # -- the end ---------------------------------------------------------------------------------------------------

    def _finish(self, search: _Search, outcome: "bytes | SkerryError") -> None:
        answer, search.answer = search.answer, None
        if answer is not None:
            self._n_searches -= 1
            if search.timer is not None:
                search.timer.cancel()
            answer(outcome)

    def _expire(self, search: _Search) -> None:
        for copy, searches in [*self._waiting.items()]:
            if search in searches:
                searches.remove(search)
                if not searches:
                    del self._waiting[copy]
        self._finish(search, _loading())

    def _forget(self, copy: "Copy") -> None:
        """A copy that is no longer searched gives its memory back."""
        copy.close()
        definition = copy.definition
        if self._copies.get(definition) is copy:
            del self._copies[definition]
            self._of_table[definition.space].remove(copy)
        if copy in self._waiting:
            self._kick()

    def _drop_all(self) -> None:
        for copy in [*self._copies.values()]:
            self._forget(copy)

    def close(self, on_closed: Callable[[], None]) -> None:
        """Gives all memory back and refuses searches; `on_closed` is called once nothing touches storage any more."""
        self._is_closed = True
        self._on_closed = on_closed
        if self._hear in self._database.on_commit:
            self._database.on_commit.remove(self._hear)
        self._drop_all()
        searches = [search for _, search in self._ready] + [one for many in self._waiting.values() for one in many]
        self._ready.clear()
        self._waiting.clear()
        for search in searches:
            self._finish(search, SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment."))
        if not self._is_working:
            self._end()

    def _end(self) -> None:
        """Nothing is under way any more."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            snapshot.close()
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()


def _results(definition: Definition, scores: "list[tuple[float, bytes]]") -> bytes:
    """The results as the package reads them."""
    number = definition.table_number
    return orjson.dumps(
        {
            "results": [
                {"_id": encode_document_id(number, internal_id), "_score": score} for score, internal_id in scores
            ]
        }
    )


def _loading() -> SystemFault:
    return SystemFault("VectorIndexesUnavailable", "The vector index is being loaded. Try again in a moment.")
