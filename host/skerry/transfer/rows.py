"""Rows of a file: what is in it, document by document, in each of the formats.

A row is the text of a JSON object, or the fields that a CSV row makes. JSON is parsed when it is asked for
(`fields_of`), because a large text is not for the loop thread.

Numbers. In JSON lines, JSON arrays and CSV every number is a float64, and what JSON cannot carry is written as the
protocol writes it (`$integer`, `$float`, `$bytes`). In a snapshot archive a JSON integer is an int64: exports write
float64 with a point or an exponent always.

Source: protocol reference 1.2, 5.13.
"""

import csv
import re
from collections.abc import Iterator
from typing import Any, Final

from skerry.errors import DeveloperError
from skerry.limits import IMPORT_CSV_COLUMNS_MAX, IMPORT_DOCUMENT_TEXT_BYTES_MAX, VALUE_JSON_NESTING_MAX
from skerry.transfer.pieces import Read, Unreadable, elements, lines
from skerry.value import Int64, decode, loads, parse_json
from skerry.value.kinds import kind_of
from skerry.value.names import check_document_field

Row = bytes | dict[str, Any] | None

FORMATS: Final = ("jsonLines", "jsonArray", "csv", "zip")
_BLANK: Final = b" \t\r"
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FLOAT_INTEGER_MAX: Final = 2**53
_INT64_MAX: Final = 2**63 - 1

csv.field_size_limit(IMPORT_DOCUMENT_TEXT_BYTES_MAX)


def rows_of(kind: str, read: Read) -> Iterator[tuple[int, Row]]:
    """The rows of a file in a format other than zip, each with its line; None between them now and then.

    Raises: Unreadable.
    """
    if kind == "csv":
        return csv_rows(read)
    return json_lines(read) if kind == "jsonLines" else elements(read)


def json_lines(read: Read) -> Iterator[tuple[int, Row]]:
    """The lines; None for those that are blank."""
    for number, line in lines(read):
        yield number, None if line is None else line.strip(_BLANK) or None


def fields_of(row: bytes | dict[str, Any], is_export: bool = False) -> dict[str, Any]:
    """The decoded fields of a row. Raises: DeveloperError of JSON that is no document's."""
    if isinstance(row, dict):
        return row
    bytes_max = IMPORT_DOCUMENT_TEXT_BYTES_MAX
    if is_export:
        value = _exported(parse_json(row, depth_max=VALUE_JSON_NESTING_MAX, bytes_max=bytes_max))
    else:
        value = loads(row, bytes_max=bytes_max)
    if type(value) is not dict:
        raise DeveloperError("InvalidJson", "A document is a JSON object: { ... }.")
    return value  # pyright: ignore[reportUnknownVariableType]  # a dict of JSON has strings for keys


def _exported(parsed: Any) -> Any:
    kind = kind_of(parsed)
    if kind is str or kind is bool or parsed is None:
        return parsed
    if kind is float:
        if parsed.is_integer() and -_FLOAT_INTEGER_MAX < parsed < _FLOAT_INTEGER_MAX and str(parsed)[0:2] != "-0":
            return int(parsed)
        return parsed
    if kind is int:
        if not -_INT64_MAX - 1 <= parsed <= _INT64_MAX:
            raise DeveloperError("InvalidValue", f"The integer {parsed} is not an int64.")
        return Int64(parsed)
    if kind is list:
        return [_exported(element) for element in parsed]
    for key in parsed:
        if key[:1] == "$":
            return decode(parsed)
    return {key: _exported(value) for key, value in parsed.items()}


def csv_rows(read: Read) -> Iterator[tuple[int, Row]]:
    """The rows below the header as fields: a cell that is a number is a float64, every other one a string.

    Raises: Unreadable for a header that names no fields, a row of another length, text that is not UTF-8 or CSV.
    """
    source = _CsvLines(read)
    reader = csv.reader(source, strict=True)
    names: list[str] | None = None
    begins = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise Unreadable(begins, f"this is not CSV: {error}.") from None
        at, begins = begins, source.number + 1
        if not cells:
            yield at, None
        elif names is None:
            names = _header(cells)
        elif len(cells) != len(names):
            raise Unreadable(
                at,
                f"CSV row {at} doesn't have all of the fields in the header: it has {len(cells)}, the header "
                f"{len(names)}.",
            )
        else:
            yield at, {name: _cell(cell) for name, cell in zip(names, cells, strict=True)}
    if names is None:
        raise Unreadable(1, "the file is empty; the first row of CSV names the fields.")


class _CsvLines:
    """The lines of a file as text, with their ends, for the CSV reader."""

    def __init__(self, read: Read) -> None:
        self.number = 0
        self._lines = lines(read)

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        while line is None:
            number, line = next(self._lines)
        self.number = number
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError as error:
            raise Unreadable(number, f"this is not UTF-8 (byte {error.start + 1} of the line).") from None


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(names) > IMPORT_CSV_COLUMNS_MAX:
        raise Unreadable(1, f"the header has {len(names)} fields; a document has at most {IMPORT_CSV_COLUMNS_MAX}.")
    for name in names:
        if names.count(name) > 1:
            raise Unreadable(1, f"the header names the field {name[:64]!r} twice.")
        try:
            check_document_field(name)
        except DeveloperError as error:
            raise Unreadable(1, error.message) from None
    return names


def _cell(text: str) -> float | int | str:
    if not _NUMBER.fullmatch(text):
        return text
    number = float(text)
    if number.is_integer() and -_FLOAT_INTEGER_MAX < number < _FLOAT_INTEGER_MAX and str(number)[0:2] != "-0":
        return int(number)
    return number
