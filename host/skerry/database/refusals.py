"""The developer errors of operations on single documents, worded as the protocol words them.

Source: protocol reference 1.8, 4.3, 4.6.
"""

from typing import Any

from skerry.errors import DeveloperError


def undecodable_id(operation: str, document_id: Any) -> DeveloperError:
    shown = document_id[:64] if type(document_id) is str else document_id
    return DeveloperError(
        "InvalidArgument",
        f"Invalid argument `id` for `db.{operation}`: Unable to decode ID: {shown!r} is not a document ID.",
    )


def id_of_other_table(operation: str, document_id: str, expected: str, actual: str) -> DeveloperError:
    return DeveloperError(
        "InvalidArgument",
        f'Invalid argument `id` for `db.{operation}`: expected an Id<"{expected}">, '
        f'but "{document_id}" is an Id<"{actual}">.',
    )


def bad_argument(operation: str, message: str) -> DeveloperError:
    return DeveloperError("InvalidArgument", f"Invalid argument `value` for `db.{operation}`: {message}")


def nonexistent(verb: str, document_id: Any) -> DeveloperError:
    return DeveloperError("DocumentNotFound", f"{verb} on nonexistent document ID {document_id}")
