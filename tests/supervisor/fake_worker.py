"""A worker that serves lines instead of HTTP, and does as it is told: everything around it is the real thing.

A line and what it does: `who` answers the index and the process id; `files` answers what is open; `quarantined`
answers what it must not load; `kill N` sends itself a signal; `run NAME DIGEST` notes a module on a thread and
faults there; `idle NAME DIGEST` notes one on another thread and stays alive; `pass N ...` hands the connection over
with the rest of the line; `lift NAME` asks for a deployment's modules to run again; `deaf` makes it
ignore what it is asked.
"""

import json
import os
import selectors
import signal
import socket
import sys
import threading
from pathlib import Path

from skerry.errors import SystemFault
from skerry.supervisor.channel import ChannelEnded
from skerry.supervisor.crash_page import RunningModule
from skerry.supervisor.handover import receive_handover, send_handover
from skerry.supervisor.worker_side import Beginning, begin


class FakeWorker:
    def __init__(self, beginning: Beginning) -> None:
        self.beginning = beginning
        self.selector = selectors.DefaultSelector()
        self.connections: set[socket.socket] = set()
        self.quarantined = beginning.quarantined
        self.deaf = False
        self.ending = False

    def run(self) -> None:
        beginning = self.beginning
        listener = beginning.listeners[0]
        listener.setblocking(False)
        signal.signal(signal.SIGTERM, lambda *_: self.deaf or sys.exit(0))
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(beginning.door, selectors.EVENT_READ, self.take_over)
        self.selector.register(beginning.control, selectors.EVENT_READ, self.told)
        beginning.say_ready({"index": beginning.index, "pid": os.getpid()})
        while not self.ending:
            for key, _ in self.selector.select():
                key.data(key.fileobj)

    def accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(True)
        self.add(connection)

    def add(self, connection: socket.socket) -> None:
        self.connections.add(connection)
        self.selector.register(connection, selectors.EVENT_READ, self.line)

    def drop(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        self.connections.discard(connection)
        connection.close()

    def take_over(self, _: object) -> None:
        arrived = receive_handover(self.beginning.door)
        if arrived is not None:
            arrived.connection.setblocking(True)
            self.add(arrived.connection)
            self.answer(arrived.connection, f"taken {arrived.port} {len(arrived.received)}")

    def told(self, _: object) -> None:
        """What is quarantined; or asked to retire: then every connection goes to the successor."""
        try:
            arrived = self.beginning.control.receive()
        except ChannelEnded:
            sys.exit(0)
        told = {} if arrived is None else json.loads(arrived[0])
        if "quarantined" in told:
            self.quarantined = [RunningModule(*module) for module in told["quarantined"]]
        elif told and not self.deaf:
            for connection in [*self.connections]:
                assert send_handover(self.beginning.doors[self.beginning.index], connection.fileno(), 0, b"")
                self.drop(connection)
            self.ending = True

    def answer(self, connection: socket.socket, text: str) -> None:
        connection.sendall(f"{self.beginning.index} {os.getpid()} {text}\n".encode())

    def line(self, connection: socket.socket) -> None:
        received = connection.recv(1 << 20)
        while received and not received.endswith(b"\n"):
            received += connection.recv(1 << 20)
        command, *rest = received.decode().split() or [""]
        if not command:
            self.drop(connection)
        elif command == "pass":
            assert send_handover(self.beginning.doors[int(rest[0])], connection.fileno(), 1, received)
            self.drop(connection)
        elif command == "kill":
            os.kill(os.getpid(), int(rest[0]))
        elif command == "run":
            self.on_a_thread(rest, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSEGV))
        elif command == "idle":
            noted = threading.Event()
            self.on_a_thread(rest, lambda: (noted.set(), threading.Event().wait()))
            noted.wait()
            self.answer(connection, "idle")
        elif command == "files":
            self.answer(connection, " ".join(open_files()))
        elif command == "quarantined":
            self.answer(connection, " ".join(module.deployment for module in self.quarantined))
        elif command == "lift":
            self.beginning.control.send(json.dumps({"lift": rest[0]}).encode())
            self.answer(connection, "asked")
        else:
            self.deaf = self.deaf or command == "deaf"
            self.answer(connection, command)

    def on_a_thread(self, named: list[str], then: object) -> None:
        def run() -> None:
            page = self.beginning.crash_page
            note = page.note()
            note[0] = page.number(RunningModule(*named))
            then()  # type: ignore[operator]  # any callable

        threading.Thread(target=run, daemon=True).start()


def open_files() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(entry).partition(":")[0].replace(" ", ""))
        except FileNotFoundError:  # the folder's own descriptor
            continue
    return sorted(found)


def main() -> int:
    beginning = begin()
    folder = Path(beginning.options["folder"])
    with (folder / "starts").open("a") as starts:
        starts.write(f"{beginning.index}\n")
    if (folder / "refuse").exists():
        beginning.say_failed(SystemFault("DataFolderFormat", "This folder is something else."))
        return 3
    if (folder / "fall").exists():
        return 1
    FakeWorker(beginning).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
