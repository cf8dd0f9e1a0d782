"""Reading the repository for the tidy tests: which files are ours, and what a Python file imports."""

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PACKAGE = REPOSITORY / "host" / "skerry"
SKIPPED_FOLDERS = {".git", ".venv", ".cache", "node_modules", "build", "dist", "__pycache__"}


def repository_files(root: Path = REPOSITORY) -> list[Path]:
    """Every file that is or would be committed; where git cannot say, every file outside the usual by-products."""
    if (root / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True)
        if listed.returncode == 0:
            names = listed.stdout.decode().split("\0")
            return [root / name for name in names if name and (root / name).is_file()]
    return [path for path in root.rglob("*") if path.is_file() and not SKIPPED_FOLDERS & set(path.parts)]


def package_files(package: Path = PACKAGE) -> list[Path]:
    """The Python files of the host, sorted."""
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path, package: Path = PACKAGE) -> str:
    """The dotted name of a host file: `skerry.storage.interface`."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(tree: ast.Module, importer: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports, wherever in the file the import stands.

    `from a import b` is reported as `a.b`: b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = _absolute_base(node, importer, is_package)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def _absolute_base(node: ast.ImportFrom, importer: str, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    up = node.level - 1 if is_package else node.level
    parts = importer.split(".")
    base = parts[: len(parts) - up]
    return ".".join([*base, node.module] if node.module else base)
