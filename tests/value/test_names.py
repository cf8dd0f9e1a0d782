"""The rules for names, each at its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.errors import DeveloperError
from skerry.limits import (
    FIELD_NAME_CHARS_MAX,
    FUNCTION_NAME_CHARS_MAX,
    IDENTIFIER_CHARS_MAX,
    MODULE_PATH_CHARS_MAX,
    MODULE_PATH_COMPONENT_CHARS_MAX,
)
from skerry.value import (
    check_document_field,
    check_field_name,
    check_function_name,
    check_index_name,
    check_module_path,
    check_table_name,
    is_field_name,
    is_identifier,
)

COMPONENT = "m" * MODULE_PATH_COMPONENT_CHARS_MAX
LONG_PATH = "/".join([COMPONENT] * 8)[:MODULE_PATH_CHARS_MAX]

CASES = [
    (
        check_field_name, "InvalidFieldName",
        ["", " ", "a b", "~", "_id", "9", "a$", "f" * FIELD_NAME_CHARS_MAX],
        ["$", "$a", "é", "\x1f", "\x7f", "f" * (FIELD_NAME_CHARS_MAX + 1)],
    ),
    (
        check_document_field, "InvalidFieldName",
        ["a", "A1_", "_id", "_creationTime", "f" * IDENTIFIER_CHARS_MAX],
        ["", "_", "__", "_a", "1", "é", "a b", "f" * (IDENTIFIER_CHARS_MAX + 1)],
    ),
    (
        check_table_name, "InvalidTableName",
        ["rooms", "R2_d2", "t" * IDENTIFIER_CHARS_MAX],
        ["", "_storage", "2", "a-b", "é", "t" * (IDENTIFIER_CHARS_MAX + 1)],
    ),
    (
        check_index_name, "InvalidIndexName",
        ["by_author", "i" * IDENTIFIER_CHARS_MAX],
        ["", "_a", "by_id", "by_creation_time", "a b", "i" * (IDENTIFIER_CHARS_MAX + 1)],
    ),
    (
        check_module_path, "InvalidModulePath",
        ["messages", "messages.js", "a/b_c/d.js", "_deps/X1", COMPONENT, LONG_PATH],
        ["", "/a", "a/", "a//b", "a/../b", "a/./b", "_", "a b", "é", "a-b", "a\\b", COMPONENT + "m", LONG_PATH + "m"],
    ),
    (
        check_function_name, "InvalidFunctionName",
        ["default", "list", "_x", "$x1", "f" * FUNCTION_NAME_CHARS_MAX],
        ["", "1a", "a-b", "a.b", "é", "a b", "f" * (FUNCTION_NAME_CHARS_MAX + 1)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("check", "code", "good", "bad"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_rules(check, code, good, bad):
    for name in good:
        check(name)
    for name in bad:
        with pytest.raises(DeveloperError) as caught:
            check(name)
        assert caught.value.code == code, name
        assert len(caught.value.message) < 400


def test_system_tables_where_they_are_named():
    check_table_name("_storage", system=True)
    with pytest.raises(DeveloperError):
        check_table_name("_", system=True)


@given(st.text(max_size=12))
def test_identifiers_are_field_names(name):
    if is_identifier(name):
        assert is_field_name(name)
