"""What may be in the repository at all: no foreign addresses, no large or binary files, scripts that parse."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.source_files import REPOSITORY, repository_files

FILE_BYTES_MAX = 1024 * 1024

# Written in halves so that this file passes its own test. A lock file with addresses in it ties the project to one
# index; for npm, `omit-lockfile-registry-resolved=true` in a folder's .npmrc leaves them out.
FORBIDDEN_TEXT = {
    "registry host": re.compile(
        r"\b(?:py" + r"pi\.(?:org|io)|files\.python" + r"hosted\.org|registry\.(?:npm" + r"js\.org|yarn" + r"pkg\.com)"
        r"|static\.crates\.io|index\.crates\.io|proxy\.golang\.org)\b"
    ),
    "path of one machine": re.compile(r"(?<![\w.])/(?:ho" + r"me|Use" + r"rs|ro" + r"ot|wo" + r"rk)/\w+"),
    "conflict mark": re.compile(r"^(?:<{7}|>{7}) ", re.M),
}
SCRIPTS = ["tools/dev", "tools/test", "tools/skerry", "tools/lib/lock", "tools/lib/env.sh", ".ci/run"]


def forbidden_text(text: str, name: str) -> Iterator[str]:
    for what, pattern in FORBIDDEN_TEXT.items():
        if match := pattern.search(text):
            yield f"{name}:{text.count(chr(10), 0, match.start()) + 1} holds a {what}: {match[0]}"


def test_no_file_names_a_registry_or_a_machine() -> None:
    found: list[str] = []
    for path in repository_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += forbidden_text(text, str(path.relative_to(REPOSITORY)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "bad",
    [
        "https://registry.npm" + "js.org/a",
        "https://files.python" + "hosted.org/x",
        "/ho" + "me/ada/skerry",
        "a\n<<<<<<< HEAD\n",
    ],
)
def test_planted_text_is_found(bad: str) -> None:
    assert list(forbidden_text(bad, "planted"))


def test_ordinary_text_passes() -> None:
    assert not list(forbidden_text("a framework/main file, https://example.com, /tmp/x\n=======\n", "fine"))


def test_no_file_is_large() -> None:
    large = [str(path) for path in repository_files() if path.stat().st_size > FILE_BYTES_MAX]
    assert not large


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_parses_and_is_executable(name: str) -> None:
    path = REPOSITORY / name
    subprocess.run(["sh", "-n", str(path)], check=True)
    assert path.stat().st_mode & 0o111 or name.endswith(".sh")


def test_markdown_links_lead_somewhere() -> None:
    broken: list[str] = []
    for path in repository_files():
        if path.suffix == ".md":
            broken += [f"{path.relative_to(REPOSITORY)} -> {target}" for target in _broken_links(path)]
    assert not broken, "\n".join(broken)


def _broken_links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target and not (path.parent / target).exists():
            yield target
