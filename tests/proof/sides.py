"""The sides of a hand-made schedule: transactions that do a step when they are told to, and are run again where they
conflict.

`HandSide` holds a transaction of the database itself, in the lane or beside it. `PatientSide` is a mutation of a real
app on a background thread: the function asks for its next step through an operation that is answered here.
"""

import json
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ClassVar, Protocol

import pytest

from skerry.database import Conflict, Transaction
from skerry.functions.patient_threads import PatientThreads
from tests.database.world import World, scan_query, table_schema
from tests.fixtures.world import World as AppWorld
from tests.proof.steps import State, Step, on_transaction

WAIT_SECONDS = 60
SIDES_MAX = 4
SLOW = 8
CELLS = {"by_key": ["key"], "by_value": ["value"]}


class Side(Protocol):
    """One transaction. Shape: `steps` and `answers` of the attempt that counts."""

    steps: list[Step]
    answers: list[Any]

    def do(self, *step: Any) -> Any:
        """Does the step now and gives what it answers."""
        ...

    def commit(self) -> bool:
        """Ends the transaction; False where it conflicted and was run again, until it committed."""
        ...

    def abort(self) -> None:
        """Gives it up."""
        ...


class HandSide:
    """A transaction of the database. With `nested`, each step is done in a sub-transaction, after one that failed."""

    def __init__(self, world: World, *, detached: bool, nested: bool = False) -> None:
        self.world = world
        self.steps: list[Step] = []
        self.answers: list[Any] = []
        self._detached = detached
        self._nested = nested
        self._transaction = world.begin(detached=detached)

    def do(self, *step: Any) -> Any:
        self.steps.append(step)
        self.answers.append(self._step(step))
        return self.answers[-1]

    def _step(self, step: Step) -> Any:
        if not self._nested:
            return on_transaction(self._transaction, step)
        on_transaction(self._transaction, ("nested", [step, ("set", "lost", -1)], True))
        return on_transaction(self._transaction, ("nested", [step], False))[0]

    def commit(self) -> bool:
        first = True
        while True:
            try:
                told = self.world.commit(self._transaction)
            except Conflict:
                first = False
                self._again()
            else:
                assert not told or isinstance(told[0], int), told
                return first

    def _again(self) -> None:
        release: Callable[[], None] = getattr(self.world.engine, "release", lambda: None)
        release()
        self.world.settle()
        self._transaction = self.world.begin(detached=self._detached)
        self.answers = [self._step(step) for step in self.steps]

    def abort(self) -> None:
        self._transaction.abort()


class _Conversation(Transaction):
    """A transaction whose function takes its steps from a `PatientSide`."""

    __slots__ = ()

    def normalize_id(self, table: str, text: str) -> str | None:
        said = json.loads(text)
        return PatientSide.of[said["side"]].next_step(self, said["answer"])


class PatientSide:
    """A mutation on a background thread that takes its steps from here; made by `PatientStage`."""

    of: ClassVar[dict[int, "PatientSide"]] = {}

    def __init__(self, world: AppWorld) -> None:
        self.world = world
        self.steps: list[Step] = []
        self.answers: list[Any] = []
        self._attempt: Transaction | None = None
        self._told: SimpleQueue[Step | None] = SimpleQueue()
        self._asked: SimpleQueue[Any] = SimpleQueue()
        self._ended = False
        self._number = len(self.of)
        self.of[self._number] = self
        assert world.deployment.version is not None
        world.deployment.version.functions["proof:converse"].slowness = SLOW  # to the background at once
        self._future = world.start("mutation", "proof:converse", {"side": self._number})
        self._asked.get(timeout=WAIT_SECONDS)

    def next_step(self, attempt: Transaction, answer: Any) -> str | None:
        """On the function's thread: waits for the step that it does next; None is its end."""
        if attempt is not self._attempt:
            self._attempt = attempt
            self._done = 0
            self.answers = []
        else:
            self.answers.append(answer)
        if self._done == len(self.steps) and not self._ended:
            self._asked.put(answer)
            step = self._told.get(timeout=WAIT_SECONDS)
            if step is None:
                self._ended = True
            else:
                self.steps.append(step)
        if self._done == len(self.steps):
            return None
        self._done += 1
        return json.dumps(self.steps[self._done - 1])

    def do(self, *step: Any) -> Any:
        self._told.put(step)
        return self._asked.get(timeout=WAIT_SECONDS)

    def commit(self) -> bool:
        first = self._attempt
        self._told.put(None)
        result = self.world.finish(self._future)
        assert result.ok, result.error_message
        return self._attempt is first

    def abort(self) -> None:
        self._told.put(("fail",))
        assert not self.world.finish(self._future).ok


class HandStage:
    """Sides over a database of cells. Shape: `kinds` of the sides in their order, the last one repeated."""

    def __init__(self, world: World, kinds: tuple[str, ...], *, held: bool = False, nested: bool = False) -> None:
        self.world = world
        self._kinds = kinds
        self._held = held
        self._nested = nested
        self._sides: list[HandSide] = []
        world.schema(table_schema("cells", CELLS))

    def begin(self, cells: State) -> None:
        """Puts the cells there; with `held`, no commit from here on is durable before a conflict or the end."""
        self.world.run(*[lambda t, k=k, v=v: on_transaction(t, ("set", k, v)) for k, v in cells.items()])
        if self._held:
            self.world.engine.hold()  # pyright: ignore[reportAttributeAccessIssue]  # the memory engine's own

    def side(self) -> Side:
        kind = self._kinds[min(len(self._sides), len(self._kinds) - 1)]
        made = HandSide(self.world, detached=kind == "detached", nested=self._nested)
        self._sides.append(made)
        return made

    def durable(self) -> None:
        """Lets everything so far become durable."""
        if self._held:
            self.world.engine.release()  # pyright: ignore[reportAttributeAccessIssue]  # the memory engine's own
        self.world.settle()

    def state(self) -> State:
        """The cells, once all is durable."""
        self.durable()
        found = json.loads(self.world.read(lambda t: t.collect_query(scan_query("cells"))))
        return {cell["key"]: cell["value"] for cell in found}


class PatientStage:
    """Sides that are mutations of the app, each on a thread of its own."""

    def __init__(self, world: AppWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        begin = world.deployment.database.begin

        def begin_conversation(**how: Any) -> Transaction:
            transaction = begin(**how)
            if how.get("detached"):
                transaction.__class__ = _Conversation
            return transaction

        monkeypatch.setattr(world.deployment.database, "begin", begin_conversation)
        # Sides wait for each other: each needs a thread, however few processors there are.
        monkeypatch.setattr(world.deployment.lane, "_background", PatientThreads(threads=SIDES_MAX, each_max=SIDES_MAX))

    def begin(self, cells: State) -> None:
        self.world.mutation("proof:run", {"steps": [["set", key, value] for key, value in cells.items()]})

    def side(self) -> Side:
        return PatientSide(self.world)

    def durable(self) -> None:
        """Whoever was told of a commit was told when it was durable."""

    def state(self) -> State:
        query = {"steps": [["between", -1e9, 1e9], *(["get", key] for key in ("x", "y", "z", "w", "lost"))]}
        values, *cells = self.world.query("proof:look", query)
        state = {k: v for k, v in zip(("x", "y", "z", "w", "lost"), cells, strict=True) if v is not None}
        assert sorted(state.values()) == values, "there are more cells than the proofs know of"
        return state
