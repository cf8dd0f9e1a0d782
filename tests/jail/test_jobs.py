"""Jobs and their ends: each has its code, and nothing of a job is left behind."""

import contextlib
import errno
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skerry import limits
from skerry.errors import SkerryError, SystemFault
from skerry.functions.module_check import check_module
from skerry.isolate import ModuleCache, compile_jailed, get_engine
from skerry.jail import Jail, messages, run_job, walls
from skerry.jail.messages import MessageInvalid
from skerry.jail.process import ChildProcess, _import_path
from tests.fixtures.guests import wat_guest
from tests.jail.conftest import children, tried
from tests.jail.hostile_modules import HOSTILE

WASM = wat_guest("finds_table")


def refused(act: Callable[[], object]) -> SkerryError:
    with pytest.raises(SkerryError) as caught:
        act()
    return caught.value


# -- the machine code ----------------------------------------------------------------------------------------------


def test_the_jail_compiles_as_this_process_does(tmp_path: Path) -> None:
    here = ModuleCache(get_engine(), None, b"key")
    jailed = ModuleCache(get_engine(), tmp_path / "compiled", b"key", compile_jailed)
    assert jailed.machine_code(WASM) == here.machine_code(WASM)
    assert jailed.load(WASM).digest == here.load(WASM).digest
    assert len(list((tmp_path / "compiled").iterdir())) == 1


def test_a_module_that_does_not_validate_is_refused_alike() -> None:
    broken = WASM[:-1]
    here = refused_words(lambda: ModuleCache(get_engine(), None, b"key").load(broken))
    error = refused(lambda: ModuleCache(get_engine(), None, b"key", compile_jailed).load(broken))
    assert (error.code, error.message) == ("GuestModuleInvalid", f"The module does not validate: {here}")


