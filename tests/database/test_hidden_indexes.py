"""Indexes that writes maintain and queries are refused: how they are kept, and what a query hears."""

import pytest

from skerry.database.catalog import Catalog, Table, empty_catalog
from skerry.database.index_kinds import dump_table, load_table, make_index, under_name
from skerry.database.query import compile_query
from skerry.errors import DeveloperError
from tests.database.world import range_query

NAME = ("database", ("name",))


def catalog_with_hidden() -> tuple[Catalog, Table]:
    catalog, table = empty_catalog().with_table("t")
    staged = make_index(98, "later", NAME, is_staged=True, since_ts=7)
    changed = table.with_indexes({}, (staged, make_index(99, "soon", ("database", ("a.b", "c")))), None)
    return Catalog({**catalog.tables, "t": changed}, catalog.next_table, 100, None), changed


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("soon", "IndexBackfillingError", "Index t.soon is currently backfilling and not available to query yet."),
        (
            "later",
            "IndexStagedError",
            "Index t.later is currently staged and not available to query until it is enabled.",
        ),
        ("other", "IndexNotFoundError", "Index t.other not found."),
    ],
)
def test_a_query_over_a_hidden_index_is_refused(name: str, code: str, message: str) -> None:
    with pytest.raises(DeveloperError) as caught:
        compile_query(range_query(f"t.{name}", []), catalog_with_hidden()[0])
    assert (caught.value.code, caught.value.message) == (code, message)


def test_a_table_is_read_back_with_its_hidden_indexes() -> None:
    _, table = catalog_with_hidden()
    again = load_table(dump_table(table), {})
    assert dump_table(again) == dump_table(table) and not again.indexes
    later, soon = again.hidden
    assert later.is_staged and later.since_ts == 7 and later.definition == NAME
    assert soon.definition == ("database", ("a.b", "c")) and soon.range_fields == ("a.b", "c", "_creationTime")


def test_a_table_of_before_there_were_kinds_is_read() -> None:
    index = b'{"name":"i","number":66,"fields":["x"]}'
    table = load_table(b'{"name":"t","number":10001,"by_id":64,"by_creation_time":65,"indexes":[%s]}' % index, {})
    assert table.indexes["i"].definition == ("database", ("x",)) and table.hidden == ()


def test_an_index_keeps_its_entries_under_another_name() -> None:
    index = make_index(5, "a", NAME, since_ts=3)
    assert under_name(index, "a", is_staged=False) is index
    other = under_name(index, "b", is_staged=True)
    assert (other.number, other.name, other.since_ts, other.is_staged) == (5, "b", 3, True)
