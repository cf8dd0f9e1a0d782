"""A query on a mutation's own snapshot, beside the mutation: what it reads is no part of what the mutation has read.

It sees the state that the mutation began on, and nothing of what that has written since. What it uses counts for the
mutation.
"""

from skerry.database.plan_cache import PlanCache
from skerry.database.transaction import Transaction


def stale_transaction(transaction: Transaction) -> Transaction:
    """A transaction that reads where another one began; it has no end of its own, and must not outlive that one."""
    stale = Transaction(
        transaction.view,
        transaction.snapshot,
        transaction.overlay,
        transaction.base_catalog,
        PlanCache(),
        writable=False,
        detached=transaction.detached,
        now_ms=transaction.now_ms,
        seed=b"",
        begin_ts=transaction.begin_ts,
        epoch=transaction.epoch,
        page_key=transaction.page_key,
        journal=None,
    )
    stale.usage = transaction.usage
    return stale