def refused_words(act: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:
        act()
    return str(caught.value)


def test_what_is_no_machine_code_of_this_engine_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.isolate.compiled.run_job", lambda *_: b"not machine code")
    assert refused(lambda: compile_jailed(get_engine(), WASM)).code == "JailFailed"


# -- hostile modules -----------------------------------------------------------------------------------------------

# What each costs more than, with the limits that the test gives.
COSTS = {
    "many_functions": (60_000, "CPU time"),
    "one_long_function": (580_000, "MiB"),
    "nested_blocks": (1_000_000, "MiB"),
    "nested_loops_of_values": (900, "CPU time"),
    "many_locals": (90_000, "CPU time"),
}


@pytest.mark.parametrize("shape", COSTS)
def test_a_module_that_costs_too_much_ends_within_bounds(
    jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    size, what = COSTS[shape]
    wasm = HOSTILE[shape](size)
    check_module(wasm)
    lower = {"JAIL_CPU_SECONDS_MAX": 1} if what == "CPU time" else {"JAIL_MEMORY_BYTES_MAX": 128 << 20}
    for name, value in lower.items():
        monkeypatch.setattr(limits, name, value)
    jail = jail_with(limits=lower)
    error = refused(lambda: jail.run_job("compile", [wasm]))
    assert error.code == "JobTooExpensive"
    assert what in error.message
    assert jail.run_job("compile", [WASM])


@pytest.mark.parametrize(("shape", "size"), [("wide_tables", 50), ("nested_blocks", 20_000)])
def test_a_module_that_looks_dear_and_is_not_compiles(jail_with: Callable[..., Jail], shape: str, size: int) -> None:
    assert jail_with().run_job("compile", [HOSTILE[shape](size)])


# -- bounds of the exchange ----------------------------------------------------------------------------------------


def test_a_job_that_hangs_is_ended(jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JAIL_JOB_SECONDS_MAX", 0.2)
    monkeypatch.setattr(limits, "JAIL_END_MS", 50)
    error = refused(lambda: tried(jail_with(), "sleep"))
    assert (error.code, "longer than 0.2 s" in error.message) == ("JobTooExpensive", True)


def test_what_goes_in_has_a_bound(jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JAIL_INPUT_BYTES_MAX", len(WASM) + len("compile"))
    jail = jail_with()
    assert jail.run_job("compile", [WASM])
    assert refused(lambda: jail.run_job("compile", [WASM, b"x"])).code == "JobTooExpensive"


def test_what_comes_out_has_a_bound(jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch) -> None:
    jail = jail_with()
    monkeypatch.setattr(limits, "JAIL_OUTPUT_BYTES_MAX", 100)
    said = limits.JAIL_OUTPUT_BYTES_MAX - len(messages.DONE) - len('""')
    assert len(tried(jail, "talk", said)) == said
    assert refused(lambda: tried(jail, "talk", said + 1)).code == "JailFailed"


def test_an_errors_words_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = refused(lambda: run_job("compile", [WASM[:-1]])).message
    for bound in (len(whole), len(whole) - 1):
        monkeypatch.setattr(limits, "JAIL_MESSAGE_CHARS_MAX", bound)
        assert refused(lambda: run_job("compile", [WASM[:-1]])).message == whole[:bound]


def test_a_child_that_does_not_start_is_a_fault(
    jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch
) -> None:
    jail = jail_with(limits="no table")
    for act in (lambda: tried(jail, "environment"), jail.walls):
        error = refused(act)
        assert (error.code, "did not start" in error.message) == ("JailFailed", True)
    monkeypatch.setattr(limits, "JAIL_START_SECONDS_MAX", 0)
    assert "did not start" in refused(lambda: tried(jail_with(), "environment")).message


def test_a_job_that_no_process_can_be_started_for_is_a_fault() -> None:
    jail = Jail(time.monotonic, lambda monotonic: ChildProcess(monotonic, ["/nowhere/at/all"]))
    assert "No process could be started" in refused(lambda: jail.run_job("compile", [WASM])).message
    jail.close()


def test_a_spare_that_cannot_be_started_keeps_no_job_from_running(jail_with: Callable[..., Jail]) -> None:
    jail = jail_with()
    start, fails = jail._start, [True]

    def sometimes(monotonic: Callable[[], float]) -> ChildProcess:
        if fails:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return start(monotonic)

    jail._start = sometimes
    assert "Too many open files" in refused(lambda: tried(jail, "environment")).message
    jail._orders.put(None)  # what the end of every job leaves: make a spare
    wait_until(jail._orders.empty)
    assert "Too many open files" in refused(lambda: tried(jail, "environment")).message
    fails.clear()
    assert tried(jail, "environment") == {}


def test_a_job_that_crashes_is_a_fault_and_the_next_one_works(jail_with: Callable[..., Jail]) -> None:
    jail = jail_with()
    error = refused(lambda: tried(jail, "crash"))
    assert (error.code, "SIGSEGV" in error.message) == ("JailFailed", True)
    assert refused(lambda: jail.run_job("no such job", [])).code == "JailFailed"
    assert tried(jail, "environment") == {}


ANSWERS = {
    "nothing": [],
    "something else": [b"more or less", b"x"],
    "an error that is no JSON": [messages.REFUSED, b"x"],
    "an error without a code": [messages.REFUSED, b"{}"],
    "a code that there is not": [messages.REFUSED, b'{"code": "Nonsense", "message": "", "data": null}'],
    "a code of the host's own": [messages.REFUSED, b'{"code": "StorageFull", "message": "", "data": null}'],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_taken_over_job_says_only_what_a_job_may(name: str) -> None:
    said = b"".join(messages.encode([b"[]"]) + messages.encode(ANSWERS[name]))
    program = f"import os, time; os.write(1, {said!r}); os.read(0, 1000); os.close(1)"
    jail = Jail(time.monotonic, lambda monotonic: ChildProcess(monotonic, [sys.executable, "-c", program]))
    assert refused(lambda: jail.run_job("compile", [b""])).code == "JailFailed"
    jail.close()


def test_messages_have_a_bound_on_parts_and_bytes() -> None:
    def reader(raw: bytes) -> Callable[[int], bytes]:
        left = [raw]

        def read_exactly(length: int) -> bytes:
            taken, left[0] = left[0][:length], left[0][length:]
            return taken

        return read_exactly

    parts = [b"x"] * messages.PARTS_MAX
    raw = b"".join(messages.encode(parts))
    assert messages.decode(reader(raw), len(parts)) == parts
    with pytest.raises(MessageInvalid, match="64 bytes"):
        messages.decode(reader(raw), len(parts) - 1)
    with pytest.raises(MessageInvalid, match="65 parts"):
        messages.decode(reader((messages.PARTS_MAX + 1).to_bytes(4, "little")), 1)


# -- how many at once ----------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come to pass")


def test_jobs_at_once_and_waiting_have_bounds(jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JAIL_JOBS_MAX", 2)
    monkeypatch.setattr(limits, "JAIL_JOBS_WAITING_MAX", 1)
    monkeypatch.setattr(limits, "JAIL_JOB_SECONDS_MAX", 3)
    monkeypatch.setattr(limits, "JAIL_END_MS", 50)
    jail = jail_with()
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(lambda: refused(lambda: tried(jail, "sleep"))) for _ in range(2)]
        wait_until(lambda: jail._running == 2)
        waiting = threads.submit(lambda: tried(jail, "environment"))
        wait_until(lambda: jail._waiting == 1)
        assert refused(lambda: tried(jail, "environment")).code == "JailBusy"
        assert {future.result().code for future in running} == {"JobTooExpensive"}
        assert waiting.result() == {}


def test_waiting_for_a_place_ends(jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JAIL_JOBS_MAX", 0)
    monkeypatch.setattr(limits, "JAIL_WAIT_SECONDS_MAX", 0.01)
    assert refused(lambda: tried(jail_with(), "environment")).code == "JailBusy"


# -- the spare and what is left ------------------------------------------------------------------------------------


def test_a_spare_waits_after_a_job_and_is_used_for_the_next(jail_with: Callable[..., Jail]) -> None:
    jail = jail_with()
    before = children()
    tried(jail, "environment")
    wait_until(lambda: len(children() - before) == 1)
    spare = children() - before
    tried(jail, "environment")
    wait_until(lambda: len(children() - before) == 1 and children() - before != spare)


def test_a_spare_that_died_is_replaced(jail_with: Callable[..., Jail]) -> None:
    jail = jail_with()
    before = children()
    tried(jail, "environment")
    wait_until(lambda: len(children() - before) == 1)
    (spare,) = children() - before
    os.kill(spare, signal.SIGKILL)
    wait_until(lambda: "Z" in Path(f"/proc/{spare}/stat").read_text())
    wait_until(lambda: jail._spare is not None and jail._spare.has_ended())
    assert tried(jail, "environment") == {}


def test_a_jail_that_is_closed_beside_jobs_closes_and_does_them(jail_with: Callable[..., Jail]) -> None:
    jail = jail_with()
    start, began, opened = jail._start, threading.Semaphore(0), threading.Event()

    def held(monotonic: Callable[[], float]) -> ChildProcess:
        began.release()
        assert opened.wait(60)
        return start(monotonic)

    jail._start = held
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(lambda: tried(jail, "environment"))
        assert began.acquire(timeout=60)
        closing = threads.submit(jail.close)
        wait_until(lambda: not jail._orders.empty())
        second = threads.submit(lambda: tried(jail, "environment"))
        wait_until(lambda: jail._running == 2)
        opened.set()
        assert (first.result(60), second.result(60)) == ({}, {})
        closing.result(60)


def test_an_unused_spare_ends_after_a_while(jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JAIL_SPARE_SECONDS", 0.05)
    jail = jail_with()
    before = children()
    tried(jail, "environment")
    wait_until(lambda: jail._spare is not None)
    wait_until(lambda: jail._spare is None and children() == before)


def test_asking_for_the_walls_leaves_no_spare(jail_with: Callable[..., Jail]) -> None:
    before = children()
    assert len(jail_with().walls()) == len(walls())
    assert children() == before


def test_a_child_killed_at_any_moment_is_a_clean_error(jail_with: Callable[..., Jail]) -> None:
    """Of the three processes that a job has, either is killed, at moments all over its life."""
    jail = jail_with()
    chance = random.Random(1)
    before = children()
    folder = Path(tempfile.gettempdir())
    files = set(folder.iterdir())
    for _ in range(12):
        job = ThreadPoolExecutor(1).submit(lambda: outcome(jail))
        threading.Event().wait(chance.random() * 0.25)
        for victim in children() - before:
            victims = [victim, *descendants(victim)]
            os.kill(victims[chance.randrange(len(victims))], signal.SIGKILL)
        assert job.result() in ("compiled", "JailFailed")
    # The last kill may still meet the spare that the next job takes; the one after it finds nothing of them.
    assert "compiled" in (outcome(jail), outcome(jail))
    assert {path for path in folder.iterdir() if path.name.startswith("tmp")} <= files


def outcome(jail: Jail) -> str:
    try:
        jail.run_job("compile", [WASM])
    except SystemFault as error:
        return error.code
    return "compiled"


def test_children_die_with_the_host(tmp_path: Path) -> None:
    """A host that is killed in the middle of a job leaves no process."""
    program = (
        "import sys, time; sys.path += sys.argv[1:]\n"
        "from skerry.jail import Jail\nfrom tests.jail.conftest import tried\n"
        "from tests.jail.probe_child import starter\n"
        "tried(Jail(time.monotonic, starter()), 'burn')\n"
    )
    host = ChildProcess(time.monotonic, [sys.executable, "-c", program, *_import_path()])
    try:
        wait_until(lambda: len(descendants(host.pid)) == 2)
        below = descendants(host.pid)
        os.kill(host.pid, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in below))
    finally:
        host.end()


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_jobs_run_at_a_lower_priority(jail_with: Callable[..., Jail]) -> None:
    assert tried(jail_with(only=[]), "niceness") == min(19, os.nice(0) + limits.JAIL_NICE)
