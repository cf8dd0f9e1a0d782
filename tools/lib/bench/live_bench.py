"""`tools/bench live`: what live queries cost, and how soon those who watch hear of a commit.

The clients are one process of C (`live.c`) beside the server; what it costs is told below the tables, for it shares the
machine. Every push and every answer is checked, and after the mutations the books balance.
"""

from pathlib import Path
from typing import Any

from bench.apps import BENCH_APP, bundle_of
from bench.effort import Effort
from bench.live import Clients, Watched
from bench.load import Load, run_loads
from bench.report import Row, Section
from bench.server import Server

_FAN_OUT_MS_MAX = 100.0
_RANGES_MS_MAX = 10.0
_RANGES_RATIO_MAX = 1.25
_IDLE_KB_MAX = 40.0
_BESIDE_IDLE_MIN = 0.95
_PINGED_AFTER_S = 16.0
_IN_FLIGHT = 64
_ROUNDS = 3
_PAGE = 100
_ACCOUNTS_MAX = 20_000

# effort -> subscribers of one query, sockets that watch ranges and ranges of each, idle connections, commits
_SIZES = {
    "smoke": (10, 10, 10, 20, 10),
    "quick": (1_000, 100, 100, 2_000, 100),
    "full": (1_000, 100, 100, 5_000, 300),
}


