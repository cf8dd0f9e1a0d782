"""What a caller asks of a deployment, and what it gets."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skerry.database import ReadSet
    from skerry.functions.frame import Call
    from skerry.functions.metering import CallUsage
    from skerry.storage import Write

KINDS = ("query", "mutation", "action")

Within = Callable[["Call", Callable[[], bytes]], bytes]
Keep = Callable[["CallResult", int], "list[Write]"]


class ReadTime:
    """The timestamp whose state queries read: `ts`, or, while it is None, that of the first of them to begin."""

    __slots__ = ("ts",)

    def __init__(self, ts: int | None = None) -> None:
        self.ts = ts


class CallRequest:
    """One call of a function.

    Shape: `kind` is what the caller takes the function for, None where any will do; `path` as given
    (`dir/module:function`, `.js` optional, the default export where no function is named); `args` the raw JSON of one
    object, or of an array with one, None for none; `is_admin` lets internal functions be called; `wording` says how a
    missing function is reported: "public" or "any" (protocol reference 2.3); `request_id` 16 hexadecimal digits; `at`
    what a query is to read, None for the newest state.
    `token` is what the caller sent to say who it is, None for none: whoever passes the request on has it verified
    first, and puts what it says into `identity`.
    `journal` is the query journal of an earlier run; `wants_reads` asks a query for what it has read; `is_repeated`
    says that it runs because what it read has changed, `wants_kept` that its answer is to be kept for others; `keep`
    gives, for the result of a mutation and its commit's timestamp, what is to be written with the commit. `job_id` is
    the scheduled function that the call belongs to; `within` runs in the call's transaction in place of its function,
    which it is given to run.
    """

    __slots__ = (
        "args", "at", "identity", "ip", "is_admin", "is_repeated", "job_id", "journal", "keep", "kind", "path",
        "request_id", "token", "user_agent", "wants_kept", "wants_reads", "within", "wording",
    )  # fmt: skip

    def __init__(
        self,
        *,
        kind: str | None,
        path: str,
        args: bytes | None,
        request_id: str,
        is_admin: bool = False,
        identity: dict[str, Any] | None = None,
        wording: str = "public",
        ip: str | None = None,
        user_agent: str | None = None,
        at: ReadTime | None = None,
        token: bytes | None = None,
    ) -> None:
        self.at = at
        self.token = token
        self.kind = kind
        self.path = path
        self.args = args
        self.request_id = request_id
        self.is_admin = is_admin
        self.identity = identity
        self.wording = wording
        self.ip = ip
        self.user_agent = user_agent
        self.journal: str | None = None
        self.wants_reads = False
        self.is_repeated = False
        self.wants_kept = False
        self.keep: Keep | None = None
        self.job_id: str | None = None
        self.within: Within | None = None


class CallResult:
    """What a call came to.

    Shape: `ok` with `value`, the JSON of the value in encoded form; otherwise `error_message` (full, unredacted) and
    `error_data` (the JSON of a ConvexError's data, None where there is none). `log_lines` in the documented form;
    `ts` the commit's or the snapshot's timestamp in nanoseconds; `error_code` the host's stable code, None for what the
    function itself threw; `usage` what it used, None where nothing ran; `reads` what it has read, where that was asked
    for and something ran, and `journal` what a later run is to be given; with `reads` come `is_repeatable`, whether an
    equal call would come to the same where these are as they were, and `has_read_identity`, whether it would have to be
    the same caller's. `bodies` are the answers made of a result that is kept, by their format; None for others.
    """

    __slots__ = (
        "bodies", "error_code", "error_data", "error_message", "has_read_identity", "is_repeatable", "journal",
        "log_lines", "ok", "reads", "ts", "usage", "value",
    )  # fmt: skip

    def __init__(
        self,
        ok: bool,
        value: bytes,
        log_lines: list[str],
        ts: int | None = None,
        error_message: str = "",
        error_data: bytes | None = None,
        error_code: str | None = None,
    ) -> None:
        self.error_code = error_code
        self.ok = ok
        self.value = value
        self.log_lines = log_lines
        self.ts = ts
        self.error_message = error_message
        self.error_data = error_data
        self.usage: CallUsage | None = None
        self.reads: ReadSet | None = None
        self.is_repeatable = False
        self.has_read_identity = False
        self.bodies: dict[int, bytes] | None = None
        self.journal: str | None = None
