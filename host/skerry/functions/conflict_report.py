"""How a conflict reads: who changed what of whose reads."""

from typing import Any, Final, cast

import orjson

from skerry.database import Conflict

_ADVICE: Final = "See https://docs.convex.dev/error#1"
_NOBODY: Final = "a change of the schema"


def conflict_report(conflict: Conflict, reader: str) -> str:
    """One sentence: the function that wrote, the document, and the read of `reader` (a function) that it was in."""
    touch = conflict.touch
    if touch is None:
        return f"{conflict.message} The function is {reader}."
    writer = _writer(touch.call_record)
    document = f'document "{touch.document_id}" of table "{touch.table}"'
    return f"{writer} changed {document}, which {reader} had read {touch.place}."


def conflict_message(conflict: Conflict, reader: str) -> str:
    """What a caller hears of a call that gave up."""
    touch = conflict.touch
    if touch is None:
        return conflict.message
    return (
        f'Documents read from or written to the "{touch.table}" table changed while this mutation was being run and on '
        f"every subsequent retry. {conflict_report(conflict, reader)} {_ADVICE}"
    )


def _writer(call_record: bytes) -> str:
    """The function that a call record is of."""
    try:
        fields = cast("dict[str, Any]", orjson.loads(call_record))
        return str(fields["function"])
    except (ValueError, KeyError, TypeError):
        return _NOBODY
