"""Writes docs/errors.md and docs/limits.md from the modules that define them.

Run it after a change to host/skerry/errors.py or host/skerry/limits.py:  python3 tools/lib/gen_docs.py
A test compares the pages with what this would write. With `--check` it writes nothing and fails if a page is stale.
"""

import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = ROOT / "host"
MARK = "<!-- Written by tools/lib/gen_docs.py: change the module, not this page. -->"
KIB = 1024

FAMILIES = {
    "developer": "caused by a deployment's own code or by its limits. Inside a function it is an exception that the "
    "code may catch; outside it is the call's failure.",
    "client": "a request that cannot be served as it stands.",
    "system": "a fault of the server or of what it stands on; the server's log has the request id and the trace.",
}


def main() -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"stale: {path.relative_to(ROOT)}")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def pages() -> dict[Path, str]:
    """Path -> text of every generated page."""
    if str(HOST) not in sys.path:
        sys.path.insert(0, str(HOST))
    return {ROOT / "docs" / "errors.md": errors_page(), ROOT / "docs" / "limits.md": limits_page()}


# -- errors ------------------------------------------------------------------------------------------------------


def errors_page() -> str:
    table = importlib.import_module("skerry.errors").ERRORS
    lines = [
        "# Errors",
        "",
        MARK,
        "",
        "Every error that leaves the server has one of these codes. Codes are stable: programs may compare them; the",
        'sentences may become better. A function\'s own failure travels as HTTP 200 with `status: "error"`, the rest',
        "with the status of its row.",
    ]
    for family, meaning in FAMILIES.items():
        rows = sorted((code, spec) for code, spec in table.items() if spec.family.value == family)
        lines += ["", f"## {family.capitalize()} errors", "", f"A *{family}* error is {meaning}", ""]
        lines += ["| code | HTTP status | what to do |", "|---|---|---|"]
        lines += [f"| `{code}` | {spec.http_status} | {_cell(spec.advice)} |" for code, spec in rows]
    return "\n".join(lines) + "\n"


# -- limits ------------------------------------------------------------------------------------------------------


def limits_page() -> str:
    module = importlib.import_module("skerry.limits")
    lines = [
        "# Limits",
        "",
        MARK,
        "",
        "Every bound of the server, under the name it has in `host/skerry/limits.py`, with its unit in the name. What",
        "reaches a bound is still served; one more is refused with an error from [errors.md](errors.md).",
    ]
    constant = re.compile(r"(?!(?:KIB|MIB|GIB) )([A-Z][A-Z0-9_]*)(?:: [^=]+)? = [^#]+(?:# (.*))?$")
    for line in (HOST / "skerry" / "limits.py").read_text().splitlines():
        if section := re.match(r"# -- (.+?) -*$", line):
            title = re.sub(r"\s*\(protocol reference [^)]*\)", "", section[1])
            lines += ["", f"## {title[0].upper()}{title[1:]}", "", "| bound | value | note |", "|---|---|---|"]
        elif bound := constant.match(line):
            amount = _amount(bound[1], getattr(module, bound[1]))
            lines.append(f"| `{bound[1]}` | {amount} | {_cell(bound[2] or '')} |")
    return "\n".join(lines) + "\n"


def _amount(name: str, value: object) -> str:
    if not isinstance(value, int | float):
        return f"`{value}`"
    if "BYTES" in name:
        for unit, size in (("TiB", KIB**4), ("GiB", KIB**3), ("MiB", KIB**2), ("KiB", KIB)):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
    return f"{value:,}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


if __name__ == "__main__":
    sys.exit(main())
