"""The JavaScript engine guest: time, randomness, hostcalls, tickets, promises, errors, interruption."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import wasmtime

from skerry.bundle.engine_build import C_STACK_BYTES, GUEST_MEMORY_BYTES_MAX, engine_wasm
from skerry.bundle.wasm_binary import parse_module
from tests.bundle.runner import Compiled, GuestRunner, Refused, Ticketed

IMPORTS = {
    ("skerry", "hostcall"),
    ("skerry", "take"),
    *(
        ("wasi_snapshot_preview1", name)
        for name in ("clock_time_get", "fd_close", "fd_fdstat_get", "fd_seek", "fd_write")
    ),
}


def with_invoker(guest: GuestRunner, body: str) -> GuestRunner:
    """The guest with an invoker whose result is the JSON of what `body` (an async function's) returns."""
    source = (
        f"{{ const s = __skerry, run = async () => {{ {body} }};"
        "s.setInvoker(async (kind, name, id, args) => JSON.stringify(await run()) ?? 'null'); }"
    )
    assert guest.eval(source) == ("done", "null")
    assert guest.call("skerry_freeze", None) >> 60 == 0
    return guest


def later(number: int):
    def run(argument: str, raw: bytes) -> bytes:
        raise Ticketed(number + json.loads(argument))

    return run


# -- the module ------------------------------------------------------------------------------------------------


def test_the_engine_asks_only_for_the_abi(engine: bytes) -> None:
    module = parse_module(engine)
    assert {(item.module, item.name) for item in module.imports} == IMPORTS
    assert module.memories[0].maximum == GUEST_MEMORY_BYTES_MAX // 65536
    assert module.start is None


def test_the_c_stack_lies_below_the_data(engine: bytes) -> None:
    module = parse_module(engine)
    top = module.globals[0].initial
    assert top == C_STACK_BYTES
    assert all(segment.offset is not None and segment.offset >= top for segment in module.data)


def test_the_same_sources_come_from_the_cache(engine: bytes) -> None:
    assert engine_wasm() == engine


# -- time and randomness ---------------------------------------------------------------------------------------


def test_a_query_sees_one_instant_and_asks_for_it_once(guest: GuestRunner) -> None:
    body = (
        "const a = Date.now(); s.hostcall('tick', '1');"
        "return [a, new Date().getTime(), new Date(0).getTimezoneOffset()];"
    )
    with_invoker(guest, body)
    guest.ops["tick"] = lambda argument, raw: b"null"
    guest.clock_reads = 0
    guest.now_ns = 5_000_000_000
    assert guest.invoke("a:b") == ("done", [5000, 5000, 0])
    assert guest.clock_reads == 1


def test_a_call_that_does_not_look_at_the_clock_does_not_ask(guest: GuestRunner) -> None:
    with_invoker(guest, "return 1;")
    guest.clock_reads = 0
    guest.hostcalls.clear()
    assert guest.invoke("a:b") == ("done", 1)
    assert (guest.clock_reads, guest.hostcalls) == (0, [])


def test_an_action_sees_its_clock_run(guest: GuestRunner) -> None:
    def tick(argument: str, raw: bytes) -> bytes:
        guest.now_ns += 1_000_000
        return b"null"

    with_invoker(guest, "const a = Date.now(); s.hostcall('tick', '1'); return Date.now() - a;")
    guest.ops["tick"] = tick
    assert guest.invoke("a:b", kind="action") == ("done", 1)


def test_random_numbers_follow_the_host_seed_alone(guest: GuestRunner, compiled_engine: Compiled) -> None:
    results = []
    for seed in (bytes(range(32)), bytes(range(32)), bytes(range(1, 33))):
        runner = with_invoker(
            GuestRunner(compiled_engine).boot(), "return [Math.random(), Math.random(), Math.random()];"
        )
        runner.ops["entropy"] = lambda argument, raw, seed=seed: seed
        runner.hostcalls.clear()
        results.append(runner.invoke("a:b")[1])
        assert [op for op, _, _ in runner.hostcalls] == ["entropy"]
    assert results[0] == results[1] != results[2]
    assert len(set(results[0])) == 3 and all(0 <= number < 1 for number in results[0])


def test_a_refused_seed_is_an_error_of_the_call(guest: GuestRunner) -> None:
    def refuse(argument: str, raw: bytes) -> bytes:
        raise Refused("no randomness here", "NoEntropy")

    with_invoker(guest, "try { return Math.random(); } catch (e) { return [e.message, e.code]; }")
    guest.ops["entropy"] = refuse
    assert guest.invoke("a:b") == ("done", ["no randomness here", "NoEntropy"])


# -- hostcalls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16 * 1024 - 2, 16 * 1024 - 1, 16 * 1024, 1_000_000])
def test_answers_of_every_size_arrive_whole(guest: GuestRunner, size: int) -> None:
    guest.ops["text"] = lambda argument, raw: b'"' + b"x" * size + b'"'
    assert guest.eval("const t = __skerry.hostcall('text', '{}'); String(t.length - 2)") == ("done", str(size))
    assert guest.eval("String(__skerry.hostcallJson('text', '{}').length)") == ("done", str(size))
    assert guest.eval("String(__skerry.hostcallBytes('text', '{}').length - 2)") == ("done", str(size))


def test_text_outside_ascii_survives_both_ways(guest: GuestRunner) -> None:
    guest.ops["echo"] = lambda argument, raw: argument.encode()
    assert guest.eval("__skerry.hostcall('echo', JSON.stringify('é\\u{1f600}'))") == ("done", '"é\U0001f600"')


def test_raw_bytes_travel_beside_the_json(guest: GuestRunner) -> None:
    guest.ops["sum"] = lambda argument, raw: bytes(reversed(raw))
    assert guest.eval("String(__skerry.hostcallBytes('sum', '{}', new Uint8Array([0, 1, 255]).subarray(1)))") == (
        "done",
        "255,1",
    )


def test_a_refusal_throws_with_code_and_data(guest: GuestRunner) -> None:
    def refuse(argument: str, raw: bytes) -> bytes:
        raise Refused("gone", "NotFound", {"id": 4})

    guest.ops["get"] = refuse
    source = "try { __skerry.%s('get', '{}') } catch (e) { [e instanceof Error, e.message, e.code, e.data.id].join() }"
    assert guest.eval(source % "hostcall") == guest.eval(source % "hostcallJson") == ("done", "true,gone,NotFound,4")
    assert guest.eval("__skerry.hostcallAsync('get', '{}').catch(e => e.code)") == ("done", "NotFound")


@pytest.mark.parametrize(
    "call", ["hostcall()", "hostcall('a')", "hostcall(1, 2)", "hostcall('a', '{}', 'text')", "setInvoker(1)"]
)
def test_wrong_arguments_are_type_errors(guest: GuestRunner, call: str) -> None:
    assert guest.eval(f"try {{ __skerry.{call}; 'ran' }} catch (e) {{ e.name }}") == ("done", "TypeError")


def test_the_request_reaches_the_invoker(guest: GuestRunner) -> None:
    guest.eval(
        "{ const s = __skerry;s.setInvoker((...given) => JSON.stringify([...given, s.contextKind(), s.requestId()])); }"
    )
    given = ["httpAction", "dir/é:f", "request", '[{"x":"ü"}]']
    assert guest.invoke(given[1], given[3], given[0], given[2]) == ("done", [*given, "httpAction", "request"])


def test_module_level_code_sees_the_import_context(guest: GuestRunner) -> None:
    assert guest.eval("__skerry.contextKind()") == ("done", "import")


# -- tickets and promises ----------------------------------------------------------------------------------------


def test_tickets_resolve_as_their_completions_come(guest: GuestRunner) -> None:
    with_invoker(
        guest,
        "const order = [], one = async n => order.push(await s.hostcallAsync('later', String(n)));"
        "await Promise.all([0, 1, 2].map(one)); return order;",
    )
    guest.ops["later"] = later(40)
    assert guest.invoke("a:b", kind="action") == ("pending", None)
    assert guest.resume((42, 0, b"two")) == ("pending", None)
    assert guest.resume((40, 0, b"zero"), (41, 0, b"x" * 50_000)) == ("done", ["two", "zero", "x" * 50_000])


def test_a_failed_completion_rejects(guest: GuestRunner) -> None:
    with_invoker(guest, "try { await s.hostcallAsync('later', '0') } catch (e) { return e.code; }")
    guest.ops["later"] = later(1)
    guest.invoke("a:b")
    assert guest.resume((1, 1, b'{"message":"no","code":"Refused"}')) == ("done", "Refused")


@pytest.mark.parametrize(
    "completions",
    [
        b"",
        b"\1\0\0\0",
        b"\xff\xff\xff\xff",
        struct.pack("<IIII", 1, 1, 0, 9) + b"1234",
        struct.pack("<IIII", 1, 99, 0, 1) + b"1",
    ],
)
def test_malformed_completions_fail_the_call(guest: GuestRunner, completions: bytes) -> None:
    with_invoker(guest, "return await s.hostcallAsync('later', '0');")
    guest.ops["later"] = later(1)
    guest.invoke("a:b")
    if completions:
        assert guest.result(guest.call("resume", completions))[0] == "failed"


@pytest.mark.parametrize(
    "request_", [b"x", b"\0" * 15, struct.pack("<IIII", 4, 0, 0, 0), struct.pack("<IIII", 0, 2**32 - 1, 2, 0) + b"a"]
)
def test_malformed_requests_fail_the_call(guest: GuestRunner, request_: bytes) -> None:
    with_invoker(guest, "return 1;")
    assert guest.result(guest.call("invoke", request_))[0] == "failed"


def test_a_promise_that_nothing_settles_fails_the_call(guest: GuestRunner) -> None:
    with_invoker(guest, "await new Promise(() => {});")
    status, error = guest.invoke("a:b")
    assert (status, error["message"]) == ("failed", "The function waits for a promise that nothing can settle")


def test_an_unhandled_rejection_fails_the_call(guest: GuestRunner) -> None:
    with_invoker(guest, "Promise.reject(new TypeError('lost')); return 1;")
    status, error = guest.invoke("a:b")
    assert (status, error["name"], error["message"]) == ("failed", "TypeError", "lost")


def test_a_rejection_that_is_handled_in_time_does_not_fail_the_call(guest: GuestRunner) -> None:
    with_invoker(
        guest,
        "const p = Promise.reject(new Error('kept')); await null; try { await p } catch (e) { return e.message; }",
    )
    assert guest.invoke("a:b") == ("done", "kept")


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thrown",
    [
        "new RangeError('x')",
        "'text'",
        "null",
        "{ message: 'x' }",
        "Object.create(null)",
        "Symbol('s')",
        "new Proxy({}, { get() { throw 1; } })",
    ],
)
def test_whatever_is_thrown_becomes_an_error_object(guest: GuestRunner, thrown: str) -> None:
    with_invoker(guest, f"throw {thrown};")
    status, error = guest.invoke("a:b")
    assert status == "failed" and isinstance(error["message"], str)


