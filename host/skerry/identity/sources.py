"""Where a provider's keys come from: fetched once for all who wait, kept as long as the provider says, within bounds.

```
fresh          used at once
older          fetched again; who comes meanwhile waits for the same fetch
not to be had  the old ones for a while, then an error with a stable code; asked again after a pause
unknown kid    fetched again, at most every AUTH_KEYS_AGAIN_SECONDS_MIN whatever tokens come
```

Everything goes through the deployment's own way out, under its policy and at its expense. No redirect is followed: a
provider says where its keys are, and nobody else does.

Concurrency: the loop thread.
"""

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote_to_bytes

from skerry.errors import ClientError, DeveloperError, SkerryError, SystemFault
from skerry.identity.keys import KeySet, KeysUnusable
from skerry.identity.providers import Provider, check_address, normalised_issuer
from skerry.limits import (
    AUTH_FETCH_SECONDS_MAX,
    AUTH_KEYS_AGAIN_SECONDS_MIN,
    AUTH_KEYS_BYTES_MAX,
    AUTH_KEYS_FRESH_SECONDS,
    AUTH_KEYS_FRESH_SECONDS_MAX,
    AUTH_KEYS_FRESH_SECONDS_MIN,
    AUTH_KEYS_STALE_SECONDS_MAX,
)
from skerry.value import parse_json

_log: Final = logging.getLogger("skerry.identity")
_DISCOVERY: Final = "/.well-known/openid-configuration"
_DISCOVERY_NESTING_MAX: Final = 8
_READ_BYTES: Final = 64 * 1024
_JSON_TYPES: Final = frozenset(("application/json", "application/jwk-set+json"))
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,10})")
_NEVER: Final = float("-inf")

Told = Callable[["KeySet | SkerryError"], None]


