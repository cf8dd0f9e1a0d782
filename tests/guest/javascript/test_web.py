"""Spot checks of the web platform's parts, in the manner of the platform's own tests: URL, encoding, streams, bodies, clone.

The expected values follow the standards (url.spec.whatwg.org and its siblings).
"""

# ruff: noqa: E501, RUF001 - the long lines are JavaScript, the odd characters are the test

import json

import pytest

from tests.guest.javascript.conftest import Guest

URLS = {
    ("http://EXAMPLE.com/../a b?q=ä#f g", None): "http://example.com/a%20b?q=%C3%A4#f%20g",
    ("../x/./y", "https://user:pw@a.b:8080/c/d/e"): "https://user:pw@a.b:8080/c/x/y",
    ("https://a.b:443/", None): "https://a.b/",
    ("http://0x7f.1/", None): "http://127.0.0.1/",
    ("http://[1:0::]/", None): "http://[1::]/",
    ("http://[::127.0.0.1]/", None): "http://[::7f00:1]/",
    ("file:///C|/x/..", None): "file:///C:/",
    ("mailto:a@b", None): "mailto:a@b",
    ("//h/p", "https://x"): "https://h/p",
    ("http://a\tb.com/\n", None): "http://ab.com/",
    ("http://bücher.example/", None): "http://xn--bcher-kva.example/",
    ("http://faß.de/", None): "http://xn--fa-hia.de/",
    ("http://ＧＯ.com/", None): "http://go.com/",
    ("http://日本語。jp/", None): "http://xn--wgv71a119e.jp/",
    ("http://ΑΣ.gr/", None): "http://xn--mxa0b.gr/",
    ("http://a\u00adb.com/", None): "http://ab.com/",
    ("http://xn--bcher-kva.example/", None): "http://xn--bcher-kva.example/",
    ("http://שלום.co.il/", None): "http://xn--9dbne9b.co.il/",
    ("http://💩.la/", None): "http://xn--ls8h.la/",
    ("data:text/plain,x y", None): "data:text/plain,x y",
}
NOT_URLS = [
    ("x", None),
    ("http://", None),
    ("http://a b/", None),
    ("http://1.2.3.256/", None),
    ("http://[::1", None),
    ("http://a:99999/", None),
    ("http://xn--a/", None),
    ("http://xn--a-yoc/", None),
    ("http://a\ue000.com/", None),
    ("http://\u0301a.com/", None),
    ("http://אa.com/", None),
]


@pytest.mark.parametrize("case", URLS, ids=ascii)
def test_url(guest: Guest, case: tuple[str, str | None]) -> None:
    assert (
        guest.query(f"return new URL(...{json.dumps([each for each in case if each is not None])}).href") == URLS[case]
    )


@pytest.mark.parametrize("case", NOT_URLS, ids=ascii)
def test_not_a_url(guest: Guest, case: tuple[str, str | None]) -> None:
    code = f"try {{ return new URL({json.dumps(case[0])}).href }} catch (error) {{ return error instanceof TypeError }}"
    assert guest.query(code) is True


def test_url_parts_and_parameters(guest: Guest) -> None:
    code = """
      const url = new URL("https://u:p@h.example:81/a/b?x=1&y=2&x=3#z");
      url.searchParams.append("w", "a b&c"); url.searchParams.delete("y"); url.port = "443"; url.hash = "";
      const p = new URLSearchParams({ b: "2", a: "+ %" }); p.sort();
      return [url.href, url.origin, url.host, url.username, [...url.searchParams.getAll("x")], String(p), URL.canParse("x"),
              new URLSearchParams("?a=b%20c+d&e").get("a"), url.searchParams.size]"""
    assert guest.query(code) == [
        "https://u:p@h.example/a/b?x=1&x=3&w=a+b%26c",
        "https://h.example",
        "h.example",
        "u",
        ["1", "3"],
        "a=%2B+%25&b=2",
        False,
        "b c d",
        3,
    ]


def test_text_encoding(guest: Guest) -> None:
    code = r"""
      const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
      const decode = (bytes, label, options) => new TextDecoder(label, options).decode(new Uint8Array(bytes));
      const fatal = (bytes) => { try { return decode(bytes, "utf-8", { fatal: true }); } catch (error) { return error.name; } };
      const streaming = new TextDecoder(); const parts = [0xf0, 0x9f, 0x92, 0xa9].map((b) => streaming.decode(new Uint8Array([b]), { stream: true }));
      const into = new Uint8Array(5), written = new TextEncoder().encodeInto("aé日b", into);
      return [hex(new TextEncoder().encode("aé日💩\ud800")), decode([0xef, 0xbb, 0xbf, 0x61]), decode([0x61, 0xff, 0xe2, 0x82, 0x62]),
              fatal([0xff]), fatal([0xed, 0xa0, 0x80]), parts.join("|") + streaming.decode(), written.read, written.written,
              decode([0x61, 0xd8], "utf-16le"), decode([0x80, 0xe9], "latin1"), new TextDecoder("ascii").encoding,
              decode([0xf4, 0x90, 0x80, 0x80]).length, decode([0xef, 0xbb, 0xbf, 0x61], "utf-8", { ignoreBOM: true }).length]"""
    assert guest.query(code) == [
        "61c3a9e697a5f09f92a9efbfbd",
        "a",
        "a\ufffd\ufffdb",
        "TypeError",
        "TypeError",
        "|||💩",
        2,
        3,
        "\ufffd",
        "€é",
        "windows-1252",
        4,
        2,
    ]
    assert guest.error("query", "new TextDecoder('no-such')")["name"] == "RangeError"


