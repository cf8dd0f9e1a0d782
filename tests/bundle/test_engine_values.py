"""The native value conversions against the package's own: equal results, equal errors, equal side effects.

Values and JSON come from a seeded generator that runs inside the engine, so thousands of cases cost one second.
Results are compared through a description that shows what equality must cover: types, prototypes, key order,
property attributes, the bits of numbers, the bytes of buffers.
"""

import re
from pathlib import Path

import pytest

from tests.bundle.packages import convex_package
from tests.bundle.runner import Compiled, GuestRunner

HARNESS = (Path(__file__).parent / "value_fuzz.js").read_text()
CASES_PER_SEED = 2000


def script_of_package(package: Path) -> str:
    """The package's value module as one script that defines `original` and the placeholder class."""
    esm = package / "dist" / "esm"
    base64, common, value = (
        re.sub(r"^import .*?;$|^export (?=function|const|class)|^//# .*$", "", (esm / name).read_text(), flags=re.M)
        for name in ("values/base64.js", "common/index.js", "values/value.js")
    )
    exported = "jsonToConvex, convexToJson, patchValueToJson, convexOrUndefinedToJson, CommitTsPlaceholder"
    return (
        f"const Base64 = (() => {{ {base64}; return {{ toByteArray, fromByteArray }}; }})();"
        f"const isSimpleObject = (() => {{ {common}; return isSimpleObject; }})();"
        f"const original = (() => {{ {value}; return {{ {exported} }}; }})();"
        "const native = __skerry.bindValues(original);"
    )


@pytest.fixture
def bound(compiled_engine: Compiled) -> GuestRunner:
    guest = GuestRunner(compiled_engine).boot()
    assert guest.eval(script_of_package(convex_package()), "value.js") == ("done", "null")
    assert guest.eval(HARNESS, "value_fuzz.js") == ("done", "null")
    return guest


@pytest.mark.parametrize("seed", range(1, 9))
def test_random_values_convert_as_the_package_converts_them(bound: GuestRunner, seed: int) -> None:
    assert bound.eval(f"fuzzValues({seed}, {CASES_PER_SEED})") == ("done", "equal")


@pytest.mark.parametrize("seed", range(1, 9))
def test_random_json_converts_as_the_package_converts_it(bound: GuestRunner, seed: int) -> None:
    assert bound.eval(f"fuzzJson({seed}, {CASES_PER_SEED})") == ("done", "equal")


@pytest.mark.parametrize("seed", range(1, 9))
def test_random_arguments_of_operations_are_what_stringify_makes_of_them(bound: GuestRunner, seed: int) -> None:
    sent: list[bytes] = []

    def echo(argument: str, _: bytes) -> bytes:
        sent.append(argument.encode())
        return b"null"

    bound.ops["echo"] = echo
    bound.ops["last"] = lambda *_: sent[-1]
    in_call = f"__skerry.setInvoker(() => JSON.stringify(fuzzArguments({seed}, {CASES_PER_SEED}))); null"
    assert bound.eval(in_call)[0] == "done"
    assert bound.invoke("a:b") == ("done", "equal")
    assert len(sent) > CASES_PER_SEED / 4


def test_the_cases_by_name_convert_as_the_package_converts_them(bound: GuestRunner) -> None:
    assert bound.eval("namedCases()") == ("done", "equal")


def test_the_harness_sees_a_difference(bound: GuestRunner) -> None:
    status, text = bound.eval("compareCalls('x', () => ({ a: 1, b: 2 }), () => ({ b: 2, a: 1 }))")
    assert status == "done" and text.startswith("x:")


def test_most_random_values_take_the_native_path(bound: GuestRunner) -> None:
    """Guards against a fast path that always gives up, which every other test here would let pass."""
    assert bound.eval("String(shareTakenNatively(1000) > 0.5)") == ("done", "true")
