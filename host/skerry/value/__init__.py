"""Document values: shapes, JSON forms, sizes, limits, order, ids, names and validators. No I/O, no clock, no chance.

In: JSON text or parsed JSON from strangers. Out: plain Python data that keeps every rule of the value model, bytes that
sort like values, and errors with stable codes. Only this package knows how a value is written down.
"""

from skerry.value.check import (
    check_document,
    check_encoded_result,
    check_value,
    nesting_of,
    show_bytes,
    size_of,
)
from skerry.value.codec import (
    UndefinedAt,
    decode,
    dumps,
    dumps_clean,
    dumps_export,
    dumps_undefined,
    encode,
    has_large_integer,
    loads,
    to_clean,
    to_export,
)
from skerry.value.ids import (
    INTERNAL_ID_BYTES,
    decode_document_id,
    encode_document_id,
    normalize_id,
    try_decode_document_id,
)
from skerry.value.kinds import COMMIT_TS, UNDEFINED, CommitTs, Int64, Undefined, Value, normalize_number
from skerry.value.long_json import dismantle, dumps_long
from skerry.value.names import (
    RESERVED_INDEXES,
    SYSTEM_FIELDS,
    check_document_field,
    check_field_name,
    check_function_name,
    check_index_name,
    check_module_path,
    check_table_name,
    is_field_name,
    is_identifier,
)
from skerry.value.order import after_prefix, compare, index_key, key_of
from skerry.value.raw_json import TOO_MANY_VALUES, depth_is_within, is_plain, parse_json, values_are_within
from skerry.value.render import render_value
from skerry.value.validators import (
    Mismatch,
    ResolveTable,
    Validator,
    argument_error,
    compile_validator,
    returns_error,
    stored_document_error,
    write_error,
)

__all__ = [
    "COMMIT_TS",
    "TOO_MANY_VALUES",
    "CommitTs",
    "INTERNAL_ID_BYTES",
    "Int64",
    "Mismatch",
    "RESERVED_INDEXES",
    "ResolveTable",
    "SYSTEM_FIELDS",
    "UNDEFINED",
    "Undefined",
    "UndefinedAt",
    "Validator",
    "Value",
    "after_prefix",
    "argument_error",
    "check_document",
    "check_document_field",
    "check_encoded_result",
    "check_field_name",
    "check_function_name",
    "check_index_name",
    "check_module_path",
    "check_table_name",
    "check_value",
    "compare",
    "compile_validator",
    "decode",
    "decode_document_id",
    "depth_is_within",
    "dumps",
    "dumps_clean",
    "dumps_export",
    "dumps_undefined",
    "encode",
    "encode_document_id",
    "has_large_integer",
    "index_key",
    "is_field_name",
    "is_identifier",
    "is_plain",
    "key_of",
    "loads",
    "nesting_of",
    "normalize_id",
    "normalize_number",
    "dismantle",
    "dumps_long",
    "parse_json",
    "render_value",
    "returns_error",
    "show_bytes",
    "size_of",
    "stored_document_error",
    "to_clean",
    "to_export",
    "try_decode_document_id",
    "write_error",
    "values_are_within",
]
