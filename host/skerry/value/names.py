"""The rules for names: fields, tables, indexes, modules and functions.

Each `check_*` returns nothing and raises DeveloperError with the name's own code; each `is_*` answers. An identifier is
ASCII letters, digits and `_`, starts with a letter or `_`, is not only underscores, and has at most
`IDENTIFIER_CHARS_MAX` characters.

Source: protocol reference 1.4.
"""

from typing import Final

from skerry.errors import DeveloperError
from skerry.limits import (
    FIELD_NAME_CHARS_MAX,
    FUNCTION_NAME_CHARS_MAX,
    IDENTIFIER_CHARS_MAX,
    MODULE_PATH_CHARS_MAX,
    MODULE_PATH_COMPONENT_CHARS_MAX,
)

SYSTEM_FIELDS: Final = frozenset({"_id", "_creationTime"})
RESERVED_INDEXES: Final = frozenset({"by_id", "by_creation_time"})
_MODULE_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")
_SHOWN_CHARS: Final = 64


def is_identifier(name: str) -> bool:
    """Whether a name follows the identifier rule."""
    return (
        len(name) <= IDENTIFIER_CHARS_MAX
        and name.isascii()
        and name.isidentifier()
        and (name[0] != "_" or name.strip("_") != "")
    )


def is_field_name(name: str) -> bool:
    """Whether a name may be a field of a nested object or of arguments; the empty name is tolerated."""
    # Among ASCII characters, the printable ones are exactly U+0020 to U+007E.
    return len(name) <= FIELD_NAME_CHARS_MAX and name.isascii() and name.isprintable() and name[:1] != "$"


def check_field_name(name: str) -> None:
    """Raises: DeveloperError `InvalidFieldName`."""
    if is_field_name(name):
        return
    if name[:1] == "$":
        why = "it starts with '$', which is reserved"
    elif len(name) > FIELD_NAME_CHARS_MAX:
        why = f"it is longer than {FIELD_NAME_CHARS_MAX} characters"
    else:
        why = "it has characters other than printable ASCII"
    raise DeveloperError("InvalidFieldName", f"Field name {_shown(name)} is invalid: {why}.")


def check_document_field(name: str) -> None:
    """The rule for the outermost fields of a document. Raises: DeveloperError `InvalidFieldName`."""
    if not is_identifier(name):
        raise DeveloperError("InvalidFieldName", f"Field name {_shown(name)} is invalid: {_identifier_rule()}")
    if name[0] == "_" and name not in SYSTEM_FIELDS:
        raise DeveloperError("InvalidFieldName", f"Field name {_shown(name)} is invalid: a leading '_' is reserved.")


def check_table_name(name: str, *, system: bool = False) -> None:
    """The rule for tables; `system` also allows a leading `_`. Raises: DeveloperError `InvalidTableName`."""
    if not is_identifier(name):
        raise DeveloperError("InvalidTableName", f"Table name {_shown(name)} is invalid: {_identifier_rule()}")
    if name[0] == "_" and not system:
        raise DeveloperError(
            "InvalidTableName", f"Table {_shown(name)}: System tables (prefixed with `_`) are read-only."
        )


def check_index_name(name: str) -> None:
    """The rule for an index a schema defines. Raises: DeveloperError `InvalidIndexName`."""
    if not is_identifier(name):
        raise DeveloperError("InvalidIndexName", f"Index name {_shown(name)} is invalid: {_identifier_rule()}")
    if name[0] == "_" or name in RESERVED_INDEXES:
        raise DeveloperError("InvalidIndexName", f"Index name {_shown(name)} is reserved.")


def check_module_path(path: str) -> None:
    """The rule for a module's path, with or without extension. Raises: DeveloperError `InvalidModulePath`."""
    if len(path) > MODULE_PATH_CHARS_MAX:
        raise DeveloperError("InvalidModulePath", f"Module path is longer than {MODULE_PATH_CHARS_MAX} characters.")
    for component in path.split("/"):
        if (
            len(component) > MODULE_PATH_COMPONENT_CHARS_MAX
            or not _MODULE_CHARS.issuperset(component)
            or not any(map(str.isalnum, component))
        ):
            raise DeveloperError(
                "InvalidModulePath",
                f"Module path {_shown(path)} is invalid: each part must have 1 to {MODULE_PATH_COMPONENT_CHARS_MAX} "
                "letters, digits, underscores or periods, at least one of them a letter or digit.",
            )


def check_function_name(name: str) -> None:
    """The rule for a function's name: as in JavaScript, ASCII only. Raises: DeveloperError `InvalidFunctionName`."""
    plain = name.replace("$", "_")
    if len(name) > FUNCTION_NAME_CHARS_MAX or not plain.isascii() or not plain.isidentifier():
        raise DeveloperError("InvalidFunctionName", f"Function name {_shown(name)} is not an identifier.")


def _identifier_rule() -> str:
    return (
        f"it must have at most {IDENTIFIER_CHARS_MAX} letters, digits and underscores, start with a letter or "
        "underscore, and not be only underscores."
    )


def _shown(name: str) -> str:
    cut = name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…"
    return repr(cut)