def test_the_formatter_of_the_prelude_shapes_the_error(guest: GuestRunner) -> None:
    guest.eval("__skerry.setUncaughtFormatter(e => JSON.stringify({ message: e.message, data: 1 }));")
    with_invoker(guest, "throw new Error('shaped');")
    assert guest.invoke("a:b") == ("failed", {"message": "shaped", "data": 1})


def test_a_broken_formatter_does_not_hide_the_error(guest: GuestRunner) -> None:
    guest.eval("__skerry.setUncaughtFormatter(e => { throw 1; });")
    with_invoker(guest, "throw new Error('seen');")
    assert guest.invoke("a:b")[1]["message"] == "seen"


def test_a_syntax_error_names_its_place(guest: GuestRunner) -> None:
    status, error = guest.eval("let a = ;", "convex/bad.js")
    assert (status, error["name"]) == ("failed", "SyntaxError") and "convex/bad.js:1" in error["stack"]


# -- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "for (;;);",
        "const f = () => Promise.resolve().then(f); f();",
        "/^(a+)+$/.test('a'.repeat(64) + 'b');",
        "/(x+x+)+y/.test('x'.repeat(200));",
        "2n ** 30000000n;",
        "'x'.padEnd(2 ** 26).split('').sort(() => 0);",
    ],
)
def test_endless_work_ends_at_the_deadline(guest: GuestRunner, source: str) -> None:
    timer = guest.interrupt_after(0.1)
    try:
        status, error = guest.eval(source)
        assert status == "failed" and error["name"] in ("InternalError", "RangeError")  # memory was spent first
    except wasmtime.Trap as trap:
        assert "interrupt" in str(trap)
    finally:
        timer.cancel()


