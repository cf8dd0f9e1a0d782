"""Clients that watch queries (live.c): built once into the cache, run as a process beside the server."""

import json
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bench.load import build_generator
from bench.server import Cpu, Server


@dataclass(frozen=True)
class Watched:
    """What is watched. Shape: `sockets` connections with `queries` each, of `distinct` different arguments; `accounts`
    there are, of which the first `distinct` are watched."""

    sockets: int
    queries: int
    distinct: int
    accounts: int
    function: str = "bank:get"
    args: str = '{"id":%ld}'


class Clients:
    """Connections that have the first results of all their queries when made."""

    def __init__(self, server: Server, watched: Watched, seed: int) -> None:
        self._server = server
        words = {"port": server.port, **vars(watched), "seed": seed}
        self._process = subprocess.Popen(
            [
                str(build_generator("live.c")),
                *(word for pair in words.items() for word in (f"--{pair[0]}", str(pair[1]))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.ready_s: float = self._read()["ready_s"]
        except RuntimeError:
            self._end()
            raise

    def __enter__(self) -> "Clients":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def commits(self, count: int) -> dict[str, Any]:
        """That many commits, each waited for until everybody has been told, with the CPU time of the workers."""
        runs, cpu_s = self._server.metric("skerry_live_query_runs_total"), self._server.cpu_s()
        self._say(f"commits {count}")
        report = self._read()
        report["server_cpu_s"] = self._server.cpu_s().since(cpu_s).workers
        report["runs"] = self._server.metric("skerry_live_query_runs_total") - runs
        return report

    def mutations(self, in_flight: int, warmup_s: float, window_s: float) -> dict[str, Any]:
        """Mutations on the first connection, so many under way at a time, with the CPU time of the workers."""
        self._say(f"mutations {in_flight} {warmup_s} {window_s}")
        self._expect("begin")
        cpu_s: Cpu = self._server.cpu_s()
        self._expect("end")
        spent = self._server.cpu_s().since(cpu_s).workers
        report = self._read()
        report["server_cpu_s"] = spent
        return report

    def begin_wait(self, seconds: float) -> None:
        """Has the clients read what comes and answer pings for so long; `end_wait` waits for it."""
        self._say(f"wait {seconds}")

    def end_wait(self) -> dict[str, Any]:
        return self._read()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _expect(self, word: str) -> None:
        line = self._line()
        if line != word:
            raise RuntimeError(f"the clients said {line!r} in place of {word!r}")

    def _read(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self._line())
        return report

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the clients ended with status {self._process.wait()}")
        return line.rstrip("\n")

    def _end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()
