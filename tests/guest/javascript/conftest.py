"""The JavaScript guest as functions find it: the engine, the prelude and a test app, on the small host of tests/bundle.

The app has one function of each kind, `t:query`, `t:mutation`, `t:action`, `t:internal`; each runs the code that its
argument carries, as the body of an async function, and answers with what that returns. Code that must run while modules
are imported is evaluated by the fixture `importing`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from skerry.bundle.engine_build import engine_wasm
from skerry.bundle.image import Script, build_image
from skerry.bundle.prelude import prelude_script
from skerry.errors import DeveloperError
from skerry.functions.crypto_ops import CRYPTO_OPERATIONS, run_crypto
from tests.bundle.runner import Compiled, GuestRunner, Refused

# A function as the convex/server package makes it: a function object with marks.
APP = """
globalThis.skerryTestApp = () => {
  const make = (marks) => {
    const invoke = async (argsJson) => {
      const [{ code }] = JSON.parse(argsJson);
      const value = await (0, eval)(`(async () => {${code}\\n})`)();
      return JSON.stringify(value === undefined ? null : value);
    };
    return Object.assign(() => {}, marks, {
      exportArgs: () => '{"type":"any"}',
      exportReturns: () => "null",
      invokeQuery: invoke,
      invokeMutation: invoke,
      invokeAction: (requestId, argsJson) => invoke(argsJson),
    });
  };
  skerryRegister({
    t: {
      query: make({ isQuery: true, isPublic: true }),
      mutation: make({ isMutation: true, isPublic: true }),
      action: make({ isAction: true, isPublic: true }),
      internal: make({ isQuery: true, isInternal: true }),
      plain: () => 1,
      notAFunction: { isQuery: true },
    },
  });
};
skerryTestApp();
delete globalThis.skerryTestApp;
"""

KIND_FUNCTIONS = {"query": "t:query", "mutation": "t:mutation", "action": "t:action"}


class GuestError(Exception):
    """What a function threw. Shape: `error` is the error object of the guest ABI."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('name')}: {error.get('message')}\n{error.get('stack', '')}")
        self.error = error


class Operations(dict[str, Callable[[str, bytes], bytes]]):
    """The hostcalls of these tests; any other is refused with the protocol's text."""

    def get(self, op: str, default: Any = None) -> Callable[[str, bytes], bytes]:  # type: ignore[override]
        found = super().get(op)
        return found if found is not None else self._unknown(op)

    @staticmethod
    def _unknown(op: str) -> Callable[[str, bytes], bytes]:
        def refuse(_argument: str, _raw: bytes) -> bytes:
            raise Refused(f"Unknown operation {op}", "UnknownOperation")

        return refuse


class Guest:
    """A fresh instance per call, as the host has it. Shape: `env` is the deployment's environment, `logs` its lines."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.env: dict[str, str] = {}
        self.logs: list[str] = []
        self.clock_reads = 0
        self.ops: list[str] = []

    def run(self, kind: str, code: str) -> Any:
        """The value that `code` returns in a call of this kind. Raises: GuestError."""
        runner = self._instance(kind)
        status, value = runner.invoke(KIND_FUNCTIONS[kind], json.dumps([{"code": code}]), kind)
        self.clock_reads = runner.clock_reads
        self.ops = [op for op, _, _ in runner.hostcalls]
        assert status != "pending", "the code waits for something that never comes"
        if status == "failed":
            raise GuestError(value)
        return value

    def query(self, code: str) -> Any:
        return self.run("query", code)

    def error(self, kind: str, code: str) -> dict[str, Any]:
        """The error object of what `code` throws."""
        with pytest.raises(GuestError) as caught:
            self.run(kind, code)
        return caught.value.error

    def call(self, kind: str, name: str, arguments: str) -> tuple[str, Any]:
        return self._instance(kind).invoke(name, arguments, kind)

    def describe(self) -> Any:
        runner = self._instance("query")
        status, value = runner.result(runner.call("describe", None))
        assert status == "done", value
        return value

    def _instance(self, kind: str) -> GuestRunner:
        runner = GuestRunner(self.compiled)
        operations: Mapping[str, Callable[[str, bytes], bytes]] = {
            "log": self._log,
            "env/get": lambda argument, _raw: json.dumps(self.env.get(json.loads(argument)["name"])).encode(),
            "entropy": runner.ops["entropy"],
            **{op: self._crypto(op, kind, runner) for op in CRYPTO_OPERATIONS},
        }
        runner.ops = Operations(operations)
        return runner

    def _log(self, argument: str, _raw: bytes) -> bytes:
        line = json.loads(argument)
        self.logs.append(f"[{line['level']}] {line['message']}")
        return b"null"

    @staticmethod
    def _crypto(op: str, kind: str, runner: GuestRunner) -> Callable[[str, bytes], bytes]:
        deterministic = kind in ("query", "mutation")

        def entropy(length: int) -> bytes:
            return runner.ops["entropy"](json.dumps({"length": length}), b"")

        def run(argument: str, raw: bytes) -> bytes:
            try:
                answer = run_crypto(op, json.loads(argument), raw, deterministic=deterministic, entropy=entropy)
            except DeveloperError as error:
                raise Refused(error.message, error.code) from None
            return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

        return run


@pytest.fixture(scope="session")
def compiled_prelude() -> Compiled:
    """The engine with the prelude and the test app, frozen into an image."""
    scripts = [Script("prelude.js", prelude_script(print)), Script("app.js", APP.encode())]
    return Compiled(build_image(engine_wasm(), scripts, GuestRunner))


@pytest.fixture
def guest(compiled_prelude: Compiled) -> Guest:
    return Guest(compiled_prelude)


@pytest.fixture
def importing() -> GuestRunner:
    """An engine in the state in which an app's modules are imported: with the prelude, before any call."""
    runner = GuestRunner(engine_wasm())
    runner.ops = Operations(runner.ops)
    runner.boot()
    status, value = runner.eval(prelude_script(print).decode(), "prelude.js")
    assert status == "done", value
    return runner
