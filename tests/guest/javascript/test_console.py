"""Log lines as the protocol reference has them (4.9)."""

# ruff: noqa: E501 - the long lines are JavaScript

import pytest

from tests.guest.javascript.conftest import Guest

LINES = {
    "'myString'": "'myString'",
    "42": "42",
    "-0": "-0",
    "undefined": "undefined",
    "null": "null",
    "10n": "10n",
    "['string', 42]": "[ 'string', 42 ]",
    "{ property: 'value', nested_object: {} }": "{\n  property: 'value',\n  nested_object: {}\n}",
    "new (class MyClass {})()": "MyClass {}",
    "function myFunction() {}": "[Function: myFunction]",
    "'it\\'s'": "'it\\'s'",
    "1, 'a', [true]": "1 'a' [ true ]",
    "": "",
}


@pytest.mark.parametrize("arguments", LINES)
def test_formatting(guest: Guest, arguments: str) -> None:
    guest.query(f"console.log({arguments})")
    assert guest.logs == [f"[LOG] {LINES[arguments]}"]


def test_levels(guest: Guest) -> None:
    guest.query("for (const level of ['debug', 'log', 'info', 'warn', 'error']) console[level](1)")
    assert guest.logs == ["[DEBUG] 1", "[LOG] 1", "[INFO] 1", "[WARN] 1", "[ERROR] 1"]


def test_timers(guest: Guest) -> None:
    guest.query(
        "console.time('x'); console.time('x'); console.timeLog('x', 'at', 1); console.timeEnd('x'); console.timeEnd('x')"
    )
    assert guest.logs == [
        "[WARN] Timer 'x' already exists",
        "[INFO] x: 0ms 'at' 1",
        "[INFO] x: 0ms",
        "[WARN] Timer 'x' does not exist",
    ]


def test_trace_has_the_callers_stack(guest: Guest) -> None:
    guest.query("function caller() { console.trace('here') }\ncaller()")
    (line,) = guest.logs
    assert line.startswith("[LOG] 'here'\n    at caller")


def test_a_giant_line_is_cut_in_the_guest(guest: Guest) -> None:
    guest.query("console.log('x'.repeat(1e6), new Array(1000).fill('y'.repeat(1000)))")
    assert 4096 < len(guest.logs[0]) < 10_000


def test_console_methods_work_detached(guest: Guest) -> None:
    guest.query("const { log } = console; [1].forEach((n) => log(n))")
    assert guest.logs == ["[LOG] 1"]
