"""Walks the table of globals (protocol reference 4.12): what is there, what is not, and what each context refuses."""

# ruff: noqa: E501 - the long lines are JavaScript

import pytest

from tests.bundle.runner import GuestRunner
from tests.guest.javascript.conftest import Guest

PRESENT = [
    "console",
    "URL",
    "URLSearchParams",
    "TextEncoder",
    "TextDecoder",
    "TextEncoderStream",
    "TextDecoderStream",
    "atob",
    "btoa",
    "structuredClone",
    "Blob",
    "File",
    "FormData",
    "Headers",
    "Request",
    "Response",
    "ReadableStream",
    "ReadableStreamDefaultReader",
    "ReadableStreamBYOBReader",
    "WritableStream",
    "WritableStreamDefaultWriter",
    "TransformStream",
    "Event",
    "EventTarget",
    "AbortController",
    "AbortSignal",
    "DOMException",
    "Crypto",
    "SubtleCrypto",
    "CryptoKey",
    "crypto",
    "Performance",
    "performance",
    "setTimeout",
    "clearTimeout",
    "setInterval",
    "clearInterval",
    "fetch",
    "process",
    "self",
    "AsyncLocalStorage",
    "AsyncResource",
    "WeakRef",
    "FinalizationRegistry",
    "Convex",
]
ABSENT = [
    "Buffer",
    "require",
    "window",
    "navigator",
    "CustomEvent",
    "ByteLengthQueuingStrategy",
    "CountQueuingStrategy",
    "XMLHttpRequest",
    "WebSocket",
    "localStorage",
    "setImmediate",
    "__skerry",
]
KINDS = ("query", "mutation", "action")

ADVICE = "Please consider using an action. See https://docs.convex.dev/functions/actions for more details."
REFUSED = {
    "await fetch('https://example.com')": f"Can't use fetch() in queries and mutations. {ADVICE}",
    "setTimeout(() => {}, 0)": f"Can't use setTimeout() in queries and mutations. {ADVICE}",
    "setInterval(() => {}, 1)": f"Can't use setInterval() in queries and mutations. {ADVICE}",
    "Convex.jsSyscall('storage/storeBlob', {})": f"Can't use storage.store() in queries and mutations. {ADVICE}",
    "crypto.randomUUID()": f"Can't use cryptographic randomness in queries and mutations. {ADVICE}",
    "crypto.getRandomValues(new Uint8Array(1))": f"Can't use cryptographic randomness in queries and mutations. {ADVICE}",
    "await crypto.subtle.generateKey({name:'AES-GCM',length:128}, true, ['encrypt'])": (
        f"Can't use cryptographic randomness in queries and mutations. {ADVICE}"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_globals_present_and_absent(guest: Guest, kind: str) -> None:
    code = f"return {[*PRESENT, *ABSENT]!r}.map((name) => [name, typeof globalThis[name] !== 'undefined'])"
    found = dict(guest.run(kind, code))
    assert [name for name in PRESENT if not found[name]] == []
    assert [name for name in ABSENT if found[name]] == []


def test_no_global_is_enumerable(guest: Guest) -> None:
    assert guest.query("return Object.keys(globalThis)") == []


def test_every_name_is_the_name_of_what_it_holds(guest: Guest) -> None:
    code = f"""return {PRESENT!r}.filter((name) => typeof globalThis[name] === 'function' && globalThis[name].name !== name)"""
    assert guest.query(code) == []


@pytest.mark.parametrize("kind", ("query", "mutation"))
@pytest.mark.parametrize("code", REFUSED)
def test_refused_in_queries_and_mutations(guest: Guest, kind: str, code: str) -> None:
    assert guest.error(kind, code)["message"] == REFUSED[code]


def test_randomness_in_actions(guest: Guest) -> None:
    uuid = guest.run("action", "return crypto.randomUUID()")
    assert uuid[14] == "4" and uuid[19] in "89ab" and len(uuid) == 36
    code = "const a = new Uint32Array(4); return [crypto.getRandomValues(a) === a, a.some((n) => n !== 0)]"
    assert guest.run("action", code) == [True, True]
    assert guest.error("action", "crypto.getRandomValues(new Float32Array(1))")["name"] == "TypeMismatchError"
    assert guest.run("action", "return crypto.getRandomValues(new Uint8Array(65536)).length") == 65536
    assert guest.error("action", "crypto.getRandomValues(new Uint8Array(65537))")["name"] == "QuotaExceededError"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("Convex.syscall('1.0/queryStream', '{}')", "Can't use database at import time"),
        ("Convex.syscall('1.0/db/normalizeId', '{}')", "Can't use database at import time"),
        ("setTimeout(() => {}, 1)", "not supported at import time"),
        ("crypto.randomUUID()", "not supported at import time"),
    ],
)
def test_refused_at_import(importing: GuestRunner, code: str, message: str) -> None:
    status, error = importing.eval(code)
    assert status == "failed"
    assert message in error["message"]


