"""Attacks in C: traps of each kind, buffers and tickets of the ABI, WASI, answers that are none or cost the host."""

from typing import Any

from tests.hostile.case import Case, Outcome
from tests.hostile.cases_script import fails, value
from tests.hostile.ground import Ground

_TRAPPED = "The function's WebAssembly trapped: "
_POINTER = fails("The guest passed a pointer or a length outside its memory.")
_NO_JSON = "Not valid JSON: "


def _call(path: str) -> Any:
    def run(ground: Ground) -> Outcome:
        return ground.call("compiled", "query", f"x:{path}")

    return run


_POINTERS = "guest pointers"
_ABI = "what a guest says"
_ROWS: list[tuple[str, str, str, Outcome]] = [
    ("a remainder by zero", "remainder_by_zero", _ABI, fails(_TRAPPED + "integer divide by zero.")),
    ("a quotient that overflows", "overflows_division", _ABI, fails(_TRAPPED + "integer overflow.")),
    ("a conversion that overflows", "truncates", _ABI, fails(_TRAPPED + "integer overflow.")),
    ("a read outside", "reads_outside", _POINTERS, fails(_TRAPPED + "memory access out of bounds.")),
    ("a write outside", "writes_outside", _POINTERS, fails(_TRAPPED + "memory access out of bounds.")),
    ("a read across the end", "reads_across_end", _POINTERS, fails(_TRAPPED + "memory access out of bounds.")),
    ("a copy across the end", "copies_outside", _POINTERS, fails(_TRAPPED + "memory access out of bounds.")),
    ("a call of nothing", "calls_nothing", _ABI, fails(_TRAPPED + "indirect call to null.")),
    ("a call outside the table", "calls_outside_table", _ABI, fails(_TRAPPED + "table access out of bounds.")),
    ("a call as another type", "calls_as_other_type", _ABI, fails(_TRAPPED + "unreachable code reached.")),
    ("an answer over its argument", "out_over_argument", _POINTERS, value(True)),
    ("an answer over the operation's name", "out_over_name", _POINTERS, value(True)),
    ("an answer at the last byte", "out_at_the_end", _POINTERS, value(True)),
    ("an answer at address zero", "out_over_zero", _POINTERS, value(True)),
    ("what is parked, taken at the last byte", "take_over_itself", _POINTERS, value(True)),
    ("memory grown between call and take", "grow_between", _POINTERS, value(True)),
    ("an operation without a name", "empty_name", _ABI, value(True)),
    ("an operation's name with a zero byte", "name_with_zero", _ABI, value(True)),
    ("raw bytes that nobody takes", "raw_where_none_is_taken", _ABI, value(True)),
    (
        "seven million lists as an argument",
        "argument_wide",
        "time and memory of a call",
        fails("Uncaught Error: The argument of an operation: JSON text holds more than 2000000 values, or 500000 arrays"),
    ),
    ("done with a ticket open", "done_with_ticket_open", _ABI, value("done")),
    ("waiting once more on each resume", "waits_twice", _ABI, value([3, 3])),
    ("a trap on resume", "traps_when_resumed", _ABI, fails(_TRAPPED + "unreachable code reached.")),
    ("completions taken twice", "takes_nothing_when_resumed", _ABI, fails("The guest called take with nothing parked")),
    ("WASI: vectors outside", "wasi_vector_outside", _POINTERS, _POINTER),
    ("WASI: 2^29 vectors", "wasi_vectors_many", _POINTERS, value(28)),
    ("WASI: bytes outside", "wasi_bytes_outside", _POINTERS, _POINTER),
    ("WASI: a length that wraps", "wasi_bytes_wrap", _POINTERS, _POINTER),
    ("WASI: the count outside", "wasi_count_outside", _POINTERS, _POINTER),
    ("WASI: descriptors of nobody's", "wasi_other_descriptors", _ABI, value([8, 8, 0])),
    ("WASI: randomness outside", "wasi_random_outside", _POINTERS, _POINTER),
    ("WASI: randomness for all memory", "wasi_random_giant", _POINTERS, value(28)),
    ("WASI: the clock outside", "wasi_clock_outside", _POINTERS, _POINTER),
    ("WASI: time by work between two looks", "wasi_clock_stands", _ABI, value(True)),
    ("WASI: the environment", "wasi_environment", _ABI, value([0, 0, 0, 0, 0])),
    ("WASI: exit", "wasi_exit", _ABI, fails("The guest left through exit(-1).")),
    ("no answer at all", "returns_nothing", _ABI, fails(_NO_JSON + "Input is a zero-length, empty document")),
    ("a byte order mark", "returns_mark", _ABI, fails(_NO_JSON + "UTF-8 byte order mark (BOM) is not supported")),
    ("two values", "returns_two", _ABI, fails(_NO_JSON + "unexpected content after document")),
    ("a value and a zero byte", "returns_zero_byte", _ABI, fails(_NO_JSON + "unexpected content after document")),
    ("NaN", "returns_nan", _ABI, fails(_NO_JSON + "unexpected character")),
    ("a number past float64", "returns_infinity", _ABI, fails(_NO_JSON + "number is infinity when parsed as double")),
    ("half a surrogate pair", "returns_surrogate", _ABI, fails(_NO_JSON + "no low surrogate in string")),
    ("UTF-8 of too many bytes", "returns_overlong", _ABI, fails(_NO_JSON + "str is not valid UTF-8")),
    ("a comment", "returns_comment", _ABI, fails(_NO_JSON + "unexpected character")),
    ("a special of nobody's", "returns_dollar", _ABI, fails("Field name $what starts with '$', which is reserved")),
    ("a special spelled as an escape", "returns_dollar_escaped", _ABI, fails("$integer must hold exactly 8 bytes, not 1.")),
    ("an $integer of one byte", "returns_integer_short", _ABI, fails("$integer must hold exactly 8 bytes, not 1.")),
    ("a $float that is plain", "returns_float_plain", _ABI, fails("$float must hold -0, NaN or an infinity")),
    ("$bytes that are no base64", "returns_bytes_crooked", _ABI, fails("$bytes does not hold valid base64.")),
    ("$undefined", "returns_undefined", _ABI, fails("undefined is not a valid Convex value.")),
    ("an error that is a list", "throws_list", _ABI, fails("Uncaught Error: \n")),
    ("an error of numbers", "throws_numbers", _ABI, fails("Uncaught \n")),
    ("an error whose data is no value", "throws_dollar", _ABI, fails("The data of the thrown ConvexError is not a value:")),
    ("an error with a host's code", "throws_code", _ABI, fails("Uncaught Error: m\n")),
    ("an error with half a surrogate pair", "throws_surrogate", _ABI, fails("Uncaught Error: half \ufffd pair\n")),
    ("an error whose trace names files", "throws_trace", _ABI, fails("Uncaught Error: m\n")),
    ("an answer that is the last byte", "answer_at_the_end", _POINTERS, value(7)),
    ("an answer past the last byte", "answer_past_the_end", _POINTERS, _POINTER),
    ("nine million lists as an answer", "returns_lists", "time and memory of a call", fails("Function x:returns_lists return value is too large")),
    ("nine million objects as an answer", "returns_objects", "time and memory of a call", fails("Function x:returns_objects return value is too large")),
    ("nine million lists as an error", "throws_lists", "time and memory of a call", fails("Uncaught Error: \n")),
    ("nine million texts as an error", "throws_quotes", "time and memory of a call", fails("Uncaught Error: \n")),
]  # fmt: skip


def _waits_for_ever(ground: Ground) -> Outcome:
    result = ground.sparring("compiled").call("query", "x:waits_for_ever", {})
    return ("code", result.error_code, result.error_message.partition("\n")[2])


CASES = [
    *(Case(f"C: {name}", wall, name, _call(path), want) for name, path, wall, want in _ROWS),
    Case(
        "C: a new ticket for each that is answered",
        "time and memory of a call",
        "waits for ever",
        _waits_for_ever,
        ("code", "FunctionTimedOut", "Function execution timed out (maximum duration: 0.5s)"),
    ),
]
