"""A real OpenID Connect provider on loopback: the PyPI package `oidc-provider-mock`, in a process of its own.

`python -m tests.identity.oidc_server SECONDS` runs it; its tokens hold for that long. Its first line is its port; it
ends with its standard input.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import orjson

from tests.conftest import REPOSITORY
from tests.http.serving import environment

CLIENT = "the-app"
_SECRET = "anything"
_BACK = "http://localhost/back"


@dataclass(frozen=True)
class OidcServer:
    """A running provider. Shape: `domain` as an auth config names it."""

    domain: str

    @property
    def allowed(self) -> str:
        """Its place, as `--allow-egress` takes it."""
        return self.domain.removeprefix("http://")

    def sign_in(self, subject: str, claims: dict[str, object]) -> str:
        """A fresh ID token of a user, by the code flow that a browser would go through."""
        _send("PUT", f"{self.domain}/users/{subject}", orjson.dumps(claims), "application/json")
        asked = {
            "client_id": CLIENT,
            "redirect_uri": _BACK,
            "response_type": "code",
            "scope": "openid profile email address phone",
        }
        address = f"{self.domain}/oauth2/authorize?{urlencode(asked)}"
        _, headers = _send("POST", address, urlencode({"sub": subject}).encode())
        code = parse_qs(urlsplit(headers["Location"]).query)["code"][0]
        grant = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": _BACK,
            "client_id": CLIENT,
            "client_secret": _SECRET,
        }
        body, _ = _send("POST", f"{self.domain}/oauth2/token", urlencode(grant).encode())
        return orjson.loads(body)["id_token"]


@contextmanager
def running_provider(token_seconds: int = 3600) -> Iterator[OidcServer]:
    """The provider, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.identity.oidc_server", str(token_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=str(REPOSITORY)),
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield OidcServer(f"http://localhost:{port}")
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _send(
    method: str, url: str, body: bytes, kind: str = "application/x-www-form-urlencoded"
) -> tuple[bytes, dict[str, str]]:
    opener = build_opener(_NoRedirect)
    try:
        with opener.open(Request(url, body, {"Content-Type": kind}, method=method), timeout=60) as response:
            return response.read(), dict(response.headers)
    except HTTPError as answer:
        with answer:
            if answer.code not in (302, 303):
                raise
            return b"", dict(answer.headers)


def _main() -> None:
    from datetime import timedelta

    from oidc_provider_mock import run_server_in_thread

    with run_server_in_thread(0, access_token_max_age=timedelta(seconds=int(sys.argv[1]))) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _main()
