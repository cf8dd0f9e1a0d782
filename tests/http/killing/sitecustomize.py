"""Read by each Python process of a server under test: its worker dies once, when a mutation is durable and its answer
not written."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

MARK = "KILLED_ONCE"

if "skerry.http.worker" in sys.orig_argv:
    from skerry.http.sync_socket import SyncSocket

    _answer = SyncSocket._mutation_done

    def _die_once(self: Any, hub: Any, call: Any, outcome: Any) -> None:
        mark = Path(os.environ[MARK])
        if isinstance(outcome, tuple) and not mark.exists():
            mark.write_text(str(outcome[0]))
            os.kill(os.getpid(), signal.SIGKILL)
        _answer(self, hub, call, outcome)

    SyncSocket._mutation_done = _die_once
