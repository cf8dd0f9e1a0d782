"""The supervisor's parts by themselves: channels, doors, the crash page, ownership, pauses, quarantine, deadlines."""

import contextlib
import os
import resource
import selectors
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from skerry.errors import SystemFault
from skerry.limits import (
    CHANNEL_DESCRIPTORS_MAX,
    CHANNEL_MESSAGE_BYTES_MAX,
    CRASH_MODULES_MAX,
    CRASH_REPORT_BYTES_MAX,
    CRASH_THREADS_MAX,
    HANDOVER_BYTES_MAX,
    HANDOVER_INLINE_BYTES_MAX,
    OWNERS_REMEMBERED_MAX,
    QUARANTINE_CRASHES_MAX,
    QUARANTINE_WINDOW_SECONDS,
    QUARANTINED_MODULES_MAX,
    WORKER_RESTART_DELAY_SECONDS_FIRST,
    WORKER_RESTART_DELAY_SECONDS_MAX,
    WORKER_STEADY_SECONDS,
    WORKERS_MAX,
)
from skerry.supervisor.channel import Channel, ChannelEnded, channel_pair, close_all
from skerry.supervisor.crash_page import (
    CrashPage,
    RunningModule,
    make_crash_page,
    make_crash_report,
    read_report,
    running_at_death,
)
from skerry.supervisor.handover import receive_handover, send_handover
from skerry.supervisor.listeners import listen, origin_of
from skerry.supervisor.ownership import Owners, owner_of
from skerry.supervisor.process import Begin, WorkerProcess
from skerry.supervisor.restarts import Quarantine, Restarts
from skerry.supervisor.supervisor import Plan, Supervisor
from skerry.supervisor.wakeups import Wakeups

DIGEST = "ab" * 32


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    one, other = channel_pair()
    yield one, other
    one.close()
    other.close()


# -- channels ----------------------------------------------------------------------------------------------------


