"""What a caller asks of a deployment, and what it gets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skerry.functions.metering import CallUsage

KINDS = ("query", "mutation", "action")


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
    """

    __slots__ = ("args", "at", "identity", "ip", "is_admin", "kind", "path", "request_id", "user_agent", "wording")

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
    ) -> None:
        self.at = at
        self.kind = kind
        self.path = path
        self.args = args
        self.request_id = request_id
        self.is_admin = is_admin
        self.identity = identity
        self.wording = wording
        self.ip = ip
        self.user_agent = user_agent


class CallResult:
    """What a call came to.

    Shape: `ok` with `value`, the JSON of the value in encoded form; otherwise `error_message` (full, unredacted) and
    `error_data` (the JSON of a ConvexError's data, None where there is none). `log_lines` in the documented form;
    `ts` the commit's or the snapshot's timestamp in nanoseconds; `error_code` the host's stable code, None for what the
    function itself threw; `usage` what it used, None where nothing ran.
    """

    __slots__ = ("error_code", "error_data", "error_message", "log_lines", "ok", "ts", "usage", "value")

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
