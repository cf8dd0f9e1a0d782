"""A server whose workers are fake: `fake_serve.py FOLDER WORKERS [BOUND=SECONDS ...]`. Prints one JSON line when ready,
or one with the error that ended it.
"""

import json
import logging
import sys
import time
from pathlib import Path

from skerry import limits

for change in sys.argv[3:]:  # before anything takes the bounds over
    name, _, seconds = change.partition("=")
    assert hasattr(limits, name)
    setattr(limits, name, float(seconds))

from skerry.errors import SkerryError  # noqa: E402 - the bounds come first
from skerry.supervisor.listeners import listen  # noqa: E402 - the bounds come first
from skerry.supervisor.supervisor import Plan, Supervisor  # noqa: E402 - the bounds come first


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    listener = listen("127.0.0.1", 0)
    command = [sys.executable, str(Path(__file__).with_name("fake_worker.py"))]
    plan = Plan(
        command, {"folder": sys.argv[1]}, int(sys.argv[2]), [listener], Path(sys.argv[1]) / "host" / "quarantine.json"
    )
    try:
        Supervisor(plan, time.monotonic).run(
            lambda reports: say({"port": listener.getsockname()[1], "workers": reports})
        )
    except SkerryError as error:
        say({"code": error.code, "message": error.message})
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