def test_messages_keep_their_bounds_and_their_order(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    assert other.receive() is None
    longest = b"x" * CHANNEL_MESSAGE_BYTES_MAX
    assert one.send(b"a")
    assert one.send(longest)
    assert other.receive() == (b"a", [])
    assert other.receive() == (longest, [])
    assert other.receive() is None


def test_a_message_past_its_bounds_is_never_sent(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    for message, descriptors in (
        (b"x" * (CHANNEL_MESSAGE_BYTES_MAX + 1), []),
        (b"x", [0] * (CHANNEL_DESCRIPTORS_MAX + 1)),
        (b"", []),
    ):
        with pytest.raises(AssertionError):
            one.send(message, descriptors)
    assert other.receive() is None


def test_as_many_descriptors_as_may_be_arrive(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    assert one.send(b"x", [one.fileno()] * CHANNEL_DESCRIPTORS_MAX)
    arrived = other.receive()
    assert arrived is not None
    descriptors = arrived[1]
    try:
        assert len(set(descriptors)) == CHANNEL_DESCRIPTORS_MAX
        assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
    finally:
        close_all(descriptors)


def test_a_full_channel_says_so_and_goes_on_when_it_is_read(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    sent = 0
    while one.send(b"x"):
        sent += 1
    assert sent > 10
    for _ in range(sent):
        assert other.receive() == (b"x", [])
    assert other.receive() is None
    assert one.send(b"x")


def test_the_end_of_the_other_side_is_noticed(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    other.close()
    with pytest.raises(ChannelEnded):
        one.receive()
    with pytest.raises(ChannelEnded):
        one.send(b"x")


@pytest.mark.parametrize("size", [0, 1, HANDOVER_INLINE_BYTES_MAX, HANDOVER_INLINE_BYTES_MAX + 1, HANDOVER_BYTES_MAX])
def test_a_connection_arrives_with_what_was_read(pair: tuple[Channel, Channel], size: int) -> None:
    one, other = pair
    client, served = socket.socketpair()
    with client, served:
        before = len(os.listdir("/proc/self/fd"))
        received = os.urandom(size)
        assert send_handover(one, served.fileno(), 1, received)
        arrived = receive_handover(other)
        assert arrived is not None
        assert (arrived.port, arrived.received) == (1, received)
        with arrived.connection as connection:
            client.sendall(b"still the same")
            assert connection.recv(100) == b"still the same"
        assert len(os.listdir("/proc/self/fd")) == before
        assert receive_handover(other) is None


def test_more_than_may_be_handed_over_is_not(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(AssertionError):
        send_handover(pair[0], 0, 0, bytes(HANDOVER_BYTES_MAX + 1))


def test_a_port_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        assert origin_of(taken) == f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemFault, match=f"port {taken.getsockname()[1]}") as refused:
            listen("127.0.0.1", taken.getsockname()[1])
    assert refused.value.code == "PortInUse"


# -- ownership ---------------------------------------------------------------------------------------------------

NAMES = [f"deployment-{number}" for number in range(2_000)]


@pytest.mark.parametrize("workers", [1, 2, 3, 8, WORKERS_MAX])
def test_deployments_are_spread_evenly(workers: int) -> None:
    counts = Counter(owner_of(name, workers) for name in NAMES)
    assert set(counts) <= set(range(workers))
    expected = len(NAMES) / workers
    assert all(abs(count - expected) < 6 * expected**0.5 for count in counts.values())


def test_one_more_worker_moves_deployments_to_it_only() -> None:
    for name in NAMES:
        assert owner_of(name, 5) in (owner_of(name, 4), 4)


def test_owners_are_the_same_in_every_release() -> None:
    assert [owner_of(name, 8) for name in ("local", "a", "b", "production")] == [0, 3, 0, 2]


def test_remembered_owners_are_right_past_their_bound() -> None:
    owners = Owners(3)
    for number in range(OWNERS_REMEMBERED_MAX + 1):
        assert owners.of(f"n{number}") == owner_of(f"n{number}", 3)
    assert owners.of("n0") == owner_of("n0", 3)


# -- the crash page ----------------------------------------------------------------------------------------------


@pytest.fixture
def page() -> Iterator[int]:
    descriptor = make_crash_page()
    yield descriptor
    os.close(descriptor)


def test_without_a_report_all_that_ran_are_named(page: int) -> None:
    writer = CrashPage(page)
    one, other = RunningModule("one", DIGEST), RunningModule("x" * 64, "cd" * 32)
    notes = [writer.note(), writer.note(), writer.note()]
    assert running_at_death(page, b"") == []
    notes[0][0] = writer.number(one)
    notes[2][0] = writer.number(other)
    assert writer.number(one) == notes[0][0]
    assert running_at_death(page, b"") == [one, other]
    notes[0][0] = 0
    assert running_at_death(page, b"Fatal Python error: Segmentation fault\n") == [other]


def test_more_threads_than_notes_share_the_last(page: int) -> None:
    writer = CrashPage(page)
    notes = [writer.note() for _ in range(CRASH_THREADS_MAX + 1)]
    notes[-1][0] = writer.number(RunningModule("late", DIGEST))
    assert notes[CRASH_THREADS_MAX - 1][0] == notes[-1][0]
    assert running_at_death(page, b"") == [RunningModule("late", DIGEST)]


def test_a_thread_that_ended_gives_its_note_back(page: int) -> None:
    writer = CrashPage(page)
    kept = writer.note()
    for number in range(CRASH_THREADS_MAX + 1):
        note = writer.note()
        note[0] = number
        del note
    kept[0] = writer.number(RunningModule("kept", DIGEST))
    assert running_at_death(page, b"") == [RunningModule("kept", DIGEST)]


def test_more_modules_than_rows_replace_the_oldest(page: int) -> None:
    writer = CrashPage(page)
    note = writer.note()
    modules = [RunningModule(f"n{number}", f"{number:064x}") for number in range(CRASH_MODULES_MAX + 1)]
    for module in modules:
        note[0] = writer.number(module)
        assert 0 < note[0] < CRASH_MODULES_MAX
        assert running_at_death(page, b"") == [module]
    assert writer.number(modules[-1]) == note[0]


def test_a_report_is_read_up_to_its_bound() -> None:
    descriptor = make_crash_report()
    try:
        for size in (0, CRASH_REPORT_BYTES_MAX, CRASH_REPORT_BYTES_MAX + 1):
            os.pwrite(descriptor, b"x" * size, 0)
            assert len(read_report(descriptor)) == min(size, CRASH_REPORT_BYTES_MAX)
    finally:
        os.close(descriptor)


# -- restarts and quarantine -------------------------------------------------------------------------------------


def test_the_first_restart_waits_for_nothing_and_later_ones_longer() -> None:
    restarts = Restarts()
    delays = [restarts.delay(0) for _ in range(100)]
    assert delays[0] == 0
    assert delays[1] == WORKER_RESTART_DELAY_SECONDS_FIRST
    assert delays[2] == 2 * WORKER_RESTART_DELAY_SECONDS_FIRST
    assert delays == sorted(delays)
    assert delays[-1] == WORKER_RESTART_DELAY_SECONDS_MAX


def test_a_worker_that_lasted_is_restarted_at_once() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.delay(0)
    assert restarts.delay(WORKER_STEADY_SECONDS - 0.001) > 0
    assert restarts.delay(WORKER_STEADY_SECONDS) == 0
    assert restarts.delay(0) > 0


def test_too_many_crashes_within_the_window_quarantine() -> None:
    quarantine, module = Quarantine(), RunningModule("one", DIGEST)
    for count in range(1, QUARANTINE_CRASHES_MAX):
        assert not quarantine.crashed(module, float(count))
    assert quarantine.crashed(module, 1 + QUARANTINE_WINDOW_SECONDS)
    assert quarantine.modules() == [module]
    quarantine.lift("another")
    assert quarantine.modules() == [module]
    quarantine.lift("one")
    assert quarantine.modules() == []


def test_crashes_further_apart_do_not() -> None:
    quarantine, module = Quarantine(), RunningModule("one", DIGEST)
    for _ in range(QUARANTINE_CRASHES_MAX - 1):
        assert not quarantine.crashed(module, 0.0)
    assert not quarantine.crashed(module, QUARANTINE_WINDOW_SECONDS + 0.001)
    assert not quarantine.crashed(RunningModule("one", "cd" * 32), QUARANTINE_WINDOW_SECONDS)
    assert quarantine.modules() == []


def test_the_oldest_quarantine_is_forgotten_past_the_bound() -> None:
    quarantine = Quarantine()
    modules = [RunningModule(f"n{number}", DIGEST) for number in range(QUARANTINED_MODULES_MAX + 1)]
    for number, module in enumerate(modules):
        for _ in range(QUARANTINE_CRASHES_MAX):
            quarantine.crashed(module, float(number))
        assert len(quarantine.modules()) <= QUARANTINED_MODULES_MAX
    assert quarantine.modules() == modules[1:]


# -- workers at their start --------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", range(5))
def test_a_worker_that_no_descriptors_are_left_for_leaves_none_open(room: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = max(map(int, os.listdir("/proc/self/fd"))) + 10
    resource.setrlimit(resource.RLIMIT_NOFILE, (bound, hard))
    taken: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(room):
            os.close(taken.pop())
        before = open_below(bound)
        with pytest.raises(OSError, match="Too many open files"):
            WorkerProcess([sys.executable, "-c", ""], Begin(0, 1, {}, []), [0, 0], 0.0)
        assert open_below(bound) == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        close_all(taken)


def open_below(bound: int) -> int:
    """How many descriptors are open, found without opening one."""
    count = 0
    for descriptor in range(bound):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            count += 1
    return count


def test_a_worker_that_was_ready_and_died_at_once_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.supervisor.supervisor._has_terminal", lambda: False)  # the test's streams are files
    speaks = "import socket; socket.socket(fileno=0).send(b'{\"ready\": {}}')"
    supervisor = Supervisor(Plan([sys.executable, "-c", speaks], {}, 1, []), lambda: 0.0)
    (seat,) = supervisor._seats
    with Wakeups((signal.SIGCHLD,)) as wakeups:
        supervisor._selector.register(wakeups, selectors.EVENT_READ, None)
        supervisor._start(seat)
        assert seat.current is not None
        os.waitid(os.P_PID, seat.current.pid, os.WEXITED | os.WNOWAIT)
        supervisor._wait(wakeups)
        try:
            assert (seat.report, supervisor._starts_failed) == (None, 1)
        finally:
            supervisor._kill_all()
