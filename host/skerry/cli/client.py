"""The command's own HTTP client: one request to one server, every failure as an error with a code.

Names below `localhost` are this machine, whatever its resolver knows of them: many know none.

Deliberately absent: redirects (an admin key goes where it was sent), retries (a mutation might run twice).
"""

import http.client
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

import click
import orjson

from skerry.errors import ERRORS, ClientError

URL_VARIABLE: Final = "CONVEX_SELF_HOSTED_URL"
ADMIN_KEY_VARIABLE: Final = "CONVEX_SELF_HOSTED_ADMIN_KEY"
HOST_CREDENTIAL_VARIABLE: Final = "SKERRY_HOST_CREDENTIAL"
URL_DEFAULT: Final = "http://127.0.0.1:3210"
_ANSWER_SECONDS_MAX: Final = 330.0
_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024

Body = bytes | Iterator[bytes]


class Server:
    """A server by its address. Raises: click.UsageError for an address that is none."""

    def __init__(self, url: str | None, admin_key: str | None, host_credential: str | None = None) -> None:
        self.url = (url or os.environ.get(URL_VARIABLE) or URL_DEFAULT).rstrip("/")
        self.admin_key = admin_key or os.environ.get(ADMIN_KEY_VARIABLE) or None
        self.host_credential = host_credential or os.environ.get(HOST_CREDENTIAL_VARIABLE) or None
        self._authorization = f"Convex {self.admin_key}" if self.admin_key is not None else None
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise click.UsageError(f"{self.url!r} is not the address of a server; it looks like {URL_DEFAULT}")
        self._is_secure = parts.scheme == "https"
        self._host = parts.hostname
        self._is_below_localhost = not self._is_secure and self._host.endswith(".localhost")
        self._port = port
        self._prefix = parts.path

    def need_admin_key(self) -> None:
        """Raises: ClientError `AdminKeyMissing`."""
        if self.admin_key is None:
            raise ClientError(
                "AdminKeyMissing", f"This needs the admin key of {self.url}; its server printed it when it started."
            )

    def need_host_credential(self) -> None:
        """Asks as the host's operator from here on. Raises: ClientError `HostCredentialMissing`."""
        if self.host_credential is None:
            raise ClientError(
                "HostCredentialMissing",
                f"This needs the host credential of {self.url}: host.credential in its data folder.",
            )
        self._authorization = f"Bearer {self.host_credential}"

    def url_of(self, name: str) -> str:
        """Where a deployment of this host is, for those who know no host name of it."""
        return f"{self.url}/d/{quote(name, safe='')}"

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """The JSON object that answers a POST. Raises: as `get`."""
        return self._ask("POST", path, body, {"Content-Length": str(len(body)), **headers})

    def post_piece(self, path: str, body: bytes) -> str:
        """The JSON string that answers a POST of bytes. Raises: as `get`."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        status, raw = self._exchange("POST", path, body, headers)
        if status == 200:
            try:
                parsed: Any = orjson.loads(raw)
            except ValueError:
                parsed = None
            if isinstance(parsed, str):
                return parsed
        self._understood(status, raw)
        raise ClientError("ServerAnswerInvalid", f"{self.url} answered with something else than a string.")

    def upload(self, path: str, pieces: Iterator[bytes], n_bytes: int) -> dict[str, Any]:
        """The JSON object that answers a POST whose body is sent piece by piece. Raises: as `get`."""
        return self._ask("POST", path, pieces, {"Content-Length": str(n_bytes)})

    def download(self, path: str, take: Callable[[bytes], object]) -> None:
        """Hands on what answers a GET, piece by piece. Raises: as `get`."""
        self._exchange("GET", path, None, {}, take)

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object that answers a GET.

        Raises: ClientError `ServerUnreachable`, `ServerAnswerInvalid`, or the server's own error under its code.
        """
        return self._ask("GET", path, None, {})

    def delete(self, path: str) -> dict[str, Any]:
        """The JSON object that answers a DELETE. Raises: as `get`."""
        return self._ask("DELETE", path, None, {})

    def _ask(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None, sent: dict[str, str]
    ) -> dict[str, Any]:
        return self._understood(*self._exchange(method, path, body, sent))

    def _exchange(
        self,
        method: str,
        path: str,
        body: Body | None,
        sent: dict[str, str],
        take: Callable[[bytes], object] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer; a good body goes to `take` where that is given."""
        if self._authorization is not None:
            sent["Authorization"] = self._authorization
        kind = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
        host = self._host
        if self._is_below_localhost:
            sent["Host"] = host if self._port is None else f"{host}:{self._port}"
            host = "127.0.0.1"
        connection = kind(host, self._port, timeout=_ANSWER_SECONDS_MAX)
        try:
            connection.request(method, self._prefix + path, body, sent)
            response = connection.getresponse()
            if take is not None and response.status == 200:
                while piece := response.read(_PIECE_BYTES):
                    take(piece)
                if response.length:
                    raise http.client.IncompleteRead(b"", response.length)
                return 200, b""
            raw = response.read(_ANSWER_BYTES_MAX)
        except UnicodeEncodeError:
            raise ClientError("BadAdminKey", "The admin key has characters that cannot travel in a header.") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ClientError("ServerUnreachable", f"No answer from {self.url}: {reason}.") from None
        finally:
            connection.close()
        if take is not None:
            self._understood(response.status, raw)
        return response.status, raw

    def _understood(self, status: int, raw: bytes) -> dict[str, Any]:
        try:
            parsed: Any = orjson.loads(raw)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise ClientError("ServerAnswerInvalid", f"{self.url} answered with status {status} and no JSON object.")
        answer = cast("dict[str, Any]", parsed)
        if status == 200:
            return answer
        code, message = str(answer.get("code")), str(answer.get("message"))
        if code not in ERRORS:
            raise ClientError("ServerAnswerInvalid", f"{self.url} answered with status {status}: {code}: {message}")
        raise ClientError(code, message)


def server_for(
    deployment: str | None, url: str | None, admin_key: str | None, host_credential: str | None
) -> tuple[Server, str]:
    """The server of a deployment, and what the addresses of operating it begin with there.

    Shape: `deployment` None means that of the admin key; one that is named takes the host credential.
    Raises: ClientError `AdminKeyMissing`, `HostCredentialMissing`; click.UsageError.
    """
    if deployment is None:
        server = Server(url, admin_key)
        server.need_admin_key()
        return server, "/api/skerry"
    server = Server(url, None, host_credential)
    server.need_host_credential()
    return server, f"/host/deployments/{quote(deployment, safe='')}"
