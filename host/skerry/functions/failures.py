"""How a function's failure reads: the documented layout of messages, traces and log lines.

Source: protocol reference 2.3 (message text), 4.9 (log lines), 4.10 (thrown values).
"""

import re
from typing import Any, Final, cast

import orjson

from skerry import limits
from skerry.bundle.source_maps import StackMapper
from skerry.errors import DeveloperError
from skerry.value import check_encoded_result, parse_json

_MESSAGE_CHARS_MAX: Final[int] = 64 * 1024
_NAME_CHARS_MAX: Final[int] = 256
_MENDED_BYTES_MAX: Final[int] = limits.MIB
_ESCAPES: Final = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
"""What a backslash begins: a whole surrogate pair, half of one (the group), anything else."""


class FunctionFailure(Exception):
    """A function failed.

    Shape: `text` without the request id's line, `data` the JSON of a ConvexError's data, `code` the host's stable code
    where the host found the fault (what a guest threw has none: it could name any).
    """

    def __init__(self, text: str, data: bytes | None = None, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.data = data


def thrown_failure(payload: bytes, stacks: StackMapper) -> FunctionFailure:
    """The failure in a guest's error object (ABI.md, *Errors*), which is hostile input like all that a guest says.

    Half a surrogate pair, which no JSON text may name, reads as U+FFFD: it must not cost the whole message.
    """
    if len(payload) <= _MENDED_BYTES_MAX and b"\\ud" in payload.lower():
        payload = _ESCAPES.sub(lambda found: b"\\ufffd" if found[1] else found[0], payload)
    try:
        parsed = parse_json(
            payload, depth_max=2 * limits.VALUE_JSON_NESTING_MAX, bytes_max=limits.GUEST_PAYLOAD_BYTES_MAX
        )
    except DeveloperError:
        parsed = None
    fields = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
    name = _text(fields.get("name", "Error"))[:_NAME_CHARS_MAX]  # empty for what was thrown and is no error
    message = _text(fields.get("message"))[:_MESSAGE_CHARS_MAX]
    trace = stacks.map_stack(_text(fields.get("stack")))
    text = f"Uncaught {name}{': ' if name else ''}{message}\n{trace}{chr(10) if trace else ''}"
    data = fields.get("data")
    if "data" not in fields:
        return FunctionFailure(text)
    encoded = orjson.dumps(data)
    try:
        check_encoded_result(encoded)
    except DeveloperError as error:
        return FunctionFailure(f"The data of the thrown ConvexError is not a value: {error.message}")
    return FunctionFailure(text, encoded)


def host_failure(error: DeveloperError) -> FunctionFailure:
    """The failure for what the host found wrong: no `Uncaught`, no frames."""
    return FunctionFailure(error.message, None if error.data is None else orjson.dumps(error.data), error.code)


def error_message(request_id: str, failure: FunctionFailure) -> str:
    """The full text that clients get; redaction leaves its first line."""
    return f"[Request ID: {request_id}] Server Error\n{failure.text}"


def log_line(lines: list[str], level: str, message: str) -> None:
    """Adds a line of a function's log, within the bounds of a call."""
    if len(lines) < limits.LOG_LINES_MAX:
        if len(message) > limits.LOG_LINE_BYTES_MAX or len(message.encode()) > limits.LOG_LINE_BYTES_MAX:
            kept = message.encode()[: limits.LOG_LINE_BYTES_MAX].decode("utf-8", "ignore")
            message = f"{kept} (truncated due to length)"
        lines.append(f"[{level}] {message}")
    elif len(lines) == limits.LOG_LINES_MAX:
        lines.append(f"[ERROR] Log overflow (maximum {limits.LOG_LINES_MAX}). Remaining log lines omitted.")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
