from pathlib import Path

import pytest

from skerry.bundle.sources import find_sources, uses_node_runtime
from skerry.errors import ClientError
from skerry.limits import (
    APP_ENTRY_MODULES_MAX,
    CONVEX_JSON_BYTES_MAX,
    MODULE_PATH_COMPONENT_CHARS_MAX,
    SOURCE_FILE_BYTES_MAX,
)
from tests.bundle.apps import write_app


def names(root: Path) -> list[str]:
    return [entry.name for entry in find_sources(root).entries]


def refusal(root: Path) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        find_sources(root)
    return caught.value.code, caught.value.message


def test_modules_are_the_code_files_of_the_functions_folder(tmp_path: Path) -> None:
    kept = [
        "a.ts",
        "b.tsx",
        "c.js",
        "d.jsx",
        "e.mjs",
        "sub/deep/f.ts",
        "schema.ts",
        "auth.config.ts",
        "convex.config.ts",
    ]
    left = [
        "_generated/api.js", "a.test.ts", "sub/auth.config.ts", ".hidden.ts", "#emacs.ts", "with space.ts",
        "README.md",
        "types.d.ts", "tsconfig.json", ".git/x.ts", "node_modules/p/index.js", "component/convex.config.ts",
        "component/g.ts",
        "component/inside/h.ts",
    ]  # fmt: skip
    write_app(tmp_path, {f"convex/{name}": "" for name in kept + left})
    assert names(tmp_path) == ["a", "auth.config", "b", "c", "convex.config", "d", "e", "schema", "sub/deep/f"]


def test_generated_is_skipped_at_the_top_only(tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/sub/_generated/a.ts": ""})
    assert names(tmp_path) == ["sub/_generated/a"]


def test_convex_json_names_the_functions_folder(tmp_path: Path) -> None:
    write_app(tmp_path, {"convex.json": '{"functions": "src/backend/"}', "src/backend/a.ts": "", "convex/b.ts": ""})
    found = find_sources(tmp_path)
    assert found.functions_folder == "src/backend"
    assert [(entry.name, entry.path) for entry in found.entries] == [("a", "src/backend/a.ts")]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"functions": 1}',
        '{"functions": ""}',
        '{"functions": "../x"}',
        '{"functions": "/x"}',
        '{"functions": "a/../.."}',
        '{"functions": "."}',
    ],
)
def test_a_convex_json_that_names_no_folder_inside_is_refused(tmp_path: Path, text: str) -> None:
    write_app(tmp_path, {"convex.json": text, "convex/a.ts": ""})
    assert refusal(tmp_path)[0] == "AppInvalid"


def test_convex_json_at_its_size_limit(tmp_path: Path) -> None:
    write_app(tmp_path, {"convex.json": "{}".ljust(CONVEX_JSON_BYTES_MAX), "convex/a.ts": ""})
    assert names(tmp_path) == ["a"]
    write_app(tmp_path, {"convex.json": "{}".ljust(CONVEX_JSON_BYTES_MAX + 1)})
    assert refusal(tmp_path)[0] == "AppInvalid"


def test_a_folder_without_functions_says_what_to_make(tmp_path: Path) -> None:
    code, message = refusal(tmp_path)
    assert code == "AppInvalid"
    assert "convex/" in message and "convex.json" in message
    assert refusal(tmp_path / "nothing")[0] == "AppInvalid"


@pytest.mark.parametrize("name", ["a-b.ts", "é.ts", "__.ts", "_deps/a.ts", "_system/a.ts", "a$.ts"])
def test_paths_that_could_not_be_called_are_refused(tmp_path: Path, name: str) -> None:
    write_app(tmp_path, {f"convex/{name}": ""})
    code, message = refusal(tmp_path)
    assert code == "AppInvalid" and name in message


def test_a_path_component_at_its_limit(tmp_path: Path) -> None:
    write_app(tmp_path, {f"convex/{'a' * MODULE_PATH_COMPONENT_CHARS_MAX}.ts": ""})
    assert len(names(tmp_path)) == 1
    write_app(tmp_path, {f"convex/{'b' * (MODULE_PATH_COMPONENT_CHARS_MAX + 1)}.ts": ""})
    assert refusal(tmp_path)[0] == "AppInvalid"


def test_two_files_for_one_module_are_refused(tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/a.ts": "", "convex/a.js": ""})
    code, message = refusal(tmp_path)
    assert code == "AppInvalid" and "a.js" in message and "a.ts" in message


def test_the_number_of_modules_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert APP_ENTRY_MODULES_MAX >= 1000
    monkeypatch.setattr("skerry.bundle.sources.APP_ENTRY_MODULES_MAX", 3)
    write_app(tmp_path, {f"convex/m{n}.ts": "" for n in range(3)})
    assert len(names(tmp_path)) == 3
    write_app(tmp_path, {"convex/m3.ts": ""})
    assert refusal(tmp_path)[0] == "AppInvalid"


def test_a_source_file_at_its_size_limit(tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/a.ts": " " * SOURCE_FILE_BYTES_MAX})
    assert names(tmp_path) == ["a"]
    write_app(tmp_path, {"convex/a.ts": " " * (SOURCE_FILE_BYTES_MAX + 1)})
    assert refusal(tmp_path)[0] == "AppInvalid"


@pytest.mark.parametrize(
    "text",
    ['"use node";', "'use node'", '// why\n/* and */ "use strict"; "use node"', '\ufeff"use node"\nimport x from "y"'],
)
def test_modules_for_the_node_runtime_are_left_out_and_named(tmp_path: Path, text: str) -> None:
    write_app(tmp_path, {"convex/a.ts": text, "convex/b.ts": ""})
    found = find_sources(tmp_path)
    assert [entry.name for entry in found.entries] == ["b"]
    assert found.node_modules == ("a",)


@pytest.mark.parametrize("name", ["schema", "http", "crons", "auth.config"])
def test_what_describes_the_app_cannot_ask_for_node(tmp_path: Path, name: str) -> None:
    write_app(tmp_path, {f"convex/{name}.ts": '"use node";'})
    code, message = refusal(tmp_path)
    assert code == "AppInvalid" and name in message and "use node" in message


@pytest.mark.parametrize(
    "text", ['import "x"; "use node"', '// "use node"', 'const a = "use node"', '("use node")', ""]
)
def test_the_words_elsewhere_are_no_directive(text: str) -> None:
    assert not uses_node_runtime(text)
