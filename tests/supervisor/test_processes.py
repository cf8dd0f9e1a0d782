"""Real supervisors with real worker processes: started, killed, replaced, stopped. The workers serve lines."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry.limits import HANDOVER_INLINE_BYTES_MAX, QUARANTINE_CRASHES_MAX, WORKER_STARTS_FAILED_MAX
from tests.http.serving import environment

SECONDS_MAX = 60
ONE, OTHER = "11" * 32, "22" * 32


class FakeServer:
    """A running `fake_serve.py`."""

    def __init__(self, folder: Path, workers: int, *bounds: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fake_serve.py")), str(folder), str(workers), *bounds],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS_MAX)
        assert ready, "it said nothing"
        self.said = json.loads(self.process.stdout.readline())

    def pids(self) -> list[int]:
        """The workers that the supervisor has now, by the machine's word; zombies too."""
        return children(self.process.pid)

    def connect(self) -> "Line":
        return Line(socket.create_connection(("127.0.0.1", self.said["port"]), timeout=SECONDS_MAX))

    def ask(self, line: str) -> list[str]:
        with self.connect() as connection:
            return connection.ask(line)

    def tell(self, line: str) -> None:
        """Says something that is not answered, because it kills."""
        with self.connect() as connection:
            connection.send(line)
            connection.until_closed()

    def until(self, condition: Callable[[], bool]) -> None:
        wait_for(condition, f"pids {self.pids()}")

    def stop(self) -> tuple[int, str]:
        """Tells it to stop; its exit code and what it wrote."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Waits for its end; its exit code and what it wrote."""
        errors = self.process.communicate(timeout=SECONDS_MAX)[1]
        return self.process.returncode, errors.decode()


class Line:
    """One connection to a fake worker."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._reader = connection.makefile("rb")

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, line: str) -> None:
        self.socket.sendall(line.encode() + b"\n")

    def read(self) -> list[str]:
        return self._reader.readline().decode().split()

    def ask(self, line: str) -> list[str]:
        self.send(line)
        return self.read()

    def until_closed(self) -> None:
        with contextlib.suppress(ConnectionError):
            assert self._reader.read() == b""


def wait_for(condition: Callable[[], bool], what: str = "") -> None:
    """Looks again and again, leaving the machine to others in between."""
    nothing = threading.Event()
    until = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < until, f"it never came true: {what}"
        nothing.wait(0.005)


def children(pid: int) -> list[int]:
    """Its child processes, sorted; those that nobody reaped too."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., FakeServer]]:
    started: list[FakeServer] = []

    def start_one(workers: int, *bounds: str) -> FakeServer:
        started.append(FakeServer(tmp_path, workers, *bounds))
        return started[-1]

    yield start_one
    for server in started:
        if server.process.returncode is None:
            server.stop()


def test_it_is_ready_when_all_are_and_ends_with_all(start: Callable[..., FakeServer]) -> None:
    server = start(3)
    workers = server.said["workers"]
    assert [worker["index"] for worker in workers] == [0, 1, 2]
    assert sorted(worker["pid"] for worker in workers) == server.pids()
    assert int(server.ask("who")[1]) in server.pids()
    assert server.stop() == (0, "")
    assert not any(is_alive(worker["pid"]) for worker in workers)


def test_a_worker_that_dies_is_replaced_and_the_others_stay(start: Callable[..., FakeServer]) -> None:
    server = start(2)
    before = [worker["pid"] for worker in server.said["workers"]]
    for _ in range(3):
        victim, other = before
        os.kill(victim, signal.SIGKILL)
        assert server.ask("who")[2] == "who", "somebody answers at any time"
        server.until(lambda known={victim, other}: len(set(server.pids()) - known) == 1)
        (fresh,) = set(server.pids()) - {other}
        before = [fresh, other]
    code, errors = server.stop()
    assert code == 0
    assert errors.count("died of SIGKILL") == 3


