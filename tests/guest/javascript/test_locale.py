"""Numbers and dates in words: the same as Node's en-US in UTC, without `Intl`."""

# ruff: noqa: E501 - the long lines are JavaScript

import json
import os
import subprocess
from pathlib import Path

import pytest

from skerry.bundle.node import find_node
from tests.guest.javascript.conftest import Guest

PROGRAM = """
const numbers = [0, -0, 1, 999, 1000, 1234567.8915, -1234.5, 1e21, 1.5e-7, 0.0005, 0.0004, 1.0005, 12345.6785, NaN, Infinity, -Infinity, 2 ** 53, 0.1 + 0.2, 999999.9999];
const dates = [0, 43200000, 1e12, 1.7e12, -1, 253402300799000].map((ms) => new Date(ms)).concat(new Date(NaN));
return [
  numbers.map((n) => n.toLocaleString()),
  numbers.map((n) => n.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })),
  numbers.map((n) => n.toLocaleString(undefined, { maximumFractionDigits: 0, useGrouping: false })),
  [0n, -1234n, 12345678901234567890n].map((n) => n.toLocaleString()),
  dates.map((d) => [d.toLocaleString(), d.toLocaleDateString("en-US"), d.toLocaleTimeString("en-US", { timeZone: "UTC" })].map((s) => s.replace("\\u202f", " "))),
]"""


def test_the_same_as_node(guest: Guest, tmp_path: Path) -> None:
    script = tmp_path / "program.mjs"
    script.write_text(f"console.log(JSON.stringify((() => {{{PROGRAM}\n}})()))")
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "en_US.UTF-8"}
    done = subprocess.run(
        [find_node(print).executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    assert guest.query(PROGRAM) == json.loads(done.stdout)


@pytest.mark.parametrize(
    "code",
    [
        "(1).toLocaleString('en-US', { style: 'currency', currency: 'USD' })",
        "new Date(0).toLocaleDateString('en-US', { month: 'long' })",
        "new Date(0).toLocaleString('en-US', { timeZone: 'America/New_York' })",
        "(1).toLocaleString(undefined, { maximumFractionDigits: 101 })",
    ],
)
def test_what_needs_intl_is_an_error(guest: Guest, code: str) -> None:
    assert guest.error("query", code)["name"] == "RangeError"


def test_intl_is_not_there(guest: Guest) -> None:
    assert guest.query("return typeof Intl") == "undefined"