def test_base64(guest: Guest) -> None:
    assert guest.query(r"return [btoa('\xff\x00a'), atob(' /wBh '), atob('YQ')]") == ["/wBh", "\xff\0a", "a"]
    for code in ("btoa('€')", "atob('a')", "atob('*')"):
        assert guest.error("query", code)["name"] == "InvalidCharacterError"


def test_structured_clone(guest: Guest) -> None:
    code = """
      const shared = { n: 1 }, source = {
        a: [shared, shared, , 3], d: new Date(5), r: /x(y)/gi, m: new Map([[shared, new Set([1, shared])]]), u: undefined,
        bytes: new Uint8Array([1, 2, 3]).subarray(1), view: new DataView(new ArrayBuffer(4), 1, 2), big: 10n, boxed: new String("s"),
        e: Object.assign(new RangeError("m", { cause: shared }), { extra: 1 }), nan: NaN, neg: -0, n: null,
      };
      source.self = source; source.a.named = 1;
      class Point { x = 1; get y() { return 2; } } source.p = new Point();
      const copy = structuredClone(source), key = [...copy.m.keys()][0];
      return [copy.self === copy, copy.a[0] === copy.a[1], copy.a[0] !== shared, 2 in copy.a, copy.a.length, copy.a.named, copy.d.getTime(),
        String(copy.r), copy.r.lastIndex, copy.m.get(key).has(key), "u" in copy, [...copy.bytes], copy.bytes.buffer.byteLength,
        copy.view.byteLength, String(copy.big), typeof copy.boxed, copy.e instanceof RangeError, copy.e.message, copy.e.cause === key,
        "extra" in copy.e, Object.is(copy.neg, -0), copy.p.constructor === Object, copy.p.x, "y" in copy.p, structuredClone("x")]"""
    assert guest.query(code) == [
        True, True, True, False, 4, 1, 5, "/x(y)/gi", 0, True, True, [2, 3], 3, 2, "10", "object", True, "m", True,
        False, True, True, 1, False, "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value", ["() => 1", "Symbol('s')", "{ a: { b() {} } }", "new WeakMap()", "Promise.resolve()", "Object(Symbol())"]
)
def test_structured_clone_refuses(guest: Guest, value: str) -> None:
    error = guest.error("query", f"structuredClone({value})")
    assert error["name"] == "DataCloneError"


def test_structured_clone_does_not_transfer(guest: Guest) -> None:
    code = "const b = new ArrayBuffer(1); structuredClone(b, { transfer: [b] })"
    assert guest.error("query", code)["name"] == "DataCloneError"


def test_streams(guest: Guest) -> None:
    code = """
      const log = [];
      const source = new ReadableStream({
        start(c) { c.enqueue("a"); }, pull(c) { c.enqueue("b"); c.close(); }, cancel(r) { log.push("cancel " + r); } });
      const upper = new TransformStream({ transform(chunk, c) { c.enqueue(chunk.toUpperCase()); }, flush(c) { c.enqueue("!"); } });
      for await (const chunk of source.pipeThrough(upper)) log.push(chunk);
      const [one, two] = new ReadableStream({ start(c) { c.enqueue(1); c.close(); } }).tee();
      log.push((await one.getReader().read()).value, (await two.getReader().read()).value);
      const bytes = new ReadableStream({ type: "bytes", start(c) { c.enqueue(new Uint8Array([1, 2, 3])); } });
      const byob = bytes.getReader({ mode: "byob" });
      log.push([...(await byob.read(new Uint8Array(2))).value], byob instanceof ReadableStreamBYOBReader);
      const written = [], writer = new WritableStream({ write(chunk) { written.push(chunk); } }).getWriter();
      await writer.write(1); await writer.close(); log.push(written, writer instanceof WritableStreamDefaultWriter);
      await new ReadableStream({ cancel(r) { log.push("cancel " + r); } }).cancel("why");
      const encoded = new ReadableStream({ start(c) { c.enqueue("é"); c.close(); } }).pipeThrough(new TextEncoderStream());
      log.push(await new Response(encoded).text());
      return log"""
    expected = ["A", "B", "!", 1, 1, [1, 2], True, [1], True, "cancel why", "é"]
    assert guest.query(code) == expected