def test_workers_die_with_their_supervisor(start: Callable[..., FakeServer]) -> None:
    server = start(2)
    pids = server.pids()
    server.process.kill()
    server.process.communicate(timeout=SECONDS_MAX)
    wait_for(lambda: not any(is_alive(pid) for pid in pids))


def test_a_worker_has_only_the_descriptors_it_needs(start: Callable[..., FakeServer]) -> None:
    leaked = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        server = start(2)
    finally:
        os.close(leaked)
    files = server.ask("files")[2:]
    # Standard output and error; control (it is standard input too), listener, door, two doors, and the connection that
    # asks; crash page and report; what the worker itself waits with.
    assert files == sorted([*["pipe"] * 2, *["socket"] * 7, *["/memfd"] * 2, "anon_inode"])


def test_what_a_worker_cannot_start_for_is_told(start: Callable[..., FakeServer], tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()
    server = start(2)
    assert server.said == {"code": "DataFolderFormat", "message": "This folder is something else."}
    assert server.end()[0] == 4


def test_workers_that_never_start_end_the_server(start: Callable[..., FakeServer], tmp_path: Path) -> None:
    (tmp_path / "fall").touch()
    server = start(1)
    assert server.said["code"] == "WorkerUnstartable"
    assert (tmp_path / "starts").read_text() == "0\n" * WORKER_STARTS_FAILED_MAX
    assert server.end()[0] == 4


def test_a_worker_that_once_started_is_retried_until_it_starts_again(
    start: Callable[..., FakeServer], tmp_path: Path
) -> None:
    server = start(1, "WORKER_RESTART_DELAY_SECONDS_MAX=0.1")
    (tmp_path / "fall").touch()
    server.tell(f"kill {signal.SIGKILL}")
    starts = tmp_path / "starts"
    server.until(lambda: len(starts.read_text()) > 2 * (1 + WORKER_STARTS_FAILED_MAX))
    (tmp_path / "fall").unlink()
    assert server.ask("who")[2] == "who"
    assert server.stop()[0] == 0


def test_a_connection_is_handed_to_another_worker(start: Callable[..., FakeServer]) -> None:
    server = start(2)
    with server.connect() as line:
        for length in (10, HANDOVER_INLINE_BYTES_MAX, HANDOVER_INLINE_BYTES_MAX + 1, 300_000):
            for index in (0, 1):
                text = f"pass {index} ".ljust(length - 1, "x")
                assert line.ask(text) == [str(index), line_pid(server, index), "taken", "1", str(length)]


def line_pid(server: FakeServer, index: int) -> str:
    return str(server.said["workers"][index]["pid"])


def test_a_connection_waits_in_the_door_of_a_worker_that_is_away(start: Callable[..., FakeServer]) -> None:
    server = start(2)
    gone = server.said["workers"][1]["pid"]
    os.kill(gone, signal.SIGSTOP)  # it takes nothing from its door any more
    with server.connect() as line:
        line.send("pass 1")
        os.kill(gone, signal.SIGKILL)
        index, pid, *rest = line.read()
        assert (index, rest) == ("1", ["taken", "1", "7"])
        assert int(pid) != gone


def test_workers_are_replaced_one_after_another_and_connections_stay(start: Callable[..., FakeServer]) -> None:
    server = start(2)
    before = server.pids()
    with server.connect() as one, server.connect() as other:
        asked = [one.ask("who")[1], other.ask("who")[1]]
        assert {int(pid) for pid in asked} <= set(before)
        server.process.send_signal(signal.SIGHUP)
        for line in (one, other):
            taken = line.read()
            assert taken[2:] == ["taken", "0", "0"]
            assert int(taken[1]) not in before
            assert line.ask("who") == [*taken[:2], "who"]
        server.until(lambda: not set(before) & set(server.pids()))
        assert len(server.pids()) == 2
    assert server.stop() == (0, "")


def test_a_successor_that_does_not_start_leaves_the_worker_in_place(
    start: Callable[..., FakeServer], tmp_path: Path
) -> None:
    server = start(1)
    before = server.pids()
    (tmp_path / "refuse").touch()
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: (tmp_path / "starts").read_text() == "0\n0\n" and server.pids() == before)
    assert server.ask("who")[1] == str(before[0])
    code, errors = server.stop()
    assert code == 0
    assert "This folder is something else." in errors


