"""What rows mean in each format."""

import io
from typing import Any

import pytest

from skerry.errors import DeveloperError
from skerry.limits import IMPORT_CSV_COLUMNS_MAX
from skerry.transfer.pieces import Unreadable
from skerry.transfer.rows import fields_of, rows_of
from skerry.value import Int64, encode


def read(kind: str, raw: bytes, is_export: bool = False) -> list[tuple[int, dict[str, Any]]]:
    rows = rows_of(kind, io.BytesIO(raw).read)
    return [(line, fields_of(row, is_export)) for line, row in rows if row is not None]


def test_lines_may_be_blank_and_end_in_any_way() -> None:
    assert read("jsonLines", b'{"a":1}\r\n\r\n \t\n{"b":2}') == [(1, {"a": 1}), (4, {"b": 2})]


@pytest.mark.parametrize("raw", [b"1", b"[]", b"{", b'{"a":}', b'"\xff"', b'{"a":"\\ud800"}', b"{'a':1}", b'{"a":NaN}'])
def test_lines_that_are_no_documents(raw: bytes) -> None:
    with pytest.raises(DeveloperError):
        read("jsonLines", raw)


def test_numbers_are_float64_but_where_they_say_otherwise() -> None:
    raw = b'{"a":1,"b":9007199254740993,"c":{"$integer":"AQAAAAAAAAA="},"d":{"$float":"AAAAAAAA+H8="},"e":-0.0}'
    [(_, fields)] = read("jsonLines", raw)
    assert fields["a"] == 1 and fields["b"] == 2.0**53 and fields["c"] == Int64(1)
    assert encode(fields["d"]) == {"$float": "AAAAAAAA+H8="}
    assert encode(fields["e"]) == {"$float": "AAAAAAAAAIA="}


def test_integers_of_an_export_are_int64() -> None:
    raw = b'{"a":1,"b":[1.0,-9223372036854775808,{"c":1e300}],"d":{"$bytes":"AAH/"},"e":-0.0,"f":5.5}'
    [(_, fields)] = read("jsonLines", raw, is_export=True)
    assert fields["a"] == Int64(1) and fields["b"] == [1, Int64(-(2**63)), {"c": 1e300}]
    assert type(fields["b"][0]) is int and fields["d"] == b"\0\1\xff" and fields["f"] == 5.5
    assert encode(fields["e"]) == {"$float": "AAAAAAAAAIA="}
    with pytest.raises(DeveloperError):
        read("jsonLines", b'{"a":9223372036854775808}', is_export=True)
    with pytest.raises(DeveloperError):
        read("jsonLines", b'{"a":{"$set":[]}}', is_export=True)


def test_csv_cells() -> None:
    raw = (
        b' name ,"n"\r\nAda,1\r\n"two\n\nlines, ""quoted""", 2\n\n,-1.5e3\nNaN,inf\n'
        b"1_000,0x10\n+5,.5\n9007199254740993,-0\n"
    )
    rows = read("csv", raw)
    assert [line for line, _ in rows] == [2, 3, 7, 8, 9, 10, 11]
    cells = [(fields["name"], fields["n"]) for _, fields in rows]
    assert cells[:-1] == [
        ("Ada", 1),
        ('two\n\nlines, "quoted"', " 2"),
        ("", -1500),
        ("NaN", "inf"),
        ("1_000", "0x10"),
        (5, 0.5),
    ]
    assert cells[-1][0] == 2.0**53 and encode(cells[-1][1]) == {"$float": "AAAAAAAAAIA="}


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"", 1),
        (b"\n\n", 1),
        (b"a,b\n1\n", 2),
        (b"a,b\n1,2\n1,2,3\n", 3),
        (b"a,a\n", 1),
        (b"a,\n1,2\n", 1),
        (b"a,$b\n1,2\n", 1),
        (b"a,_b\n1,2\n", 1),
        (b"\xef\xbb\xbfa\n1\n", 1),
        (b"a\n\xff\n", 2),
        (b'a\n"open', 2),
        (b'a\n"shut"x\n', 2),
    ],
)
def test_csv_that_is_refused(raw: bytes, line: int) -> None:
    with pytest.raises(Unreadable) as refused:
        read("csv", raw)
    assert refused.value.line == line


def test_the_columns_of_csv_are_bounded() -> None:
    header = b",".join([b"c%d" % i for i in range(IMPORT_CSV_COLUMNS_MAX)])
    assert (
        len(read("csv", header + b"\n" + b"," * (IMPORT_CSV_COLUMNS_MAX - 1) + b"\n")[0][1]) == IMPORT_CSV_COLUMNS_MAX
    )
    with pytest.raises(Unreadable):
        read("csv", header + b",more\n")
