"""Every bound of the host, by name, with its unit in the name.

A bound lives here and nowhere else; each has a test at the bound and one past it, and a row in `docs/limits.md` that a test
compares with this file. Relations between bounds are asserted at import.
"""

KIB = 1024
MIB = 1024 * KIB

# -- values (protocol reference 1.4, 1.5) ------------------------------------------------------------------------
VALUE_ARRAY_ELEMENTS_MAX = 8192
VALUE_OBJECT_FIELDS_MAX = 1024
VALUE_NESTING_MAX = 64
VALUE_BYTES_MAX = 32 * MIB
FIELD_NAME_CHARS_MAX = 1024
IDENTIFIER_CHARS_MAX = 64
DOCUMENT_BYTES_MAX = 1 * MIB
DOCUMENT_NESTING_MAX = 16

# -- function calls ----------------------------------------------------------------------------------------------
FUNCTION_ARGS_BYTES_MAX = 16 * MIB
FUNCTION_RESULT_BYTES_MAX = 16 * MIB
FUNCTION_CALL_DEPTH_MAX = 8
LOG_LINES_MAX = 256
LOG_LINE_BYTES_MAX = 4 * KIB

# -- transactions (protocol reference 8.1) -----------------------------------------------------------------------
TRANSACTION_BYTES_READ_MAX = 16 * MIB
TRANSACTION_DOCUMENTS_READ_MAX = 32_000
TRANSACTION_RANGES_READ_MAX = 4_096
TRANSACTION_DOCUMENTS_WRITTEN_MAX = 16_000
TRANSACTION_BYTES_WRITTEN_MAX = 16 * MIB

assert DOCUMENT_BYTES_MAX <= TRANSACTION_BYTES_WRITTEN_MAX <= VALUE_BYTES_MAX
assert DOCUMENT_NESTING_MAX <= VALUE_NESTING_MAX
