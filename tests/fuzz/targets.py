"""What is fuzzed: each target takes any bytes, feeds them to a reader of hostile input, and checks what comes out.

A target returns where the input was refused with one of our errors or read with every promise kept; whatever else it
raises is a finding. Most take the bytes apart with `Draw`, so that a fuzzer is not lost on the outermost syntax.
"""

import io
import time
import zipfile
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from skerry.admin.access import Scope
from skerry.bundle.bundle_file import digest_of, read_bundle
from skerry.bundle.source_maps import StackMapper
from skerry.bundle.wasm_binary import parse_module
from skerry.database.cursor import Position, open_cursor, seal_cursor
from skerry.errors import ClientError, DeveloperError, SkerryError
from skerry.functions.execution import parse_arguments
from skerry.functions.frame import Call, Frame
from skerry.functions.module_check import check_module
from skerry.functions.operations import OPERATIONS
from skerry.http.bodies import args_of, parse_body, path_of
from skerry.http.headers import RequestIds, authenticate, expects_encoded_json
from skerry.isolate import CpuBudget, Isolate, linker_of_this_thread
from skerry.limits import GUEST_CPU_MS_MAX, QUERY_FINGERPRINT_BYTES
from skerry.value import (
    INTERNAL_ID_BYTES,
    Mismatch,
    check_document,
    check_encoded_result,
    check_value,
    compare,
    compile_validator,
    dumps,
    dumps_clean,
    dumps_export,
    encode_document_id,
    key_of,
    loads,
    size_of,
    try_decode_document_id,
)
from tests.fixtures import shared
from tests.fixtures.guests import wat_guest
from tests.fixtures.world import NOW_MS, World, request
from tests.fuzz.draw import Draw
from tests.fuzz.edge_targets import addresses, fetches, keys
from tests.fuzz.file_targets import backups, files
from tests.fuzz.socket_targets import close_loop, sockets

Target = Callable[[bytes], None]
_ADMIN_KEY = b"local|0123456789abcdef"
_RECORDS_MAX = 24
_RECORDS_AT = 4096  # where tests/fixtures/wat/does_as_told.wat puts its request
_TAGS: tuple[Any, ...] = (
    "schemaValidation",
    "documentType",
    "type",
    "value",
    "keys",
    "values",
    "fieldType",
    "optional",
    "tableName",
)
_TYPES = (
    "null",
    "number",
    "bigint",
    "boolean",
    "string",
    "bytes",
    "any",
    "literal",
    "id",
    "array",
    "object",
    "record",
    "union",
)


def bundle(data: bytes) -> None:
    """A bundle is refused, or is the one file of its content."""
    draw = Draw(data)
    raw = draw.rest() if draw.byte() % 4 == 0 else _zip_of(draw)
    try:
        read = read_bundle(raw)
    except ClientError:
        return
    assert read.to_bytes() == raw
    assert digest_of(read.entries) == read.digest


def wasm(data: bytes) -> None:
    """A module is refused or parsed, and its check says the same twice."""
    outcomes: list[str] = []
    for check in (parse_module, check_module, check_module):
        try:
            check(data)
            outcomes.append("")
        except ClientError as error:
            outcomes.append(error.code)
    assert outcomes[1] == outcomes[2]
    assert outcomes[0] == "" or outcomes[1] != "", "the check takes what the parser refuses"


def values(data: bytes) -> None:
    """What is read as a value is written as the same one; order as bytes is order of values."""
    draw = Draw(data)
    kept: list[Any] = []
    for raw in (draw.json_text(), draw.json_text()):
        try:
            check_encoded_result(raw)
            is_result = True
        except DeveloperError:
            is_result = False
        try:
            value = loads(raw)
            check_value(value)
        except DeveloperError:
            assert not is_result, "a result that is no value"
            continue
        written = dumps(value)
        again = loads(written)
        assert compare(value, again) == 0 and dumps(again) == written
        assert size_of(again) == size_of(value)
        dumps_clean(value)
        dumps_export(value)
        kept.append(value)
        try:
            check_document(value)
        except DeveloperError:
            pass
    if len(kept) == 2:
        left, right = key_of(kept[0]), key_of(kept[1])
        for tail in (b"", key_of(None), key_of({})):  # alone, and with another field behind
            assert compare(*kept) == (left + tail > right + tail) - (left + tail < right + tail)


def identifiers(data: bytes) -> None:
    """An id or a cursor is refused, or is the one text of what it says."""
    draw = Draw(data)
    number, internal = draw.word() % (2**31), draw.take(INTERNAL_ID_BYTES).ljust(INTERNAL_ID_BYTES, b"\x01")
    key, fingerprint = bytes(64), bytes(QUERY_FINGERPRINT_BYTES)
    cursor = seal_cursor(key, fingerprint, Position(draw.short_bytes()))
    if number:
        assert try_decode_document_id(encode_document_id(number, internal)) == (number, internal)
    text = draw.rest().decode("latin-1")
    decoded = try_decode_document_id(text)
    assert decoded is None or encode_document_id(*decoded) == text
    for attempt in (text, cursor[: len(text) % 99] + text, cursor + text):
        try:
            position = open_cursor(key, fingerprint, attempt)
        except DeveloperError as error:
            assert error.code == "InvalidCursor"
        else:
            assert seal_cursor(key, fingerprint, position) == attempt, "two texts of one cursor"


