"""Answers: a call's result in one of three formats, and errors as `{"code", "message"}`.

Values arrive as encoded JSON and are spliced in as they are wherever the asked format writes them the same way, which
is nearly always: only a value with a `$` key, or the export format, is taken apart.

Source: protocol reference 1.2, 2.2, 2.3 (redaction).
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

from skerry.errors import ClientError, Family, SkerryError
from skerry.functions.request import CallResult
from skerry.functions.right_of_way import get_right_of_way
from skerry.limits import HTTP_RETRY_AFTER_SECONDS, JSON_WHOLE_BYTES_MAX, LOG_LINE_BYTES_MAX
from skerry.value import dismantle, dumps_clean, dumps_export, dumps_long, is_plain, loads

ENCODED: Final = 0
CLEAN: Final = 1
EXPORT: Final = 2

FORMATS: Final[dict[str, int]] = {
    "convex_encoded_json": ENCODED,
    "convex_json": ENCODED,
    "json": CLEAN,
    "convex_clean_json": CLEAN,
    "export_json": EXPORT,
    "convex_export_json": EXPORT,
}
_WRITERS: Final[dict[int, Callable[[Any], bytes]]] = {CLEAN: dumps_clean, EXPORT: dumps_export}
_FEW_LINES: Final = JSON_WHOLE_BYTES_MAX // (2 * LOG_LINE_BYTES_MAX)
"""So many log lines, with what stands around them, make no answer long."""
_INTERNAL_ERROR: Final = "Your request couldn't be completed. Try again later."


def format_of(name: Any, encoded_by_default: bool) -> int:
    """The format that a request asks for. Raises: ClientError `BadFormat`."""
    if name is None:
        return ENCODED if encoded_by_default else CLEAN
    chosen = FORMATS.get(name) if type(name) is str else None
    if chosen is None:
        raise ClientError("BadFormat", f"The format {str(name)[:40]!r} is none of {', '.join(FORMATS)}.")
    return chosen


def result_json(result: CallResult, value_format: int, redacted: bool) -> bytes:
    """The body that answers a call whose function ran, whether it returned or threw.

    Redacted, it keeps of a message the line with the request's id, and no log lines.
    """
    if result.ok:
        parts = [b'{"status":"success","value":', _in_format(result.value, value_format)]
    else:
        message = result.error_message
        parts = [b'{"status":"error","errorMessage":', _text(message.partition("\n")[0] if redacted else message)]
        if result.error_data is not None:
            parts += (b',"errorData":', _in_format(result.error_data, value_format))
    if result.log_lines and not redacted:
        parts += (b',"logLines":[', b",".join(map(_text, result.log_lines)), b"]")
    parts.append(b"}")
    return b"".join(parts)


def long_bytes(result: CallResult) -> int:
    """The size of an answer whose making is too long for the loop thread; 0 for any other."""
    size = len(result.value) + (0 if result.error_data is None else len(result.error_data))
    lines = result.log_lines
    if len(lines) > _FEW_LINES:
        size += sum(map(len, lines))
    return size if size > JSON_WHOLE_BYTES_MAX else 0


def _in_format(value: bytes, value_format: int) -> bytes:
    if value_format == ENCODED or (value_format == CLEAN and is_plain(value)):
        return value
    if len(value) <= JSON_WHOLE_BYTES_MAX:
        return _WRITERS[value_format](loads(value))
    decoded = loads(value, look=get_right_of_way().give_way)
    try:
        return dumps_long(decoded, _WRITERS[value_format])
    finally:
        dismantle(decoded)


def _text(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except TypeError:  # half of a surrogate pair, which JSON in UTF-8 cannot carry
        return orjson.dumps(text.encode("utf-8", "replace").decode())


def retry_after(error: SkerryError, status: int) -> int | None:
    """The seconds of a Retry-After header, None for an answer without one."""
    if error.retry_after_s is None and status == 503:
        return HTTP_RETRY_AFTER_SECONDS
    return error.retry_after_s


def error_answer(error: SkerryError) -> tuple[int, bytes]:
    """Status and body for an error that kept a request from its function.

    A developer error has no status of its own, for inside a function it is an exception; here it means a bad request.
    """
    spec = error.spec
    status = 400 if spec.family is Family.DEVELOPER else spec.http_status
    message = _INTERNAL_ERROR if error.code == "InternalServerError" else error.message
    return status, b'{"code":"' + error.code.encode() + b'","message":' + _text(message) + b"}"