class Response(Protocol):
    """An answer whose head has come. Shape: `read` gives at most so many bytes, none at the end."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    async def read(self, bytes_max: int, /) -> bytes: ...
    def close(self) -> None: ...


class WayOut(Protocol):
    """How a deployment reaches the network."""

    async def fetch(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: "bytes | AsyncIterator[bytes] | None",
        redirect: str,
        /,
    ) -> Response: ...


class KeySource:
    """The keys of one provider. Shape: `now_s` seconds since the epoch; `way_out` None where nothing is reached."""

    def __init__(
        self,
        provider: Provider,
        way_out: WayOut | None,
        now_s: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._provider = provider
        self._way_out = way_out
        self._now_s = now_s
        self._loop = loop
        self.keys: KeySet | None = None
        self.fresh_until_s = _NEVER
        self._stale_until_s = _NEVER
        self._asked_s = _NEVER
        self._failure: SkerryError | None = None
        self._waiting: list[Told] = []
        self._task: asyncio.Task[None] | None = None
        self.fetches = 0

    def get(self, told: Told) -> None:
        """Tells the keys, at once where they are fresh."""
        now_s = self._now_s()
        if self.keys is not None and now_s < self.fresh_until_s:
            told(self.keys)
        elif (jwks := self._provider.jwks) is not None and jwks.startswith("data:"):
            told(self._inline(jwks))
        elif self._failure is not None and now_s < self._asked_s + AUTH_KEYS_AGAIN_SECONDS_MIN:
            told(self._outcome(self._failure))
        else:
            self._wait(told)

    def get_newer(self, told: Told) -> None:
        """Tells the keys after asking the provider again, unless that was done a moment ago."""
        if self._task is None and (
            self.fresh_until_s == float("inf") or self._now_s() < self._asked_s + AUTH_KEYS_AGAIN_SECONDS_MIN
        ):
            told(self._outcome(self._failure or _undiscovered(self._provider, "it was not asked")))
        else:
            self._wait(told)

    def close(self) -> None:
        """Ends what is under way; who waits hears that the server stops."""
        if self._task is not None:
            self._task.cancel()
        self._tell(SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment."))

    def _inline(self, uri: str) -> KeySet | SkerryError:
        try:
            self.keys = KeySet(_data_of(uri))
        except (KeysUnusable, ValueError) as problem:
            return _undiscovered(self._provider, f"Invalid JWKS response body: {problem}")
        self.fresh_until_s = float("inf")
        return self.keys

    def _wait(self, told: Told) -> None:
        self._waiting.append(told)
        if self._task is None:
            self._asked_s = self._now_s()
            self.fetches += 1
            self._task = self._loop.create_task(self._fetch())

    async def _fetch(self) -> None:
        outcome: KeySet | SkerryError
        try:
            async with asyncio.timeout(AUTH_FETCH_SECONDS_MAX):
                outcome = self._took(*await self._fetch_keys())
        except TimeoutError:
            outcome = _undiscovered(self._provider, f"no answer within {AUTH_FETCH_SECONDS_MAX} seconds")
        except SkerryError as error:
            outcome = error
        except Exception as error:
            _log.exception("the keys of a provider could not be fetched")
            outcome = SystemFault("InternalServerError", str(error))
        finally:
            self._task = None
        self._failure = None if isinstance(outcome, KeySet) else outcome
        self._tell(outcome if isinstance(outcome, KeySet) else self._outcome(outcome))

    def _tell(self, outcome: KeySet | SkerryError) -> None:
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told(outcome)

    def _outcome(self, failure: SkerryError) -> KeySet | SkerryError:
        """The keys that are there, where they may still be used; otherwise why there are none."""
        usable_until_s = max(self.fresh_until_s, self._stale_until_s)
        return self.keys if self.keys is not None and self._now_s() < usable_until_s else failure

    def _took(self, raw: bytes, headers: list[tuple[str, str]]) -> KeySet:
        try:
            keys = self.keys if self.keys is not None and self.keys.raw == raw else KeySet(raw)
        except KeysUnusable as problem:
            raise _undiscovered(self._provider, f"Invalid JWKS response body: {problem}") from None
        now_s = self._now_s()
        self.keys = keys
        self.fresh_until_s = now_s + fresh_seconds(headers)
        self._stale_until_s = self.fresh_until_s + AUTH_KEYS_STALE_SECONDS_MAX
        return keys

    async def _fetch_keys(self) -> tuple[bytes, list[tuple[str, str]]]:
        provider = self._provider
        if provider.jwks is not None:
            return await self._get(provider.jwks)
        raw, _ = await self._get(provider.issuer + _DISCOVERY)
        try:
            parsed: Any = parse_json(raw, depth_max=_DISCOVERY_NESTING_MAX, bytes_max=AUTH_KEYS_BYTES_MAX)
        except DeveloperError as error:
            raise _undiscovered(provider, f"its discovery document is not valid JSON ({error.message})") from None
        fields = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
        issuer, address = fields.get("issuer"), fields.get("jwks_uri")
        if type(issuer) is not str or normalised_issuer(issuer) != provider.issuer:
            raise _undiscovered(provider, "its discovery document names another issuer")
        if type(address) is not str:
            raise _undiscovered(provider, "its discovery document names no jwks_uri")
        try:
            check_address(address, "jwks_uri")
        except ClientError as error:
            raise _undiscovered(provider, error.message) from None
        if provider.issuer.startswith("https:") and not address.startswith("https:"):
            raise _undiscovered(provider, "its jwks_uri is no https address")
        return await self._get(address)

    async def _get(self, address: str) -> tuple[bytes, list[tuple[str, str]]]:
        """The body of a JSON document and the head of its answer. Raises: SkerryError."""
        if self._way_out is None:
            raise _undiscovered(self._provider, "this server reaches no network")
        try:
            response = await self._way_out.fetch("GET", address, [("accept", "application/json")], None, "error")
            try:
                if response.status != 200:
                    raise _undiscovered(self._provider, f"{address} answered with status {response.status}")
                self._check_type(response.headers)
                body = b""
                while piece := await response.read(_READ_BYTES):
                    body += piece
                    if len(body) > AUTH_KEYS_BYTES_MAX:
                        raise _undiscovered(self._provider, f"{address} has more than {AUTH_KEYS_BYTES_MAX} bytes")
                return body, response.headers
            finally:
                response.close()
        except DeveloperError as error:
            raise _undiscovered(self._provider, f"{error.code}: {error.message}") from error

    def _check_type(self, headers: list[tuple[str, str]]) -> None:
        given = next((value for name, value in headers if name == "content-type"), "")
        kind = given.partition(";")[0].strip().lower()
        if kind and kind not in _JSON_TYPES:
            raise _undiscovered(self._provider, f"it answered with the content type {kind[:80]}, not application/json")


def fresh_seconds(headers: list[tuple[str, str]]) -> float:
    """How long keys are used without asking again, as their answer's head says, within bounds."""
    control = ",".join(value for name, value in headers if name == "cache-control").lower()
    if "no-store" in control or "no-cache" in control:
        return AUTH_KEYS_FRESH_SECONDS_MIN
    found = _MAX_AGE.search(control)
    if found is None:
        return AUTH_KEYS_FRESH_SECONDS
    return min(max(int(found[1]), AUTH_KEYS_FRESH_SECONDS_MIN), AUTH_KEYS_FRESH_SECONDS_MAX)


def _data_of(uri: str) -> bytes:
    """What is in a `data:` URI. Raises: ValueError."""
    head, comma, text = uri.removeprefix("data:").partition(",")
    if not comma:
        raise ValueError("the data: URI has no comma")
    raw = unquote_to_bytes(text)
    if not head.lower().rstrip().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except binascii.Error:
        raise ValueError("the data: URI is not base64") from None


def _undiscovered(provider: Provider, why: str) -> ClientError:
    return ClientError("AuthProviderDiscoveryFailed", f"Auth provider discovery of {provider.issuer} failed: {why}.")
