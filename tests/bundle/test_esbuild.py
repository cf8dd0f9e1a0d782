import json
import shutil
from pathlib import Path

import pytest

from skerry.bundle import esbuild
from skerry.bundle.esbuild import Bundler, CompileError, Diagnostic, Script
from skerry.bundle.sources import find_sources
from skerry.errors import SystemFault
from skerry.limits import DIAGNOSTICS_SHOWN_MAX, SOURCE_LINE_CHARS_MAX
from tests.bundle.apps import write_app

PACKAGE = {
    "node_modules/left/package.json": '{"name": "left", "exports": {"convex": "./c.js", "default": "./d.js"}}',
    "node_modules/left/c.js": "export const which = 'convex condition';",
    "node_modules/left/d.js": "export const which = 'default condition';",
    "node_modules/common/index.js": "exports.kind = process.env.NODE_ENV;\n//# sourceMappingURL=index.js.map\n",
}


def bundle(bundler: Bundler, root: Path) -> Script:
    return bundler.bundle(find_sources(root))


def refusal(bundler: Bundler, root: Path) -> CompileError:
    with pytest.raises(CompileError) as caught:
        bundle(bundler, root)
    return caught.value


def test_modules_are_registered_under_their_names(bundler: Bundler, tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/a.ts": "export const x: number = 1;", "convex/b/c.ts": "export default 2;"})
    script = bundle(bundler, tmp_path)
    assert 'skerryRegister({ a: a_exports, "b/c": c_exports }, [])' in script.text
    assert script.text.startswith("(() => {")
    assert list(script.sources) == ["app/convex/a.ts", "app/convex/b/c.ts"]


def test_packages_are_bundled_with_convexs_conditions(bundler: Bundler, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        {
            **PACKAGE,
            "convex/a.ts": "import { which } from 'left'; import c from 'common'; export const x = [which, c.kind];",
        },
    )
    script = bundle(bundler, tmp_path)
    assert "convex condition" in script.text and "default condition" not in script.text
    assert '"production"' in script.text and "process.env" not in script.text
    assert "app/node_modules/left/package.json" in script.sources
    assert script.resolutions == {
        "app/convex/a.ts import-statement common": "app/node_modules/common/index.js",
        "app/convex/a.ts import-statement left": "app/node_modules/left/c.js",
    }


def test_the_script_does_not_depend_on_where_the_app_lies(bundler: Bundler, tmp_path: Path) -> None:
    files = {
        **PACKAGE,
        "convex/a.ts": "import { query } from './lib/server'; import c from 'common';\n"
        "export const f = query(() => c.kind);",
        "convex/lib/server.ts": "export { queryGeneric as query } from 'convex/server';",
        "convex/tsconfig.json": '{"extends": "../tsconfig.json"}',
        "tsconfig.json": '{"compilerOptions": {"strict": true}}',
    }
    near = bundle(bundler, write_app(tmp_path / "near", files))
    far = bundle(bundler, write_app(tmp_path / "much" / "further" / "away", files))
    assert near == far
    assert str(tmp_path) not in near.text + near.source_map + json.dumps(dict(near.resolutions))
    assert "app/tsconfig.json" in near.sources and "app/convex/tsconfig.json" in near.sources
    assert {name.partition("/")[0] for name in near.sources} == {"app", "tools"}


def test_files_beside_the_app_are_bundled_with_it(bundler: Bundler, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        {"shared/x.ts": "export const shared = 1;", "app/convex/a.ts": "export { shared } from '../../shared/x';"},
    )
    script = bundle(bundler, tmp_path / "app")
    assert "up1/shared/x.ts" in script.sources


def test_source_map_names_the_sources(bundler: Bundler, tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/a.ts": "export function f(): string { throw new Error('x'); }"})
    parsed = json.loads(bundle(bundler, tmp_path).source_map)
    assert parsed["sources"][0] == "app/convex/a.ts" and "sourcesContent" not in parsed


def test_names_are_kept(bundler: Bundler, tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/a.ts": "export const same = () => 1;", "convex/b.ts": "export const same = () => 2;"})
    assert bundle(bundler, tmp_path).text.count('"same"') == 2


def test_async_hooks_is_the_runtimes_own(bundler: Bundler, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        {"convex/a.ts": "import { AsyncLocalStorage as S } from 'node:async_hooks'; export const s = new S();"},
    )
    assert "globalThis.AsyncLocalStorage" in bundle(bundler, tmp_path).text


def test_jsx_is_automatic(bundler: Bundler, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        {
            "convex/a.tsx": "export const x = <b>hello</b>;",
            "node_modules/react/package.json": '{"exports": {"./jsx-runtime": "./jsx.js"}}',
            "node_modules/react/jsx.js": "export const jsx = (type, props) => [type, props];",
        },
    )
    assert 'jsx("b", { children: "hello" })' in bundle(bundler, tmp_path).text


def test_compile_errors_say_where(bundler: Bundler, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        {
            "convex/a.ts": "const ok = 1;\nexport const x = = 2;\n",
            "convex/b.ts": "import y from 'nowhere';\nexport default y;",
        },
    )
    error = refusal(bundler, tmp_path)
    assert error.code == "CompileFailed"
    first, second = sorted(error.diagnostics, key=lambda diagnostic: diagnostic.file or "")
    assert (first.file, first.line, first.column, first.source_line) == ("convex/a.ts", 2, 17, "export const x = = 2;")
    assert first.text == 'Unexpected "="'
    assert first.render().split("\n") == [
        'convex/a.ts:2:18: Unexpected "="',
        "    export const x = = 2;",
        "    " + " " * 17 + "^",
    ]
    assert second.file == "convex/b.ts" and "nowhere" in second.text
    assert error.data[0].keys() == {"text", "file", "line", "column", "sourceLine", "notes"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("await Promise.resolve(); export {};", "Top-level await"),
        ("import fs from 'fs'; export default fs;", 'Could not resolve "fs"'),
        ("import w from './w.wasm'; export default w;", "WebAssembly files cannot be imported"),
    ],
)
def test_what_an_app_cannot_hold(bundler: Bundler, tmp_path: Path, text: str, said: str) -> None:
    write_app(tmp_path, {"convex/a.ts": text, "convex/w.wasm": "x"})
    assert said in refusal(bundler, tmp_path).message


def test_diagnostics_at_their_limit() -> None:
    def shown(count: int) -> list[str]:
        return CompileError(tuple(Diagnostic(f"wrong {n}") for n in range(count))).message.split("\n")

    assert len(shown(DIAGNOSTICS_SHOWN_MAX)) == DIAGNOSTICS_SHOWN_MAX
    assert shown(DIAGNOSTICS_SHOWN_MAX + 1)[DIAGNOSTICS_SHOWN_MAX:] == ["... and 1 more"]


def test_a_source_line_at_its_limit() -> None:
    assert Diagnostic("wrong", "a.ts", 1, 0, "x" * SOURCE_LINE_CHARS_MAX).render().count("\n") == 2
    assert Diagnostic("wrong", "a.ts", 1, 0, "x" * (SOURCE_LINE_CHARS_MAX + 1)).render().count("\n") == 0


def test_an_answer_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bundle_within(size: int) -> Script:
        monkeypatch.setattr(esbuild, "BUNDLER_ANSWER_BYTES_MAX", size)
        with Bundler(lambda _: None) as own:
            return bundle(own, tmp_path)

    write_app(tmp_path, {"convex/a.ts": "export const x = 1;"})
    with Bundler(lambda _: None) as own:
        answered: list[bytes] = []
        read_line = own._read_line  # pyright: ignore[reportPrivateUsage] - to learn the size of the answer
        monkeypatch.setattr(own, "_read_line", lambda process: answered.append(read_line(process)) or answered[0])
        whole = bundle(own, tmp_path)
    assert bundle_within(len(answered[0])) == whole
    with pytest.raises(SystemFault, match="too large") as caught:
        bundle_within(len(answered[0]) - 1)
    assert caught.value.code == "BundlerFailed"


def test_a_bundler_goes_on_after_errors_and_sees_every_edit(bundler: Bundler, tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/a.ts": "export const x = ;"})
    refusal(bundler, tmp_path)
    write_app(tmp_path, {"convex/a.ts": "export const x = 'first';"})
    assert "first" in bundle(bundler, tmp_path).text
    write_app(tmp_path, {"convex/a.ts": "export const x = 'other';", "convex/new.ts": "export const y = 'more';"})
    edited = bundle(bundler, tmp_path)
    assert "first" not in edited.text and "other" in edited.text and "more" in edited.text
    (tmp_path / "convex" / "new.ts").unlink()
    assert "more" not in bundle(bundler, tmp_path).text


def test_a_bundler_whose_process_ended_starts_another(tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/a.ts": "export const x = 1;"})
    with Bundler(lambda _: None) as own:
        before = bundle(own, tmp_path)
        process = own._process  # pyright: ignore[reportPrivateUsage] - the process to end
        assert process is not None
        process.kill()
        process.wait()
        assert bundle(own, tmp_path) == before
    assert own._process is None  # pyright: ignore[reportPrivateUsage] - closed with the bundler


def test_the_app_is_bundled_the_same_from_what_was_recorded(bundler: Bundler, tmp_path: Path) -> None:
    """A linked package resolves outside node_modules; the record leads back to it without the link."""
    write_app(
        tmp_path,
        {"store/left/index.js": "export const which = 'linked';", "app/convex/a.ts": "export { which } from 'left';"},
    )
    (tmp_path / "app" / "node_modules").mkdir()
    (tmp_path / "app" / "node_modules" / "left").symlink_to("../../store/left", target_is_directory=True)
    sources = find_sources(tmp_path / "app")
    script = bundler.bundle(sources)
    assert script.resolutions == {"app/convex/a.ts import-statement left": "up1/store/left/index.js"}
    shutil.rmtree(tmp_path / "app" / "node_modules")
    assert bundler.bundle(sources, resolutions=script.resolutions) == script
