"""How the functions of a deployment reach the network: its `Egress`, made at its first fetch.

`Egress` wants the loop that it will run on, and a deployment may be opened on any thread; most never fetch.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Literal, cast

from skerry.admin.shares import Share
from skerry.egress import Egress, EgressPolicy, FetchRequest, FetchResponse, LookupThreads


class WaysOut:
    """What the deployments of a process share of theirs: the policy, and the threads that look names up.

    Shape: `allow` are exceptions as `--allow-egress` writes them. Raises: ValueError, with a sentence for the operator.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._policy = EgressPolicy.of(allow=allow)
        self._lookups = LookupThreads()

    def make(self, share: Share | None = None) -> "WayOut":
        """A deployment's own, charged to its share."""
        return WayOut(self._policy, self._lookups, share)

    def close(self) -> None:
        """Ends the threads; the ways out are closed by then."""
        self._lookups.close()


class WayOut:
    """One deployment's way out under a policy. Concurrency: the loop thread."""

    def __init__(self, policy: EgressPolicy, lookups: LookupThreads, share: Share | None) -> None:
        self._share = share
        self._policy = policy
        self._lookups = lookups
        self._egress: Egress | None = None

    async def fetch(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
        redirect: str,
    ) -> FetchResponse:
        """Sends a request. Raises: DeveloperError with the codes Egress..."""
        if self._share is not None:
            self._share.begin_fetch()
        egress = self._egress
        if egress is None:
            egress = self._egress = Egress(self._policy, self._lookups.resolver(), on_bytes=self._charge)
        mode = cast("Literal['follow', 'error', 'manual']", redirect)
        return await egress.fetch(FetchRequest(method, url, headers, body, mode))

    def _charge(self, sent: int, received: int) -> None:
        if self._share is not None:
            self._share.egress_bytes(sent + received)

    async def close(self) -> None:
        """Ends every fetch and connection."""
        if self._egress is not None:
            await self._egress.close()
