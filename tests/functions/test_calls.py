"""What a call goes through, in its order, and how its failures read (protocol reference 1.9, 2.3, 4.10)."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from skerry import limits
from skerry.bundle.source_maps import StackMapper
from skerry.errors import ClientError, DeveloperError
from skerry.functions.execution import parse_arguments
from skerry.functions.failures import thrown_failure
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import World


@pytest.fixture(scope="module")
def app(base: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("calls"), compiled) as made:
        made.activate(hostile_bundle(base))
        yield made


# -- the order of checks -------------------------------------------------------------------------------------------

NOT_JSON = b"{"
TOO_LARGE = b'{"text":"' + b"x" * limits.FUNCTION_ARGS_BYTES_MAX + b'"}'


@pytest.mark.parametrize(
    ("kind", "path", "args", "begins"),
    [
        ("mutation", "h:none", NOT_JSON, "Could not find public function for 'h:none'."),
        ("mutation", "h:hidden", NOT_JSON, "Could not find public function for 'h:hidden'."),
        ("mutation", "h:ping", NOT_JSON, "Trying to execute h.js:ping as Mutation, but it is defined as Query."),
        ("query", "h:count", NOT_JSON, "Trying to execute h.js:count as Query, but it is defined as Mutation."),
        ("action", "h:act", NOT_JSON, "Not valid JSON: "),
        ("query", "h:typed", NOT_JSON, "Not valid JSON: "),
        ("query", "h:typed", b"[1, 2]", "Expected to receive a single object as the function's argument."),
        ("query", "h:typed", b'"text"', "Expected to receive a single object as the function's argument."),
        ("query", "h:typed", TOO_LARGE, "Arguments for h:typed are too large (actual: 16.00 MiB, limit: 16 MiB)"),
        ("query", "h:typed", b"{}", "ArgumentValidationError: Object is missing the required field `name`."),
        ("query", "h:returnsWrong", b"{}", "ReturnsValidationError: Value does not match validator."),
    ],
)
def test_checks_come_in_the_documented_order(app: World, kind: str, path: str, args: bytes, begins: str) -> None:
    text = app.failure(kind, path, args)
    assert text.startswith(begins), text[:300]
    assert "Uncaught" not in text


def test_a_malformed_path_is_a_bad_request(app: World) -> None:
    for path in ("", "a b", "h:", ":x", "h:x y", "../h:x", "h:a:b c", "x" * 1000, "h:\0"):
        with pytest.raises(ClientError) as caught:
            app.call("query", path, {})
        assert caught.value.code == "BadConvexFunctionIdentifier"


@pytest.mark.parametrize("path", ["h:ping", "h.js:ping", "h", "h.js", "h:default"])
def test_a_path_may_leave_out_what_is_understood(app: World, path: str) -> None:
    assert app.query(path) == ("pong" if "ping" in path else "default")


def test_internal_functions_are_the_admins(app: World) -> None:
    assert orjson.loads(app.call(None, "h:hidden", {}, is_admin=True, wording="any").value) == "hidden"
    text = app.failure(None, "h:hidden", wording="any")
    assert text == "Could not find function for 'h:hidden'. Did you forget to run `npx convex dev`?"


def test_any_kind_will_do_where_none_is_named(app: World) -> None:
    assert app.call(None, "h:ping").ok
    assert app.call(None, "h:count").ok


@pytest.mark.parametrize("args", [None, b"{}", b"[{}]", b"[]"])
def test_arguments_may_come_in_several_forms(app: World, args: bytes | None) -> None:
    assert app.call("query", "h:ping", args).ok


def test_arguments_may_have_the_documented_size_and_no_more(app: World) -> None:
    room = limits.FUNCTION_ARGS_BYTES_MAX - len("a") - 1 - 2 - 2
    assert app.call("query", "h:ping", b'{"a":"%b"}' % (b"x" * room)).ok
    text = app.failure("query", "h:ping", b'{"a":"%b"}' % (b"x" * (room + 1)))
    assert text.startswith("Arguments for h:ping are too large")


@pytest.mark.parametrize(
    ("kind", "path", "args", "code"),
    [
        ("query", "h:none", b"{}", "FunctionPathNotFound"),
        ("mutation", "h:ping", b"{}", "WrongFunctionKind"),
        ("action", "h:act", b"{}", None),
        ("query", "h:ping", b"{", "InvalidJson"),
        ("query", "h:typed", b"{}", "ArgumentValidationError"),
        ("query", "h:returnsWrong", b"{}", "ReturnsValidationError"),
        ("query", "h:throwNamed", b"{}", None),
        ("query", "h:ping", b"{}", None),
    ],
)
def test_what_the_host_finds_has_a_stable_code(app: World, kind: str, path: str, args: bytes, code: str | None) -> None:
    assert app.call(kind, path, args).error_code == code


def test_validating_is_bounded_in_steps(app: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INLINE_VALIDATION_STEPS_MAX", 12)
    assert app.call("query", "h:typed", {"name": "x", "tags": [1]}).ok
    result = app.call("query", "h:typed", {"name": "x", "tags": [1] * 12})
    assert result.error_code == "ValidationTooExpensive"


# -- validators ----------------------------------------------------------------------------------------------------

OBJECT = 'v.object({mode: v.optional(v.literal("fast")), name: v.string(), tags: v.optional(v.array(v.float64()))})'


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"name": 1}, "Value does not match validator.\nPath: .name\nValue: 1.0\nValidator: v.string()"),
        ({"name": "x", "tags": [1, "x"]},
         'Value does not match validator.\nPath: .tags[1]\nValue: "x"\nValidator: v.float64()'),
        ({"name": "x", "mode": "slow"}, '`"slow"` does not match literal validator `v.literal("fast")`.Path: .mode'),
        ({"name": "x", "z": 1},
         (f'Object contains extra field `z` that is not in the validator.\n\nObject: {{name: "x", z: 1.0}}\n'
         f"Validator: {OBJECT}")),
        ({}, ("Object is missing the required field `name`. Consider wrapping the field validator in "
             f"`v.optional(...)` if this is expected.\n\nObject: {{}}\nValidator: {OBJECT}")),
    ],
)  # fmt: skip
def test_argument_errors_name_the_field(app: World, args: object, text: str) -> None:
    assert app.failure("query", "h:typed", args) == f"ArgumentValidationError: {text}"


def test_a_called_functions_arguments_are_checked_too(app: World) -> None:
    text = app.failure("query", "h:callWithNoObject")
    assert text.startswith("Uncaught Error: Expected to receive a single object as the function's argument.")


def test_a_result_is_checked_against_what_was_promised(app: World) -> None:
    assert app.failure("query", "h:returnsWrong") == (
        'ReturnsValidationError: Value does not match validator.\nValue: "text"\nValidator: v.float64()'
    )
    assert app.failure("query", "h:returnsFunction").startswith("Uncaught Error: Function ")


# -- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("h:throwText", "Uncaught just text\n"),
        ("h:throwNothing", "Uncaught undefined\n"),
        ("h:throwObject", 'Uncaught {"reason":"plain"}\n'),
        ("h:throwNamed", "Uncaught TypeError: of a type\n    at handler (../convex/h.ts:{line}:15)\n"),
        ("h:rejectUnhandled", "Uncaught Error: nobody looks\n    at handler (../convex/h.ts:{line}:29)\n"),
        ("h:neverSettles", "Uncaught Error: The function waits for a promise that nothing can settle\n"),
        ("h:throwTrap", "Uncaught Error: an error that cannot be described was thrown\n"),
    ],
)
def test_what_is_thrown_reads_as_documented(app: World, function: str, text: str) -> None:
    assert app.failure("query", function) == text.replace("{line}", str(_line_of(function)))


def test_a_trace_shows_the_users_own_lines(app: World) -> None:
    first = _line_of("h:deepFrames", "throw new Error")
    assert app.failure("query", "h:deepFrames") == (
        "Uncaught Error: deep\n"
        f"    at inner (../convex/h.ts:{first}:17)\n"
        f"    at outer (../convex/h.ts:{first + 3}:7)\n"
        f"    at handler (../convex/h.ts:{first + 5}:5)\n"
    )


@pytest.mark.parametrize(
    ("function", "shown", "data"),
    [("h:throwConvexText", "raw text", b'"raw text"'), ("h:throwConvexNull", "null", b"null")],
)
def test_the_data_of_a_convex_error_is_kept(app: World, function: str, shown: str, data: bytes) -> None:
    result = app.call("query", function)
    assert f"Uncaught ConvexError: {shown}\n" in result.error_message
    assert result.error_data == data


def test_messages_are_cut(app: World) -> None:
    text = app.failure("query", "h:throwLong")
    assert text.startswith("Uncaught Error: " + "x" * 65536 + "\n    at handler (../convex/h.ts:")


def test_other_errors_have_no_data(app: World) -> None:
    assert app.call("query", "h:throwNamed").error_data is None
    assert app.call("query", "h:typed", {}).error_data is None


@pytest.mark.parametrize(
    ("payload", "text", "data"),
    [
        (b"", "Uncaught Error: \n", None),
        (b"oops", "Uncaught Error: \n", None),
        (b"[]", "Uncaught Error: \n", None),
        (b'{"message":5,"name":[],"stack":{}}', "Uncaught \n", None),
        (b'{"message":"m"}', "Uncaught Error: m\n", None),
        (b'{"message":"m","data":null}', "Uncaught Error: m\n", b"null"),
        (b'{"message":"m","data":{"$integer":"x"}}', "The data of the thrown ConvexError is not a value", None),
        (b'{"message":"m","stack":"at f (nowhere:1:1)"}', "Uncaught Error: m\n", None),
        (b"[" * 100_000, "Uncaught Error: \n", None),
    ],
)
def test_error_objects_of_a_guest_are_read_as_hostile(payload: bytes, text: str, data: bytes | None) -> None:
    failure = thrown_failure(payload, StackMapper(b""))
    assert failure.text.startswith(text)
    assert failure.data == data


def test_the_name_of_an_error_is_bounded() -> None:
    failure = thrown_failure(orjson.dumps({"name": "N" * 100_000, "message": "m"}), StackMapper(b""))
    assert len(failure.text) < 1000


def test_no_function_is_there_before_the_first_deploy(empty: World) -> None:
    assert empty.failure("query", "h:ping").startswith("Could not find public function for 'h:ping'. Deploy an app")
    assert empty.call("query", "h:ping").error_code == "NoActiveVersion"
    assert empty.deployment.describe() == {"version": None, "functions": [], "features": []}


def test_positional_arguments_are_at_most_one() -> None:
    with pytest.raises(DeveloperError, match="single object"):
        parse_arguments(b"[{}, {}]")
    assert parse_arguments(b'[{"a": 1}]') == {"a": 1}


def _line_of(function: str, needle: str = "") -> int:
    """The line of the first `throw` or rejection of a hostile function."""
    source = (Path(__file__).parent.parent / "fixtures" / "hostile" / "convex" / "h.ts").read_text().split("\n")
    begin = next(n for n, line in enumerate(source) if line.startswith(f"export const {function[2:]} "))
    words = (needle,) if needle else ("throw ", "new Error(")
    return next((n for n, line in enumerate(source[begin:], begin + 1) if any(word in line for word in words)), 0)


# -- calls of functions by functions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "args", "code"),
    [
        ("1.0/runUdf", {"udfType": "query", "name": "h:none", "args": {}}, "FunctionPathNotFound"),
        ("1.0/runUdf", {"udfType": "query", "name": "../x", "args": {}}, "FunctionPathNotFound"),
        ("1.0/runUdf", {"udfType": "query", "name": "h:count", "args": {}}, "WrongFunctionKind"),
        ("1.0/runUdf", {"udfType": "mutation", "name": "h:count", "args": {}}, "ReadOnlyTransaction"),
        ("1.0/runUdf", {"udfType": "action", "name": "h:act", "args": {}}, "InvalidArgument"),
        ("1.0/runUdf", {"udfType": "snapshotQuery", "name": "h:ping", "args": {}}, "InvalidArgument"),
        ("1.0/runUdf", {"udfType": "query", "reference": "_reference/x", "args": {}}, "FeatureNotServed"),
        ("1.0/runUdf", {"udfType": "query", "name": "h:typed", "args": {}}, "ArgumentValidationError"),
        ("1.0/runUdf", {"udfType": "query", "name": "h:typed", "args": []}, "ArgumentValidationError"),
        ("1.0/runUdf", {"udfType": "query", "name": "h:typed", "args": {"$integer": 1}}, "InvalidValue"),
        ("1.0/runUdf", [], "InvalidArgument"),
        ("1.0/get", {}, "InvalidArgument"),
        ("1.0/queryStreamNext", {"queryId": 99}, "QueryNotFound"),
        ("1.0/nope", {}, "UnknownOperation"),
        ("1.0/insert", {}, "ReadOnlyTransaction"),
        ("log", {"level": "LOG"}, "InvalidArgument"),
        ("entropy", {"length": 1e9}, "InvalidArgument"),
    ],
)
def test_a_failing_operation_tells_the_guest_its_code(app: World, op: str, args: object, code: str) -> None:
    assert app.query("h:codeOf", {"op": op, "args": orjson.dumps(args).decode()}) == code


def test_functions_call_each_other_as_deep_as_documented(app: World) -> None:
    assert app.query("h:dig", {"n": limits.FUNCTION_CALL_DEPTH_MAX}) == "bottom"
    assert app.query("h:dig", {"n": limits.FUNCTION_CALL_DEPTH_MAX + 1}) == "FunctionCallTooDeep"
