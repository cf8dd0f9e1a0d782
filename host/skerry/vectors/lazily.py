"""The one door to numpy and the library: nothing is loaded before a deployment searches for the first time.

What they would do at their start is kept from them first: numpy's linear algebra makes a thread for each processor
unless its environment says otherwise, and a search has the thread it runs on.
"""

import os
from typing import TYPE_CHECKING

from skerry.vectors.memory import Share
from skerry.vectors.question import Definition

if TYPE_CHECKING:
    from skerry.vectors.copied import Copy


def new_copy(definition: Definition, share: Share, secret: bytes, since_ts: int) -> "Copy":
    """An empty copy. The first one of a process takes a tenth of a second."""
    keep_single_threaded()
    from skerry.vectors.copied import Copy  # loads numpy and the library

    return Copy(definition, share, secret, since_ts)


def keep_single_threaded() -> None:
    """Says to numpy, before it is loaded, that it shall make no threads."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