def test_blob_and_file(guest: Guest) -> None:
    code = """
      const blob = new Blob(["a", new Uint8Array([98]), new Blob(["cd"])], { type: "Text/PLAIN" });
      const file = new File([blob], "n.txt", { lastModified: 5 });
      return [blob.size, blob.type, await blob.text(), await blob.slice(1, -1).text(), await blob.slice(-1, 99, "x/y").text(),
        (await blob.arrayBuffer()).byteLength, file.name, file.lastModified, file instanceof Blob, file.type,
        await new Response(blob.stream()).text(), await new Blob(["a\\r\\nb"], { endings: "native" }).text(), String(file)]"""
    assert guest.query(code) == [
        4, "text/plain", "abcd", "bc", "d", 4, "n.txt", 5, True, "", "abcd", "a\nb", "[object File]",
    ]  # fmt: skip


def test_headers(guest: Guest) -> None:
    code = """
      const h = new Headers([["B", " 1 "], ["a", "2"], ["b", "3"]]);
      h.append("Set-Cookie", "x=1"); h.append("set-cookie", "y=2"); h.set("c", ""); h.delete("a");
      const refused = [];
      for (const bad of [() => h.set("a b", "1"), () => h.set("a", "x\\ny"), () => h.set("a", "€"), () => new Headers([["a"]]),
                         () => Response.redirect("http://x/").headers.set("a", "1")])
        try { bad(); } catch (error) { refused.push(error.name); }
      return [[...h], h.get("B"), h.get("none"), h.getSetCookie(), [...new Headers(new Headers({ q: "1" }))], refused]"""
    assert guest.query(code) == [
        [["b", "1, 3"], ["c", ""], ["set-cookie", "x=1"], ["set-cookie", "y=2"]],
        "1, 3",
        None,
        ["x=1", "y=2"],
        [["q", "1"]],
        ["TypeError"] * 5,
    ]


def test_request(guest: Guest) -> None:
    code = """
      const first = new Request("http://h/p?q#f", { method: "post", body: "text", headers: { a: "1" } });
      const copy = first.clone(), second = new Request(first, { method: "PUT" });
      const controller = new AbortController(), signalled = new Request("http://h/", { signal: controller.signal }); controller.abort();
      const refused = [];
      for (const bad of [() => new Request("/relative"), () => new Request("http://h/", { body: "x" }), () => new Request("http://u:p@h/"),
                         () => new Request("http://h/", { method: "TRACE" }), () => first.clone()])
        try { bad(); } catch (error) { refused.push(error.name); }
      return [first.method, first.url, copy.headers.get("content-type"), await copy.json().catch((e) => e.name), first.bodyUsed, copy.bodyUsed,
        second.method, await second.text(), second.headers.get("a"), signalled.signal.aborted, refused, first.redirect]"""
    assert guest.query(code) == [
        "POST", "http://h/p?q#f", "text/plain;charset=UTF-8", "SyntaxError", True, True, "PUT", "text", "1", True,
        ["TypeError"] * 5, "follow",
    ]  # fmt: skip


def test_response(guest: Guest) -> None:
    code = """
      const r = new Response("{\\"a\\":1}", { status: 201, statusText: "Made", headers: { "x-y": "z" } }), copy = r.clone();
      const json = Response.json([1], { status: 400 }), empty = new Response(null, { status: 204 });
      const refused = [];
      for (const bad of [() => new Response("", { status: 199 }), () => new Response("x", { status: 204 }), () => Response.redirect("http://x", 200)])
        try { bad(); } catch (error) { refused.push(error.name); }
      const twice = await r.json().then(() => r.text()).catch((error) => error.name);
      return [r.status, r.ok, r.statusText, (await copy.json()).a, twice, json.headers.get("content-type"), json.ok, empty.body, refused,
        Response.error().type, Response.redirect("http://x/").headers.get("location"), [...new Uint8Array(await new Response(new Uint8Array([7])).arrayBuffer())]]"""
    assert guest.query(code) == [
        201, True, "Made", 1, "TypeError", "application/json", False, None, ["RangeError", "TypeError", "RangeError"],
        "error", "http://x/", [7],
    ]  # fmt: skip


def test_form_data(guest: Guest) -> None:
    code = """
      const form = new FormData();
      form.append("a", "1"); form.append("a", "2\\n"); form.append('q"\\r\\n', new File(["bin\\r\\n--x"], 'f"n.bin', { type: "a/b" })); form.set("s", "€");
      const sent = new Response(form), type = sent.headers.get("content-type"), got = await sent.formData(), file = got.get('q"\\r\\n');
      const query = await new Response(new URLSearchParams("x=1&y=%26")).formData();
      const bad = await new Response("--b\\r\\n", { headers: { "content-type": "multipart/form-data; boundary=b" } }).formData().catch((e) => e.name);
      return [type.startsWith("multipart/form-data; boundary="), got.getAll("a"), file.name, file.type, await file.text(), got.get("s"),
        [...query], bad, form.has("none"), [...form.keys()].length]"""
    assert guest.query(code) == [
        True, ["1", "2\r\n"], 'f"n.bin', "a/b", "bin\r\n--x", "€", [["x", "1"], ["y", "&"]], "TypeError", False, 4,
    ]  # fmt: skip
