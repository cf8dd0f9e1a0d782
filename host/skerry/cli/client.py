"""The command's own HTTP client: one request to one server, every failure as an error with a code.

Deliberately absent: redirects (an admin key goes where it was sent), retries (a mutation might run twice).
"""

import http.client
import os
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

import click
import orjson

from skerry.errors import ERRORS, ClientError

URL_VARIABLE: Final = "CONVEX_SELF_HOSTED_URL"
ADMIN_KEY_VARIABLE: Final = "CONVEX_SELF_HOSTED_ADMIN_KEY"
URL_DEFAULT: Final = "http://127.0.0.1:3210"
_ANSWER_SECONDS_MAX: Final = 330.0
_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024


class Server:
    """A server by its address. Raises: click.UsageError for an address that is none."""

    def __init__(self, url: str | None, admin_key: str | None) -> None:
        self.url = (url or os.environ.get(URL_VARIABLE) or URL_DEFAULT).rstrip("/")
        self.admin_key = admin_key or os.environ.get(ADMIN_KEY_VARIABLE) or None
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise click.UsageError(f"{self.url!r} is not the address of a server; it looks like {URL_DEFAULT}")
        self._is_secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port
        self._prefix = parts.path

    def need_admin_key(self) -> None:
        """Raises: ClientError `AdminKeyMissing`."""
        if self.admin_key is None:
            raise ClientError(
                "AdminKeyMissing", f"This needs the admin key of {self.url}; its server printed it when it started."
            )

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """The JSON object that answers a POST.

        Raises: ClientError `ServerUnreachable`, `ServerAnswerInvalid`, or the server's own error under its code.
        """
        sent = {"Content-Length": str(len(body)), **headers}
        if self.admin_key is not None:
            sent["Authorization"] = f"Convex {self.admin_key}"
        kind = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_ANSWER_SECONDS_MAX)
        try:
            connection.request("POST", self._prefix + path, body, sent)
            response = connection.getresponse()
            raw = response.read(_ANSWER_BYTES_MAX)
        except UnicodeEncodeError:
            raise ClientError("BadAdminKey", "The admin key has characters that cannot travel in a header.") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ClientError("ServerUnreachable", f"No answer from {self.url}: {reason}.") from None
        finally:
            connection.close()
        return self._understood(response.status, raw)

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
