"""Coverage-guided fuzzing of one target: `tools/fuzz TARGET [--seconds N]`.

Starts from the seeds in tests/fuzz/seeds and from what earlier runs found, kept in `.cache/fuzz`. A finding ends the
run with the traceback and a file of the input; `tools/fuzz TARGET FILE` runs that input alone.
"""

import argparse
import sys
from pathlib import Path

import atheris

SEEDS = Path(__file__).parent / "seeds"
_INPUT_BYTES_MAX = 4096
_SECONDS_PER_INPUT_MAX = 20
_MEGABYTES_MAX = 4096


def main() -> None:
    """Fuzzes until the time is over or something is found."""
    with atheris.instrument_imports(include=["skerry"]):
        from tests.fuzz import targets
    names = sorted(targets.TARGETS)
    parser = argparse.ArgumentParser(prog="tools/fuzz", description="Fuzz one target.")
    parser.add_argument("target", choices=names)
    parser.add_argument("files", nargs="*", type=Path, help="run these inputs only")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, help="a fixed walk of so many inputs, the same each time")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2] / ".cache" / "fuzz")
    chosen = parser.parse_args()
    folder: Path = chosen.folder
    corpus = folder / "corpus" / chosen.target
    corpus.mkdir(parents=True, exist_ok=True)
    targets.prepare(folder)
    target = targets.TARGETS[chosen.target]
    if chosen.target == "abi":
        target(b"")  # what it opens once is no part of an input's time
    options = [
        *(sys.argv[0], f"-max_len={_INPUT_BYTES_MAX}", "-len_control=10", "-print_final_stats=1"),
        *((f"-max_total_time={chosen.seconds}",) if chosen.runs is None else (f"-runs={chosen.runs}", "-seed=1")),
        *(f"-timeout={_SECONDS_PER_INPUT_MAX}", f"-rss_limit_mb={_MEGABYTES_MAX}", f"-artifact_prefix={folder}/"),
    ]
    places = [str(file) for file in chosen.files] or [str(corpus), str(SEEDS / chosen.target)]
    atheris.Setup([*options, *places], target, internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