def test_a_retired_worker_that_does_not_end_is_killed(start: Callable[..., FakeServer]) -> None:
    server = start(1, "WORKER_STOP_SECONDS_MAX=0.2")
    before = server.pids()
    server.ask("deaf")
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: len(server.pids()) == 1 and server.pids() != before)
    code, errors = server.stop()
    assert code == 0
    assert "is stuck retiring: killed" in errors


@pytest.mark.parametrize("second", [False, True])
def test_a_worker_that_does_not_stop_is_killed(start: Callable[..., FakeServer], second: bool) -> None:
    server = start(2, *([] if second else ["WORKER_STOP_SECONDS_MAX=0.2"]))
    with server.connect() as line:
        deaf = int(line.ask("deaf")[1])
        server.process.send_signal(signal.SIGINT)
        server.until(lambda: server.pids() == [deaf])
        if second:
            server.process.send_signal(signal.SIGINT)
        assert server.end()[0] == 0
    assert not is_alive(deaf)


def test_a_start_that_says_nothing_is_killed(start: Callable[..., FakeServer], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "starts")  # opening it for writing waits for a reader, who never comes
    server = start(1, "WORKER_START_SECONDS_MAX=0.2")
    assert server.said["code"] == "WorkerUnstartable"
    assert "is stuck starting: killed" in server.end()[1]


def test_a_module_that_keeps_crashing_is_quarantined_and_its_neighbour_is_not(
    start: Callable[..., FakeServer],
) -> None:
    server = start(1)
    for _ in range(QUARANTINE_CRASHES_MAX):
        assert server.ask("quarantined")[2:] == []
        assert server.ask(f"idle neighbour {OTHER}")[2] == "idle"
        server.tell(f"run culprit {ONE}")
    assert server.ask("quarantined")[2:] == ["culprit"]
    code, errors = server.stop()
    assert code == 0
    assert errors.count(f"deployment culprit: module {ONE} was running in it") == QUARANTINE_CRASHES_MAX
    assert "neighbour" not in errors
    assert "Current thread" in errors


def test_what_is_quarantined_stays_so_until_it_is_lifted_also_for_another_supervisor(
    start: Callable[..., FakeServer],
) -> None:
    server = start(2)
    for name, digest in (("culprit", ONE), ("second", OTHER)):
        for _ in range(QUARANTINE_CRASHES_MAX):
            server.tell(f"run {name} {digest}")
    wait_for(lambda: server.ask("quarantined")[2:] == ["culprit", "second"])
    server.stop()
    server = start(2)
    heard = {index: server.ask("quarantined") for index in range(20)}
    assert {tuple(said[2:]) for said in heard.values()} == {("culprit", "second")}
    assert server.ask("lift culprit")[2] == "asked"
    wait_for(lambda: server.ask("quarantined")[2:] == ["second"])
    server.stop()
    assert start(1).ask("quarantined")[2:] == ["second"]


def test_a_worker_that_is_killed_blames_nobody(start: Callable[..., FakeServer]) -> None:
    server = start(1)
    for _ in range(QUARANTINE_CRASHES_MAX):
        server.ask(f"idle innocent {ONE}")
        server.tell(f"kill {signal.SIGKILL}")
    assert server.ask("quarantined")[2:] == []


def test_a_worker_is_no_program_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fake_worker.py"))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 1
    assert "A worker is started by its supervisor" in done.stderr