def run_live(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """The tables of live queries. Raises: RuntimeError where a client was not told what it had to be told."""
    return [
        _fan_out(folder, effort, seed),
        _ranges(folder, effort, seed),
        _idle(folder, effort, seed),
        _mutations(folder, effort, seed),
    ]


def _fan_out(folder: Path, effort: Effort, seed: int) -> Section:
    sockets, _, _, _, commits = _SIZES[effort.name]
    accounts = min(effort.accounts, _ACCOUNTS_MAX)
    section = Section(f"One query, {sockets:,} subscribers with a connection each, one commit after the other")
    page = f'{{"lo":%ld,"hi":{_PAGE}}}'
    with _served(folder / "fan-out", accounts) as server:
        for what, function, args in (("one account", "bank:get", '{"id":%ld}'), ("100 accounts", "bank:page", page)):
            with Clients(server, Watched(sockets, 1, 1, accounts, function, args), seed) as clients:
                clients.commits(max(1, commits // 10))
                found = clients.commits(commits)
            _expect_runs(found)
            kb = found["bytes"] / found["pushes"] / 1e3
            note = f"{kb:.1f} kB a push, {found['pushes'] / found['wall_s']:,.0f} pushes/s"
            goal = None if effort.name == "smoke" else _FAN_OUT_MS_MAX
            section.rows += [
                Row(f"{what}: answer to last push, p50", found["p50_us"] / 1e3, "ms"),
                Row(f"{what}: answer to last push, p99", found["p99_us"] / 1e3, "ms", at_most=goal, note=note),
                Row(f"{what}: CPU of the server", found["server_cpu_s"] * 1e6 / found["pushes"], "us a push"),
            ]
            section.lines.append(
                f"- {what}: the commit's own way included, last push p50 {found['whole_p50_us'] / 1e3:.1f} ms, p99 "
                f"{found['whole_p99_us'] / 1e3:.1f} ms; the clients used {_client_us(found)} us CPU a push."
            )
    return section


def _ranges(folder: Path, effort: Effort, seed: int) -> Section:
    _, sockets, queries, _, commits = _SIZES[effort.name]
    accounts, commits = min(effort.accounts, _ACCOUNTS_MAX), commits * 8
    n = sockets * queries
    section = Section(f"{n:,} subscriptions to {n:,} different ranges, one of them touched by each commit")
    with _served(folder / "ranges", accounts) as server:
        few = [_touch(server, Watched(sockets, 1, sockets, accounts), commits, seed)]
        many = _touch(server, Watched(sockets, queries, n, accounts), commits, seed)
        few.append(_touch(server, Watched(sockets, 1, sockets, accounts), commits, seed))
    few_us = sum(found["server_cpu_s"] for found in few) * 1e6 / sum(found["count"] for found in few)
    many_us = many["server_cpu_s"] * 1e6 / many["count"]
    is_smoke = effort.name == "smoke"
    section.rows += [
        Row("answer to push, p50", many["p50_us"] / 1e3, "ms"),
        Row("answer to push, p99", many["p99_us"] / 1e3, "ms", at_most=None if is_smoke else _RANGES_MS_MAX),
        Row("queries run for each commit", many["runs"] / many["count"], "", at_most=1.0),
        Row(
            f"CPU of a commit against {sockets:,} subscriptions",
            many_us / max(few_us, 1),
            "x",
            at_most=None if is_smoke else _RANGES_RATIO_MAX,
            note=f"{many_us:,.0f} us against {few_us:,.0f} us, the commit itself included",
        ),
        Row("first results of all subscriptions", many["ready_s"], "s"),
    ]
    section.lines.append(f"- The clients used {_client_us(many)} us CPU a push.")
    return section


def _touch(server: Server, watched: Watched, commits: int, seed: int) -> dict[str, Any]:
    with Clients(server, watched, seed) as clients:
        clients.commits(max(1, commits // 10))
        found = clients.commits(commits)
        found["ready_s"] = clients.ready_s
    _expect_runs(found)
    return found


def _idle(folder: Path, effort: Effort, seed: int) -> Section:
    idle = _SIZES[effort.name][3]
    accounts, is_smoke = min(effort.accounts, _ACCOUNTS_MAX), effort.name == "smoke"
    section = Section(f"{idle:,} idle connections, which watch one query that does not change")
    load = Load("get", accounts, effort.connections, effort.warmup_s, effort.window_s, seed)
    with _served(folder / "idle", accounts) as server, Clients(server, Watched(10, 1, 1, accounts), seed):
        without = [_rate(server, load)]
        before_mb = server.pss_mb()
        with Clients(server, Watched(idle, 1, 1, accounts), seed) as clients:
            each_kb = (server.pss_mb() - before_mb) * 1024 / idle
            clients.begin_wait(0.1 if is_smoke else _PINGED_AFTER_S)
            cpu_s = server.cpu_s()
            waited = clients.end_wait()
            cpu_s = server.cpu_s().since(cpu_s)
            clients.begin_wait(effort.warmup_s + effort.window_s)
            beside = _rate(server, load)
            clients.end_wait()
            ready_s = clients.ready_s
        without.append(_rate(server, load))
    mean = sum(report["per_second"] for report in without) / len(without)
    note = f"{beside['per_second']:,.0f}/s, p99 {beside['p99_us'] / 1e3:.1f} ms"
    note += f", longest {beside['max_us'] / 1e3:.0f} ms; without {mean:,.0f}/s, p99 {without[0]['p99_us'] / 1e3:.1f} ms"
    least = None if is_smoke else _BESIDE_IDLE_MIN
    section.rows += [
        Row("memory of the server", each_kb, "kB each", at_most=None if is_smoke else _IDLE_KB_MAX),
        Row("queries over HTTP beside them", beside["per_second"] / mean, "x", at_least=least, note=note),
        Row("CPU of keeping them alive", cpu_s.workers / waited["wall_s"] * 100, "% of a core"),
        Row("connected and answered", idle / ready_s, "/s"),
    ]
    section.lines.append("- Memory is what the processes have, without the kernel's buffers of a connection.")
    return section


def _rate(server: Server, load: Load) -> dict[str, Any]:
    report = run_loads(server, [load])[0]
    if report["errors"]:
        raise RuntimeError(f"queries failed: {report}")
    return report


def _mutations(folder: Path, effort: Effort, seed: int) -> Section:
    """Windows of both ways in turns, so that what else the machine does meets both."""
    accounts, in_flight = min(effort.accounts, _ACCOUNTS_MAX), min(_IN_FLIGHT, effort.connections)
    section = Section(f"Transfers by unique index, {in_flight} under way at a time")
    window_s = effort.window_s / _ROUNDS
    load = Load("transfer", accounts, in_flight, effort.warmup_s / _ROUNDS, window_s, seed)
    over_http: list[dict[str, Any]] = []
    on_socket: list[dict[str, Any]] = []
    with _served(folder / "mutations", accounts) as server:
        books = server.books(accounts)
        with Clients(server, Watched(1, 0, 1, accounts), seed) as clients:
            for _ in range(_ROUNDS):
                over_http.append(_rate(server, load))
                on_socket.append(clients.mutations(in_flight, effort.warmup_s / _ROUNDS, window_s))
        moved = sum(report["moved"] for report in (*over_http, *on_socket))
        if server.books(accounts) != (accounts, books[1], books[2] + moved):
            raise RuntimeError("the books do not show what was acknowledged")
    rate = sum(found["count"] for found in on_socket) / window_s / _ROUNDS
    http_rate = sum(report["per_second"] for report in over_http) / _ROUNDS
    p50s = [found["whole_p50_us"] / 1e3 for found in on_socket], [found["p50_us"] / 1e3 for found in over_http]
    p99s = [found["whole_p99_us"] / 1e3 for found in on_socket], [found["p99_us"] / 1e3 for found in over_http]
    cpu_us = (
        sum(found["server_cpu_s"] for found in on_socket) * 1e6 / max(1, sum(found["count"] for found in on_socket)),
        sum(found["server_cpu_us"] for found in over_http) / _ROUNDS,
    )
    notes = [
        f"p50 {max(p50s[way]):.1f} ms, p99 {max(p99s[way]):.1f} ms, {cpu_us[way]:.0f} us CPU of the server each"
        for way in range(2)
    ]
    section.rows += [
        Row("on one socket", rate, "/s", note=notes[0]),
        Row(f"over HTTP, {in_flight} connections", http_rate, "/s", note=notes[1]),
        Row("socket against HTTP", rate / http_rate, "x", at_least=None if effort.name == "smoke" else 1.0),
    ]
    section.lines.append("- The books balanced: each acknowledged transfer was applied once.")
    return section


def _served(data: Path, accounts: int) -> Server:
    server = Server(data)
    try:
        server.deploy(bundle_of(BENCH_APP).read_bytes())
        server.seed(accounts)
    except BaseException:
        server.stop()
        raise
    return server


def _expect_runs(found: dict[str, Any]) -> None:
    if found["runs"] > found["count"]:
        raise RuntimeError(f"queries that were not touched were run: {found['runs']:.0f} for {found['count']} commits")


def _client_us(found: dict[str, Any]) -> int:
    return round(found["load_cpu_s"] * 1e6 / max(1, found["pushes"]))
