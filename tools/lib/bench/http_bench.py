"""`tools/bench http`: what a server sustains under closed-loop load, and whether its books still balance.

Each transfer load is followed by a look at all accounts: no money is lost, and the sum of number * balance has moved
by exactly what the acknowledged transfers moved, so each of them was applied once and only once.
"""

from pathlib import Path

from bench.apps import BENCH_APP, bundle_of
from bench.effort import Effort
from bench.load import Load, run_loads
from bench.peer import Peer
from bench.report import Row, Section
from bench.server import Server

ZIPF_ALPHA = 1.5
ZIPF_SHARE_MIN = 0.9

# name, workload, zipf exponent, target per second
_LOADS = (
    ("stateless query", "add", 0.0, 5000),
    ("query whose answer is kept", "cached", 0.0, 10000),
    ("action that fetches once", "action", 0.0, 1000),
    ("transfer by document id", "transfer-by-id", 0.0, 3000),
    ("transfer by document id, zipf 1.5", "transfer-by-id", ZIPF_ALPHA, None),
    ("transfer by unique index", "transfer", 0.0, 2000),
    ("transfer by unique index, zipf 1.5", "transfer", ZIPF_ALPHA, None),
    ("one account by unique index", "get", 0.0, None),
    ("100 documents of 200 bytes by index", "list", 0.0, 800),
)


def run_http(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """The table of throughput. Raises: RuntimeError where the books do not balance."""
    section = Section(f"Over HTTP, {effort.connections} connections, {effort.accounts:,} accounts and documents")
    with Peer() as peer, Server(folder / "http", "--allow-egress", peer.address) as server:
        server.deploy(bundle_of(BENCH_APP).read_bytes())
        server.seed(effort.accounts)
        ids = folder / "account-ids"
        ids.write_text("\n".join(server.ids(effort.accounts)) + "\n")
        books = server.books(effort.accounts)
        reached: dict[str, float] = {}
        for number, (name, workload, alpha, target) in enumerate(_LOADS):
            load = Load(
                workload,
                1 if workload == "cached" else effort.accounts,
                effort.connections,
                effort.warmup_s,
                effort.window_s,
                seed + number,
                alpha,
                ids=ids if workload == "transfer-by-id" else None,
            )
            report = run_loads(server, [load])[0]
            rate = report["per_second"]
            least: float | None = target
            if alpha:
                least = ZIPF_SHARE_MIN * reached[workload]
            reached.setdefault(workload, rate)
            note = (
                f"p50 {report['p50_us'] / 1e3:.1f} ms, p99 {report['p99_us'] / 1e3:.1f} ms, "
                f"worker {report['server_cpu_us']:.0f} us CPU a request ({report['server_cores']:.2f} cores; "
                f"supervisor {report['supervisor_cpu_s'] * 1e3:.0f} ms in all), "
                f"{report['pss_mb']:.0f} MB, "
                f"{report['errors']} errors"
            )
            section.rows.append(Row(name, rate, "/s", at_least=least, note=note))
            if report["errors"]:
                section.lines.append(
                    f"- {name}: {report['errors']} calls did not succeed, the first: {report['first_failure']}"
                )
            if workload.startswith("transfer"):
                books = _check_books(server, effort.accounts, books, report["moved"], name)
    section.lines.append(
        "- After each transfer load the books balanced: no balance lost, each acknowledged transfer applied once."
    )
    return [section]


def _check_books(
    server: Server, accounts: int, before: tuple[int, int, int], moved: int, name: str
) -> tuple[int, int, int]:
    after = server.books(accounts)
    expected = (accounts, before[1], before[2] + moved)
    if after != expected:
        raise RuntimeError(f"{name}: the books show {after} where the acknowledged transfers give {expected}")
    return after