def test_asynchronous_refusals_at_import_are_rejections(importing: GuestRunner) -> None:
    source = "Promise.all([Convex.asyncSyscall('1.0/get', '{}'), fetch('x')].map((p) => p.catch((e) => e.message))).then(String)"
    status, text = importing.eval(source)
    assert status == "done"
    assert text.startswith("Can't use database at import time,") and "not supported at import time" in text


def test_process_env(guest: Guest) -> None:
    guest.env = {"NAME": "value"}
    code = """
      const refused = [];
      for (const change of [() => { "use strict"; process.env.X = "1"; }, () => { "use strict"; delete process.env.NAME; }])
        try { change(); } catch (error) { refused.push(error.name); }
      return [process.env.NAME, process.env.OTHER === undefined, "NAME" in process.env, "OTHER" in process.env,
              Object.keys(process), refused]"""
    assert guest.query(code) == ["value", True, True, False, ["env"], ["TypeError", "TypeError"]]
    assert "env/get" in guest.ops


def test_a_call_that_looks_at_no_variable_asks_for_none(guest: Guest) -> None:
    guest.query("return 1")
    assert guest.ops == []


def test_weak_references_are_strong(guest: Guest) -> None:
    code = """
      const ref = new WeakRef({ a: 1 });
      new FinalizationRegistry(() => { throw new Error("ran"); }).register({}, 1);
      return [ref.deref().a, Object.prototype.toString.call(ref)]"""
    assert guest.query(code) == [1, "[object WeakRef]"]


def test_dynamic_import_is_refused(guest: Guest) -> None:
    assert guest.query("try { await import('./x.js'); return 'ran'; } catch (error) { return 'refused'; }") == "refused"


def test_time_stands_still_and_is_noticed(guest: Guest) -> None:
    code = "const t = performance.now(); for (let i = 0; i < 1e4; i++); return [t, performance.now(), Date.now() === performance.timeOrigin]"
    assert guest.query(code) == [0, 0, True]
    assert guest.clock_reads > 0
    guest.query("return performance.getEntries().length")
    assert guest.clock_reads == 0


def test_async_local_storage_within_run(guest: Guest) -> None:
    code = """
      const storage = new AsyncLocalStorage(), other = new AsyncLocalStorage();
      const seen = [storage.getStore()];
      storage.run("a", () => {
        seen.push(storage.getStore());
        storage.run("b", () => other.run("x", () => seen.push(storage.getStore() + other.getStore())));
        seen.push(storage.exit(() => storage.getStore()) === undefined, storage.getStore());
        const bound = AsyncResource.bind(() => storage.getStore());
        seen.push(storage.run("c", bound));
      });
      try { storage.run("z", () => { throw new Error("x"); }); } catch {}
      return [...seen, storage.getStore()].map((value) => value === undefined ? "none" : value)"""
    assert guest.query(code) == ["none", "a", "bx", True, "a", "a", "none"]


def test_globals_can_be_replaced_before_their_first_use(guest: Guest) -> None:
    assert guest.query("globalThis.URL = 5; new URLSearchParams('a=1'); return URL") == 5


def test_events_and_abort(guest: Guest) -> None:
    code = """
      const controller = new AbortController(), other = new AbortController(), log = [];
      const any = AbortSignal.any([controller.signal, other.signal]);
      const nested = AbortSignal.any([any]);
      nested.addEventListener("abort", () => log.push("nested"));
      any.onabort = () => log.push("any:" + nested.aborted);
      controller.signal.addEventListener("abort", (event) => log.push(event.type), { once: true });
      controller.abort(); controller.abort("again"); other.abort();
      try { any.throwIfAborted(); } catch (error) { log.push(error.name); }
      log.push(AbortSignal.abort("r").reason, AbortSignal.abort().reason.name);
      return log"""
    expected = ["abort", "any:true", "nested", "AbortError", "r", "AbortError"]
    assert guest.query(code) == expected
    assert guest.error("query", "new AbortSignal()")["name"] == "TypeError"
    assert "Can't use AbortSignal.timeout()" in guest.error("query", "AbortSignal.timeout(1)")["message"]
