"""Redirects: each hop is checked like the first, what is secret stays with its origin, and loops end."""

from collections.abc import AsyncIterator

import pytest

from skerry import limits
from skerry.egress import FetchRequest
from tests.egress.world import INSIDE, by_path, code_of, egress, get, redirect, reply, run, serving


def test_a_redirect_is_followed_and_told_of() -> None:
    async def work() -> None:
        async with serving(by_path({"/a": redirect("/b?c#d"), "/b": reply()})) as server, egress(server.port) as way:
            response, body = await get(way, f"http://a.test:{server.port}/a")
            assert (response.status, response.url, body) == (200, f"http://a.test:{server.port}/b?c", b"hello")
            assert response.redirected
            assert server.connections == 1

    run(work())


def test_redirects_are_followed_up_to_a_bound() -> None:
    async def work() -> None:
        most = limits.EGRESS_REDIRECTS_MAX
        answers = {f"/{number}": redirect(f"/{number + 1}") for number in range(most + 1)}
        answers[f"/{most + 1}"] = reply()
        async with serving(by_path(answers)) as server, egress(server.port) as way:
            response, _ = await get(way, f"http://a.test:{server.port}/1")
            assert response.url.endswith(f"/{most + 1}")
            assert await code_of(get(way, f"http://a.test:{server.port}/0")) == "EgressFailed"

    run(work())


def test_a_redirect_loop_ends() -> None:
    async def work() -> None:
        async with serving(redirect("/")) as server, egress(server.port) as way:
            assert await code_of(get(way, f"http://a.test:{server.port}/")) == "EgressFailed"
            assert len(server.seen) == limits.EGRESS_REDIRECTS_MAX + 1

    run(work())


INWARD = [
    f"http://{INSIDE}:PORT/", "http://inside.test:PORT/", "http://localhost:PORT/", "http://localhost.:PORT/",
    "http://0x7f.1:PORT/", "http://2130706433:PORT/", "http://017700000001:PORT/", "http://127.1:PORT/", "http://0:PORT/",
    "http://[::1]:PORT/", "http://[::ffff:127.0.0.2]:PORT/", "http://[::127.0.0.1]:PORT/", "//127.0.0.1:PORT/",
    "http://\uff11\uff12\uff17.0.0.1:PORT/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://192.168.1.1/",
    "http://metadata.test/", "http://127.0.0.3:PORT/",
]  # fmt: skip


@pytest.mark.parametrize("location", INWARD)
def test_redirects_inward_are_refused(location: str) -> None:
    async def work() -> None:
        async with serving(reply(b"secret"), host=INSIDE) as inside:
            answer = redirect(location.replace("PORT", str(inside.port)))
            async with serving(answer) as server, egress(server.port) as way:
                # The port alone would not be refused: the address is what counts.
                way_in = f"http://a.test:{server.port}/"
                assert await code_of(get(way, way_in)) in ("EgressRefused", "EgressFailed")
                assert inside.connections == 0

    run(work())


@pytest.mark.parametrize("text", [text for text in INWARD if "://" in text])
def test_the_same_addresses_are_refused_at_once(text: str) -> None:
    """On port 80, so that nothing but the address can be the reason."""

    async def work() -> None:
        async with egress() as way:
            code = await code_of(get(way, text.replace(":PORT", "")))
            # Not every resolver knows a name with a last dot.
            names = ("EgressFailed",) if "metadata.test" in text else ("EgressRefused",)
            assert code in (("EgressFailed", *names) if "localhost." in text else names)

    run(work())


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://a.test/",
        "javascript:1",
        "http://u:p@a.test/",
        "\\\\a.test\\",
        "http://a.test:25/",
        "http://a.test:99999/",
    ],
)
def test_redirects_elsewhere_are_refused(location: str) -> None:
    async def work() -> None:
        async with serving(redirect(location)) as server, egress(server.port) as way:
            code = await code_of(get(way, f"http://a.test:{server.port}/"))
            assert code in ("EgressRefused", "EgressInvalidRequest")

    run(work())