def validators(data: bytes) -> None:
    """A validator is refused or compiled, and takes a value or names what does not fit."""
    draw = Draw(data)
    try:
        validator = compile_validator(_validator_json(draw, 0))
        value = loads(draw.json_text())
        check_value(value)
        validator.check(value, lambda number: "table" if number % 2 else None)
    except (DeveloperError, Mismatch):
        pass


def stacks(data: bytes) -> None:
    """A source map that lies and a stack from nowhere give some text."""
    draw = Draw(data)
    raw_map = draw.short_bytes() if draw.byte() % 4 == 0 else _map_json(draw)
    mapper = StackMapper(raw_map)
    frames = [f"    at f (app.js:{draw.byte()}:{draw.byte()})" for _ in range(draw.byte() % 4)]
    stack = "\n".join([*frames, draw.rest().decode("utf-8", "replace")])
    assert isinstance(mapper.map_stack(stack), str)
    mapper.locate(stack)


def requests(data: bytes) -> None:
    """Headers and bodies of a stranger: read, or refused with one of our errors."""
    draw = Draw(data)
    fields = draw.json()
    raw = draw.short_bytes() if draw.byte() == 255 else orjson.dumps(fields)
    if draw.byte() % 2:
        raw = orjson.dumps({"path": draw.text(), "args": fields, "format": draw.text()})
    for read in (parse_body, _read_call, parse_arguments):
        try:
            read(raw)
        except SkerryError:
            continue
    identity = b64encode(draw.json_text())
    for header in (
        b"Convex " + _ADMIN_KEY + b":" + identity,
        b"Convex " + draw.short_bytes(),
        b"Bearer " + draw.short_bytes(),
        draw.short_bytes(),
    ):
        try:
            caller = authenticate(header, _judge)
        except ClientError:
            continue
        assert not caller.is_admin or _ADMIN_KEY in header
    client = draw.rest()
    assert RequestIds(lambda length: bytes(length)).name(client).isascii()
    try:
        expects_encoded_json(client)
    except ClientError:
        pass


def abi(data: bytes) -> None:
    """A guest that does anything: its call ends with one of our errors or as it says, and the next one works."""
    draw = Draw(data)
    world = _world()
    version = world.deployment.version
    assert version is not None
    kind, path = draw.pick((("query", "f:add"), ("mutation", "f:insert")))
    transaction = world.deployment.database.begin(writable=kind == "mutation", now_ms=NOW_MS, seed=bytes(32))
    budget = CpuBudget(time.thread_time_ns, GUEST_CPU_MS_MAX)
    linker = linker_of_this_thread()
    call = Call(version, request(kind, path), transaction, linker, bytes(32), budget)
    frame = Frame(call, version.functions[path], 0)
    module = shared.module_cache(_folder()).load(wat_guest("does_as_told"))
    isolate = Isolate(linker, module, frame, OPERATIONS[kind], budget)
    try:
        isolate.invoke(_told(draw, sorted(OPERATIONS[kind])))
        if isolate.tickets_open:
            isolate.resume(_told(draw, sorted(OPERATIONS[kind])))
    except DeveloperError:
        pass
    finally:
        isolate.close()
        transaction.abort()
    assert linker.current is None
    if draw.byte() == 1:
        assert world.query("f:add", {"x": 2, "y": 3}) == 5


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        abi,
        addresses,
        bundle,
        fetches,
        files,
        backups,
        identifiers,
        keys,
        requests,
        sockets,
        stacks,
        validators,
        values,
        wasm,
    )
}


def _judge(sent: bytes) -> Scope | None:
    return Scope.ADMIN if sent == _ADMIN_KEY else None


def _read_call(raw: bytes) -> None:
    fields = parse_body(raw)
    path_of(fields)
    parse_arguments(args_of(fields))


# -- input that gets past the first check ---------------------------------------------------------------------------


def _zip_of(draw: Draw) -> bytes:
    names = ("image.wasm", "manifest.json", "app.js", "app.js.map", "resolutions.json", "sources/a.ts")
    entries = {(draw.text().replace("\0", "0") if draw.byte() == 255 else name): draw.short_bytes() for name in names}
    if draw.byte() % 2:
        entries["manifest.json"] = _manifest(draw)
    entries["digest"] = draw.short_bytes() if draw.byte() == 255 else digest_of(entries).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, entries[name])
    raw = bytearray(out.getvalue())
    for _ in range(draw.byte() % 3):
        raw[draw.word() % len(raw)] ^= draw.byte()
    return bytes(raw)


