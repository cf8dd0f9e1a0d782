"""The call record: enough to run a committed call again and compare.

Shape: a JSON object with the bundle's digest, the function, its arguments (encoded), the identity, the request's
metadata, the seed, the frozen time and the timestamp of the snapshot it began on. It is stored in the commit log with
the commit it caused, and is as secret as the data (the seed is in it).
"""

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from skerry.functions.frame import Call
    from skerry.functions.function_table import FunctionSpec

RECORD_VERSION = 1


def make_call_record(call: "Call", spec: "FunctionSpec") -> bytes:
    """The record of a call that is about to commit."""
    request = call.request
    return orjson.dumps(
        {
            "v": RECORD_VERSION,
            "bundle": call.version.digest,
            "function": spec.name,
            "args": orjson.Fragment(call.raw_args),
            "identity": request.identity,
            "request": [request.request_id, request.ip, request.user_agent],
            "seed": call.seed.hex(),
            "now_ms": call.now_ms,
            "snapshot_ts": call.transaction.begin_ts,
        }
    )