COUNTING = """
__skerry.setInvoker(async (kind) => {
  const spin = async () => {
    for (let n = 0; ; n++) {
      for (let i = 0; i < 10000000; i++);
      __skerry.hostcall('count', String(n));
    }
  };
  for (;;) try { await spin(); } catch {} finally { await null; }
});
"""


def test_a_call_that_never_ends_stops_at_the_same_place_every_time(compiled_engine: Compiled) -> None:
    def counted(_: int) -> tuple[Any, list[Any]]:
        guest = GuestRunner(compiled_engine).boot()
        guest.ops["count"] = lambda *_: b"null"
        guest.eval(COUNTING)
        result = guest.invoke("a:b")
        return result, guest.hostcalls

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(counted, range(2))
    assert first == second and first[0][0] == "failed" and len(first[1]) > 10
    error = first[0][1]
    assert (error["name"], error["message"]) == (
        "FunctionTimedOut",
        "Function execution timed out (maximum duration: 5s)",
    )
    assert "spin" in error["stack"]


def test_a_spent_call_ends_whatever_it_has_left_to_run(guest: GuestRunner) -> None:
    guest.eval("""
    __skerry.setInvoker(async () => {
      const spin = async () => { for (;;); };
      for (;;) { try { spin(); } catch { continue; } finally { continue; } }
    });
    """)
    assert guest.invoke("a:b")[1]["name"] == "FunctionTimedOut"


def test_spent_memory_is_an_error_and_the_isolate_lives_on(guest: GuestRunner) -> None:
    assert (
        guest.eval(
            "const all = [];try { for (;;) all.push(new Uint8Array(1 << 20)); } catch (e) { all.length = 0; e.message }"
        )[1]
        == "out of memory"
    )
    assert guest.eval("String(1 + 1)") == ("done", "2")