def _manifest(draw: Draw) -> bytes:
    digest = "0" * 64
    fields: dict[str, Any] = dict.fromkeys(("engine_digest", "prelude_digest", "seed"), digest)
    fields |= {"format": 1, "language": "c", "abi": 1, "clock_ms": 1, "functions": [], "schema": None, "features": []}
    fields |= {"functions_folder": "convex", "entries": {}, "build": {}, "sources": {}}
    if draw.byte() % 2:
        fields[draw.pick(sorted(fields))] = draw.json()
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def _validator_json(draw: Draw, depth: int) -> Any:
    if depth > 6 or draw.byte() % 16 == 0:
        return draw.json()
    kind = draw.pick(_TYPES)
    spec: dict[str, Any] = {"type": kind}
    if kind in ("literal", "array"):
        spec["value"] = draw.json() if kind == "literal" else _validator_json(draw, depth + 1)
    elif kind == "id":
        spec["tableName"] = draw.text()
    elif kind == "union":
        spec["value"] = [_validator_json(draw, depth + 1) for _ in range(draw.byte() % 4)]
    elif kind == "object":
        spec["value"] = {
            draw.text(): {"fieldType": _validator_json(draw, depth + 1), "optional": draw.byte() % 2 == 0}
            for _ in range(draw.byte() % 4)
        }
    elif kind == "record":
        field = {"fieldType": _validator_json(draw, depth + 1), "optional": False}
        spec |= {"keys": _validator_json(draw, depth + 1), "values": field}
    if draw.byte() == 255:
        spec[draw.pick(_TAGS)] = draw.json()
    return spec


def _map_json(draw: Draw) -> bytes:
    letters = "AACAEGIKgBhCD,,;;+/" if draw.byte() % 8 else "ABC!é"
    mappings = "".join(letters[draw.byte() % len(letters)] for _ in range(draw.byte()))
    return orjson.dumps(
        {
            "version": draw.pick((3, 3, 3, 4, "3")),
            "sources": [draw.text() for _ in range(draw.byte() % 4)],
            "mappings": mappings,
        }
    )


def _told(draw: Draw, operations: list[bytes]) -> bytes:
    """A request for the guest that does as told: records, and behind them the texts that they point to."""
    count = draw.byte() % _RECORDS_MAX
    data_at = _RECORDS_AT + 36 * count
    texts = bytearray()
    records: list[bytes] = []
    for _ in range(count):
        what = draw.byte() % 8
        words = [draw.word() for _ in range(2)] if 1 <= what <= 3 else []
        if what == 0 or what > 3:
            for text in (
                draw.pick(operations),
                orjson.dumps(_argument(draw)),
                draw.short_bytes() if what == 0 else b"",
            ):
                words += [data_at + len(texts), len(text)]
                texts += text
            words += [64, draw.byte() * 16]
            if what == 0 and draw.byte() % 8 == 0:
                words[draw.byte() % 8] = draw.word()
            what = 0
        words += [0] * (8 - len(words))
        records.append(b"".join(word.to_bytes(4, "little") for word in (what, *words)))
    return b"".join([*records, bytes(texts)])[:200_000]


def _argument(draw: Draw) -> Any:
    names = (
        "id",
        "table",
        "value",
        "query",
        "cursor",
        "pageSize",
        "queryId",
        "name",
        "udfType",
        "args",
        "level",
        "length",
    )
    scan = {"source": {"type": "FullTableScan", "tableName": "notes", "order": "asc"}, "operators": []}
    tables = ("notes", "none", "_tables", "")
    chosen: dict[str, Any] = {}
    for _ in range(draw.byte() % 6):
        name = draw.pick(names)
        if name == "query" and draw.byte() % 4:
            chosen[name] = scan if draw.byte() % 2 else {**scan, "operators": [draw.json()]}
        elif name == "table" and draw.byte() % 4:
            chosen[name] = draw.pick(tables)
        elif name == "queryId" and draw.byte() % 4:
            chosen[name] = draw.byte() % 4
        else:
            chosen[name] = draw.json()
    return chosen


# -- the deployment of `abi` ------------------------------------------------------------------------------------------

_base: list[Path] = []


def prepare(folder: Path) -> None:
    """Says where targets may keep files. Call it before any target."""
    _base[:] = [folder]


def _folder() -> Path:
    return _base[0]


@cache
def _world() -> World:
    folder = _folder()
    made = World(folder / "data", shared.compiled(folder))
    made.activate(shared.bundle("javascript", folder))
    made.mutation("f:insert", {"n": 1, "body": "x"})
    return made


def close() -> None:
    """Ends what the targets opened."""
    close_loop()
    if _world.cache_info().currsize:
        _world().close()
        _world.cache_clear()
