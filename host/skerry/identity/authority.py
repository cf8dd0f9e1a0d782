"""Who says who a user is, for one deployment: tokens in, users out.

A token is verified once; until it expires, its provider's keys change or the providers do, the same bytes are found by
their digest. What a verification takes is charged to the deployment.

Concurrency: the loop thread. `verify` tells at once where the keys are there.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.identity.claims import check_claims, identity_of, is_for, issuer_of, refused
from skerry.identity.keys import KeySet, is_signed
from skerry.identity.providers import Provider, normalised_issuer
from skerry.identity.sources import KeySource, WayOut
from skerry.identity.tokens import Token, read_token
from skerry.limits import AUTH_CLOCK_SKEW_SECONDS, AUTH_TOKENS_WAITING_MAX, AUTH_VERIFIED_BYTES_MAX

_DIGEST_BYTES: Final = 16
_KEPT_BYTES: Final = 512  # of memory that a verified token takes besides what it says
_SHOWN_CHARS_MAX: Final = 200
_NS_PER_S: Final = 1_000_000_000


class User:
    """Somebody whom a provider vouches for. Shape: `identity` as functions see it; `expires_s` since the epoch."""

    __slots__ = ("expires_s", "identity", "token")

    def __init__(self, identity: dict[str, Any], expires_s: float, token: bytes) -> None:
        self.identity = identity
        self.expires_s = expires_s
        self.token = token

    def has_expired(self, now_s: float) -> bool:
        """Whether its token has stopped to hold."""
        return self.expires_s + AUTH_CLOCK_SKEW_SECONDS <= now_s


Told = Callable[["User | SkerryError"], None]


class Authority:
    """The providers of one deployment. Shape: `charge` is told how many nanoseconds of CPU time a verification took."""

    def __init__(
        self,
        way_out: WayOut | None,
        clock_ns: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
        thread_time_ns: Callable[[], int],
        charge: Callable[[int], None],
    ) -> None:
        self._way_out = way_out
        self._clock_ns = clock_ns
        self._loop = loop
        self._thread_time_ns = thread_time_ns
        self._charge = charge
        self._sources: dict[Provider, KeySource] = {}
        self._verified: OrderedDict[bytes, tuple[User, KeySource, KeySet | None]] = OrderedDict()
        self._verified_bytes = 0
        self._waiting = 0
        self._is_closed = False
        self.verifications = 0

    def now_s(self) -> float:
        """The time, in seconds since the epoch."""
        return self._clock_ns() / _NS_PER_S

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The providers in force."""
        return tuple(self._sources)

    def use(self, providers: tuple[Provider, ...]) -> None:
        """Puts these providers in force; of those that stay, the keys stay too."""
        if providers == self.providers:
            return
        before, self._sources = self._sources, {}
        for provider in providers:
            source = before.pop(provider, None)
            self._sources[provider] = source or KeySource(provider, self._way_out, self.now_s, self._loop)
        for source in before.values():
            source.close()
        self._verified.clear()
        self._verified_bytes = 0

    def verify(self, token: bytes, told: Told) -> None:
        """Tells whose token it is, or a ClientError where it is nobody's."""
        if self._is_closed:
            told(SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment."))
            return
        now_s = self.now_s()
        name = blake2b(token, digest_size=_DIGEST_BYTES).digest()
        known = self._verified.get(name)
        if known is not None:
            user, source, keys = known
            if source.keys is keys and now_s < source.fresh_until_s and not user.has_expired(now_s):
                self._verified.move_to_end(name)
                told(user)
                return
            self._forget(name)
        try:
            read = read_token(token)
            provider, source = self._source_of(read, now_s)
        except ClientError as error:
            told(error)
            return
        if self._waiting >= AUTH_TOKENS_WAITING_MAX:
            told(SystemFault("TooManyConcurrentRequests", "Too many tokens wait for their provider's keys. Try again."))
            return
        self._waiting += 1
        source.get(partial(self._judge, name, token, read, provider, source, told, False))

    def close(self) -> None:
        """Ends what is under way; every later token is refused."""
        self._is_closed = True
        for source in self._sources.values():
            source.close()

    def _source_of(self, token: Token, now_s: float) -> tuple[Provider, KeySource]:
        """The first provider that a token can be of. Raises: ClientError."""
        claimed = issuer_of(token.claims)
        issuer = normalised_issuer(claimed)
        for provider, source in self._sources.items():
            if provider.issuer == issuer and (provider.audience is None or is_for(token.claims, provider.audience)):
                check_claims(token.claims, provider, now_s)
                if token.algorithm not in provider.algorithms:
                    raise refused(provider, f"it is signed with {token.algorithm[:16]!r}, which is not accepted")
                if token.kid is None and not provider.is_oidc:
                    raise refused(provider, "its header is missing a 'kid'")
                return provider, source
        listed = ", ".join(map(str, self._sources)) or "none are configured"
        raise ClientError(
            "NoAuthProvider",
            f"No auth provider found matching the given token (issuer {claimed[:_SHOWN_CHARS_MAX]!r}, audience "
            f"{str(token.claims.get('aud'))[:_SHOWN_CHARS_MAX]!r}). The deployment's providers: {listed}.",
        )

    def _judge(
        self,
        name: bytes,
        raw: bytes,
        token: Token,
        provider: Provider,
        source: KeySource,
        told: Told,
        is_again: bool,
        keys: KeySet | SkerryError,
    ) -> None:
        key = keys.find(token.kid, token.algorithm) if isinstance(keys, KeySet) else None
        if key is None and isinstance(keys, KeySet) and not is_again:  # the provider may have new keys
            source.get_newer(partial(self._judge, name, raw, token, provider, source, told, True))
            return
        self._waiting -= 1
        if isinstance(keys, SkerryError):
            told(keys)
            return
        if key is None:
            kid = "without a kid" if token.kid is None else f"with the unknown kid {token.kid[:_SHOWN_CHARS_MAX]!r}"
            told(refused(provider, f"it is signed {kid}"))
            return
        began_ns = self._thread_time_ns()
        self.verifications += 1
        is_valid = is_signed(key, token.signed, token.signature)
        try:
            if not is_valid:
                raise refused(provider, "its signature is not that of the provider's key")
            expires_s = check_claims(token.claims, provider, self.now_s())
            user = User(identity_of(token.claims, provider), expires_s, raw)
        except ClientError as error:
            told(error)
            return
        finally:
            self._charge(self._thread_time_ns() - began_ns)
        if self._sources.get(provider) is source:
            self._keep(name, user, source, keys)
        told(user)

    def _keep(self, name: bytes, user: User, source: KeySource, keys: KeySet) -> None:
        self._forget(name)
        self._verified[name] = (user, source, keys)
        self._verified_bytes += _size(user)
        while self._verified_bytes > AUTH_VERIFIED_BYTES_MAX:
            self._forget(next(iter(self._verified)))

    def _forget(self, name: bytes) -> None:
        known = self._verified.pop(name, None)
        if known is not None:
            self._verified_bytes -= _size(known[0])


def _size(user: User) -> int:
    return 3 * len(user.token) + _KEPT_BYTES
