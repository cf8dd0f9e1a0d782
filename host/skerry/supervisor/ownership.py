"""Which worker a deployment belongs to: rendezvous hashing, by which another count of workers moves the fewest."""

from hashlib import blake2b

from skerry.limits import OWNERS_REMEMBERED_MAX

_DIGEST_BYTES = 8


def owner_of(name: str, workers: int) -> int:
    """The index of the worker that owns the named deployment. Shape: the same in every process."""
    if workers == 1:
        return 0
    text = name.encode()
    return max(range(workers), key=lambda index: blake2b(b"%d|%b" % (index, text), digest_size=_DIGEST_BYTES).digest())


class Owners:
    """`owner_of` for one count of workers, with the answers remembered. Limits: OWNERS_REMEMBERED_MAX."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._known: dict[str, int] = {}

    def of(self, name: str) -> int:
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= OWNERS_REMEMBERED_MAX:
                self._known.clear()
            known = self._known[name] = owner_of(name, self.workers)
        return known
