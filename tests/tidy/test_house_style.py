"""The house style of the host's code: size, docstrings, suppressions, and where time and chance may be asked.

Each rule is a function from source text to violations, so that a planted violation can be shown to it.
"""

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from tests.tidy.source_files import module_name, package_files

FILE_LINES_MAX = 600
FILES_OVER_SOFT_LIMIT_MAX = 0.2
FILE_LINES_SOFT_MAX = 400
FUNCTION_LINES_MAX = 70

# Where the host may ask the machine for the time or for chance. Everywhere else both are parameters.
CLOCK_AND_CHANCE_HOLDERS = ("skerry.cli", "skerry.http.app", "skerry.http.server")
FORBIDDEN_CALLS = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.sleep",
    "datetime.now",
    "datetime.utcnow",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "date.today",
    "datetime.date.today",
    "os.urandom",
    "secrets.token_bytes",
    "secrets.token_hex",
    "secrets.token_urlsafe",
    "secrets.randbits",
    "uuid.uuid1",
    "uuid.uuid4",
}

# A suppression, and what must follow it: the rule in brackets and a reason.
SUPPRESSION = re.compile(r"#\s*(?:type:\s*ignore|pyright:\s*(?:ignore|basic|report)|noqa|pragma)")
REASONED = re.compile(
    r"#\s*(?:type:\s*ignore|pyright:\s*ignore)\[[\w, -]+\]\s*(?:#|--|:)\s*\S.{7,}"
    r"|#\s*noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*\s*(?:#|-+|:)\s*\S.{7,}"
    r"|#\s*pyright:\s*report\w+=\w+\s*(?:#|--|:)\s*\S.{7,}"
    r"|#\s*pragma:\s*[\w ]+(?:#|--)\s*\S.{7,}"
)
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")


TABLES = {"skerry.limits", "skerry.errors"}
"""One row after the other and nothing to follow: they are as long as what they list."""


def file_too_long(source: str, module: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > FILE_LINES_MAX and module not in TABLES:
        yield f"{module} has {lines} lines; {FILE_LINES_MAX} is the most"


def function_too_long(source: str, module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{module}:{node.lineno} {node.name} has {lines} lines; {FUNCTION_LINES_MAX} is the most"


def missing_docstring(source: str, module: str) -> Iterator[str]:
    tree = ast.parse(source)
    text = ast.get_docstring(tree)
    if not text:
        yield f"{module} has no docstring that says what it is"
    elif not re.match(r"[^\n]+(\n[^\n]+)*?[.:]", text):
        yield f"{module}: the docstring's first sentence has no end"


def suppression_without_reason(source: str, module: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), 1):
        if SUPPRESSION.search(line) and not REASONED.search(line):
            yield f"{module}:{number} suppresses a check without its rule and a reason on the line: {line.strip()}"


def unfinished_mark(source: str, module: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{module}:{number} {line.strip()}"


def clock_or_chance(source: str, module: str) -> Iterator[str]:
    if module.startswith(CLOCK_AND_CHANCE_HOLDERS):
        return
    tree = ast.parse(source)
    renamed = _names_imported_from(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            head, _, rest = name.partition(".")
            if head in renamed:
                name = renamed[head] + ("." + rest if rest else "")
            if name in FORBIDDEN_CALLS or name.startswith("random."):
                yield f"{module}:{node.lineno} calls {name}: take a clock or a generator as a parameter"


def _names_imported_from(tree: ast.Module) -> dict[str, str]:
    """Local name -> full dotted name, for `from x import y` and `import x as y`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return names


RULES: list[Callable[[str, str], Iterator[str]]] = [
    file_too_long,
    function_too_long,
    missing_docstring,
    suppression_without_reason,
    unfinished_mark,
    clock_or_chance,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_host_keeps_the_rule(rule: Callable[[str, str], Iterator[str]]) -> None:
    found = [violation for path in package_files() for violation in rule(path.read_text(), module_name(path))]
    assert not found, "\n".join(found)


def test_long_files_are_the_exception() -> None:
    lengths = {module_name(path): path.read_text().count("\n") for path in package_files()}
    long = {name: lines for name, lines in lengths.items() if lines > FILE_LINES_SOFT_MAX}
    assert len(long) <= FILES_OVER_SOFT_LIMIT_MAX * len(lengths), long


LONG_FUNCTION = "def f():\n" + "    a = 1\n" * FUNCTION_LINES_MAX
LONGEST_FUNCTION = "def f():\n" + "    a = 1\n" * (FUNCTION_LINES_MAX - 1)


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (file_too_long, "\n" * (FILE_LINES_MAX + 1), "\n" * FILE_LINES_MAX),
        (function_too_long, LONG_FUNCTION, LONGEST_FUNCTION),
        (missing_docstring, "a = 1\n", '"""What it is."""\n'),
        (missing_docstring, '"""What it is"""\n', '"""What it is, in a sentence\nof two lines."""\n'),
        (
            suppression_without_reason,
            "a = b  # type: ignore\n",
            "a = b  # type: ignore[attr-defined]  # the stub lags behind\n",
        ),
        (suppression_without_reason, "a = b  # noqa: E501\n", "a = b  # noqa: E501 - an address cannot be wrapped\n"),
        (
            suppression_without_reason,
            "a = b  # pyright: ignore[reportPrivateUsage]\n",
            "a = b  # pyright: ignore[reportPrivateUsage]  # raw bindings are the fast path\n",
        ),
        (unfinished_mark, "# TO" + "DO: later\n", "# to do this is fine\n"),
        (clock_or_chance, "import time\nnow = time.time()\n", "import time\ndef f(clock=time.time):\n    clock()\n"),
        (clock_or_chance, "from time import time as t\nx = t()\n", "def f(t):\n    t()\n"),
        (clock_or_chance, "from datetime import datetime\nx = datetime.now()\n", "x = datetime_now()\n"),
        (clock_or_chance, "import random as r\nx = r.random()\n", "def f(random_bytes):\n    random_bytes(8)\n"),
        (clock_or_chance, "import os\nx = os.urandom(16)\n", "import os\nx = os.getpid()\n"),
    ],
)
def test_a_planted_violation_is_found(rule: Callable[[str, str], Iterator[str]], bad: str, good: str) -> None:
    assert list(rule(bad, "skerry.value.planted"))
    assert not list(rule(good, "skerry.value.planted"))
