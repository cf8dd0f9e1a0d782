"""How modules become functions: describe, dispatch, and the error object of what a function throws."""

# ruff: noqa: E501 - the long lines are JavaScript

import json

from tests.guest.javascript.conftest import Guest


def test_describe_lists_marked_exports_only(guest: Guest) -> None:
    described = guest.describe()
    assert described["abi"] == 1 and described["language"] == "javascript"
    assert described["schema"] is None and described["features"] == []
    functions = {each["name"]: (each["kind"], each["visibility"]) for each in described["functions"]}
    assert functions == {
        "t:query": ("query", "public"),
        "t:mutation": ("mutation", "public"),
        "t:action": ("action", "public"),
        "t:internal": ("query", "internal"),
    }
    assert all(each["args"] == {"type": "any"} and each["returns"] is None for each in described["functions"])


def test_special_modules(guest: Guest) -> None:
    code = """
      skerryRegister({
        schema: { default: { export: () => '{"tables":[],"schemaValidation":true}' } },
        crons: { default: { isCrons: true, export: () => "{}" } },
        http: { default: { isRouter: true } },
        "auth.config": { default: { providers: [] } },
        "convex.config": { default: {} },
      });
      return 1"""
    assert guest.query(code) == 1  # registering again is only for the build; here it shows that nothing of it throws


def test_unknown_and_wrong_kind(guest: Guest) -> None:
    status, error = guest.call("query", "t:missing", "[{}]")
    assert status == "failed" and error["message"] == "Could not find function for 't:missing'."
    status, error = guest.call("mutation", "t:query", "[{}]")
    assert error["message"] == "Trying to execute t.js:query as Mutation, but it is defined as Query."
    for name in ("t:plain", "t:notAFunction"):
        assert guest.call("query", name, "[{}]")[0] == "failed"


def test_thrown_errors(guest: Guest) -> None:
    error = guest.error("query", "function inner() { throw new TypeError('bad') }\ninner()")
    assert (error["name"], error["message"]) == ("TypeError", "bad")
    assert "inner" in error["stack"]
    assert "data" not in error


def test_convex_error_carries_its_data(guest: Guest) -> None:
    code = """
      class ConvexError extends Error {
        constructor(data) { super(JSON.stringify(data)); this.name = "ConvexError"; this.data = JSON.stringify(data); this[Symbol.for("ConvexError")] = true; }
      }
      throw new ConvexError({ code: 7, n: { $integer: "AQAAAAAAAAA=" } });"""
    error = guest.error("query", code)
    assert error["name"] == "ConvexError"
    assert error["data"] == {"code": 7, "n": {"$integer": "AQAAAAAAAAA="}}


def test_whatever_is_thrown_is_described(guest: Guest) -> None:
    cases = {
        "throw 'text'": "text",
        "throw 42": "42",
        "throw null": "null",
        "throw undefined": "undefined",
        "throw Symbol('s')": "Symbol(s)",
        "throw { a: 1 }": '{"a":1}',
    }
    for code, message in cases.items():
        assert guest.error("query", code)["message"] == message
    hostile = "throw { get stack() { throw 1 }, toString() { throw 2 }, toJSON() { throw 3 } }"
    assert guest.error("query", hostile)["message"] != ""
    assert guest.error(
        "query", "const e = new Error('m'); Object.defineProperty(e, 'message', { get() { throw 1 } }); throw e"
    )


def test_operations_pass_through(guest: Guest) -> None:
    assert guest.error("query", "Convex.syscall('1.0/nope', '{}')")["message"] == "Unknown operation 1.0/nope"
    assert guest.error("query", "await Convex.asyncSyscall('1.0/nope', '{}')")["message"].endswith("operation 1.0/nope")
    assert guest.error("action", "Convex.jsSyscall('nope', {})")["message"] == "Unknown JS operation nope"
    assert json.loads(guest.query("return await Convex.asyncSyscall('env/get', '{\"name\":\"A\"}')")) is None


def test_capture_stack_trace_is_there(guest: Guest) -> None:
    assert guest.query("const o = {}; Error.captureStackTrace(o); return typeof o.stack") == "string"