@pytest.mark.parametrize(
    ("status", "method", "sent_method", "keeps_body"),
    [
        (301, "POST", "GET", False), (302, "POST", "GET", False), (303, "POST", "GET", False),
        (307, "POST", "POST", True),
        (308, "POST", "POST", True), (301, "PUT", "PUT", True), (302, "DELETE", "DELETE", True),
        (303, "PUT", "GET", False),
        (303, "HEAD", "HEAD", False), (301, "HEAD", "HEAD", False), (302, "GET", "GET", False),
    ],
)  # fmt: skip
def test_methods_and_bodies_follow_the_fetch_standard(
    status: int, method: str, sent_method: str, keeps_body: bool
) -> None:
    async def work() -> None:
        answers = by_path({"/a": redirect("/b", status), "/b": reply(b"")})
        async with serving(answers) as server, egress(server.port) as way:
            body = None if method in ("GET", "HEAD") else b"body"
            headers = [("Content-Type", "text/x"), ("Content-Language", "de"), ("X-Mine", "1")]
            await way.fetch(FetchRequest(method, f"http://a.test:{server.port}/a", headers, body))
            seen = server.seen[1]
            assert seen.line == f"{sent_method} /b HTTP/1.1"
            assert seen.body == (b"body" if keeps_body else b"")
            same = sent_method == method
            assert seen.header("Content-Type") == ("text/x" if same else None)
            assert seen.header("Content-Language") == ("de" if same else None)
            assert seen.header("X-Mine") == "1"

    run(work())


@pytest.mark.parametrize(
    ("status", "code"), [(307, "EgressFailed"), (308, "EgressFailed"), (302, "EgressFailed"), (303, "")]
)
def test_a_streamed_body_is_sent_only_once(status: int, code: str) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b"x"

    async def work() -> None:
        answers = by_path({"/a": redirect("/b", status), "/b": reply()})
        async with serving(answers) as server, egress(server.port) as way:
            request = FetchRequest("POST", f"http://a.test:{server.port}/a", body=stream())
            if code:
                assert await code_of(way.fetch(request)) == code
            else:
                assert (await way.fetch(request)).status == 200

    run(work())


def test_credentials_stay_with_their_origin() -> None:
    secret = [("Authorization", "Bearer x"), ("Authorization", "y"), ("Cookie", "a=b")]
    headers = [*secret[:1], ("authorization", "y"), secret[2], ("X-Other", "kept")]

    async def work() -> None:
        async with serving(reply()) as other, serving(reply()) as server, egress(server.port, other.port) as way:
            answers = {
                "/same": redirect("/end"),
                "/name": redirect(f"http://b.test:{server.port}/end"),
                "/port": redirect(f"http://a.test:{other.port}/end"),
                "/end": reply(),
            }
            server.answer = by_path(answers)
            for path, end, kept in (("/same", server, secret), ("/name", server, []), ("/port", other, [])):
                await get(way, f"http://a.test:{server.port}{path}", headers=headers)
                seen = end.seen[-1]
                assert seen.line == "GET /end HTTP/1.1"
                assert [pair for pair in seen.headers if pair in secret] == kept
                assert seen.header("X-Other") == "kept"

    run(work())


def test_credentials_do_not_come_back_with_a_second_redirect() -> None:
    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            back = f"http://a.test:{server.port}/end"
            answers = {"/a": redirect(f"http://b.test:{server.port}/b"), "/b": redirect(back), "/end": reply()}
            server.answer = by_path(answers)
            await get(way, f"http://a.test:{server.port}/a", headers=[("Authorization", "x")])
            assert [seen.header("Authorization") for seen in server.seen] == ["x", None, None]

    run(work())


def test_manual_shows_the_redirect_and_error_refuses_it() -> None:
    async def work() -> None:
        async with serving(redirect("http://inside.test/")) as server, egress(server.port) as way:
            url = f"http://a.test:{server.port}/"
            response, body = await get(way, url, redirect="manual")
            assert (response.status, body, response.redirected) == (302, b"", False)
            assert ("location", "http://inside.test/") in response.headers
            assert await code_of(get(way, url, redirect="error")) == "EgressFailed"

    run(work())


def test_a_redirect_without_a_location_is_the_answer() -> None:
    async def work() -> None:
        async with serving(reply(b"body", status="302 Found")) as server, egress(server.port) as way:
            response, body = await get(way, f"http://a.test:{server.port}/")
            assert (response.status, body) == (302, b"body")

    run(work())
