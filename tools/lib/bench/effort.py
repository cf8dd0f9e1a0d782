"""How much is measured: the counts and durations behind `--effort`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Shape: `calls` in-process repetitions of cheap calls; `accounts` seeded, and as many documents; `messages` the
    numbers of them that are searched; `documents` those that are read among, and imported; `vectors` are (count,
    dimensions, kind)."""

    name: str
    calls: int
    accounts: int
    warmup_s: float
    window_s: float
    connections: int
    restarts: int
    messages: tuple[int, ...]
    documents: tuple[int, ...]
    vectors: tuple[tuple[int, int, str], ...]


EFFORTS = {
    effort.name: effort
    for effort in (
        Effort(
            "smoke",
            calls=20,
            accounts=400,
            warmup_s=0.1,
            window_s=0.3,
            connections=4,
            restarts=1,
            messages=(500,),
            documents=(400, 800),
            vectors=((300, 8, "clusters"),),
        ),
        Effort(
            "quick",
            calls=400,
            accounts=20_000,
            warmup_s=0.5,
            window_s=2,
            connections=64,
            restarts=2,
            messages=(10_000, 100_000),
            documents=(10_000, 100_000),
            vectors=((1_000, 768, "clusters"), (10_000, 768, "clusters")),
        ),
        Effort(
            "full",
            calls=3000,
            accounts=100_000,
            warmup_s=2,
            window_s=10,
            connections=64,
            restarts=5,
            messages=(10_000, 100_000, 1_000_000),
            documents=(10_000, 100_000, 1_000_000),
            vectors=(
                (1_000, 768, "clusters"),
                (10_000, 768, "clusters"),
                (100_000, 128, "clusters"),
                (70_000, 128, "noise"),
            ),
        ),
    )
}
