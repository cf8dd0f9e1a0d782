"""An authority with a clock of the test's own, asked one token at a time."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from skerry.errors import SkerryError
from skerry.identity import Authority, Provider, User, read_providers
from skerry.identity.sources import WayOut
from tests.identity import signing

NOW_S = 1_800_000_000


class Court:
    """Shape: `now_s` is what its clock shows; without a `way_out` only `data:` URIs are read."""

    def __init__(self, *providers: dict[str, Any], way_out: WayOut | None = None) -> None:
        self.now_s: float = NOW_S
        self.charged_ns = 0
        self.loop = asyncio.get_running_loop()
        self._ticks = 0
        self.authority = Authority(way_out, lambda: int(self.now_s * 1e9), self.loop, self._cpu_ns, self._charge)
        self.authority.use(trusted(*providers))

    def _cpu_ns(self) -> int:
        self._ticks += 1
        return self._ticks

    def _charge(self, cpu_ns: int) -> None:
        self.charged_ns += cpu_ns

    def ask(self, token: bytes) -> "asyncio.Future[User | SkerryError]":
        """The outcome, when it is known."""
        future: asyncio.Future[User | SkerryError] = self.loop.create_future()
        self.authority.verify(token, future.set_result)
        return future

    async def identity(self, token: bytes) -> dict[str, Any]:
        """Whom a valid token is of."""
        outcome = await self.ask(token)
        assert isinstance(outcome, User), outcome
        return outcome.identity

    async def refusal(self, token: bytes) -> tuple[str, str]:
        """Code and message of a token that is refused."""
        outcome = await self.ask(token)
        assert isinstance(outcome, SkerryError), outcome.identity
        return outcome.code, outcome.message


def trusted(*providers: dict[str, Any]) -> tuple[Provider, ...]:
    """Providers as an auth config names them."""
    return read_providers({"providers": list(providers)}, {})


def custom(raw: bytes, algorithm: str = "RS256", **changes: Any) -> dict[str, Any]:
    """A provider of custom tokens whose keys are in the config."""
    return {
        "type": "customJwt",
        "issuer": signing.ISSUER,
        "jwks": signing.data_uri(raw),
        "algorithm": algorithm,
        "applicationID": signing.AUDIENCE,
        **changes,
    }


def run(work: Awaitable[None]) -> None:
    """Runs a test's coroutine."""

    async def whole() -> None:
        await work

    asyncio.run(whole())
