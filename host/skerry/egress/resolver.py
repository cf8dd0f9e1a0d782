"""Names to addresses: the system's resolver on threads of its own, bounded for the process and for each deployment.

The C library cannot be interrupted: a lookup that a slow name server holds keeps its thread until the library gives up,
so threads are counted by lookups that truly ended, and one deployment may hold fewer of them than there are. Nothing is
remembered between lookups: what is connected to is what was answered just now. Deliberately absent: a resolver of our
own, and rules about what an answer may say; those are the connector's.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from skerry.errors import DeveloperError
from skerry.limits import EGRESS_LOOKUP_THREADS, EGRESS_LOOKUPS_MAX

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Looks a name up for a port and answers addresses as text; raises OSError where there are none."""


def system_lookup(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver has for a name. Blocks.

    Raises: OSError; UnicodeError for a name that cannot be written to a name server.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class LookupThreads:
    """The threads that look names up, for all deployments of a process. `close` them with the process."""

    def __init__(self, lookup: Callable[[str, int], list[str]] = system_lookup) -> None:
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(EGRESS_LOOKUP_THREADS, thread_name_prefix="lookup")

    def resolver(self) -> Resolve:
        """A resolver for one deployment: at most EGRESS_LOOKUPS_MAX of its lookups hold a thread, further ones wait.

        Concurrency: one event loop. A lookup that is no longer awaited gives its share back when it has truly ended.
        """
        share = asyncio.Semaphore(EGRESS_LOOKUPS_MAX)

        async def resolve(host: str, port: int) -> list[str]:
            await share.acquire()
            loop = asyncio.get_running_loop()
            try:
                running = self._threads.submit(self._lookup, host, port)
            except RuntimeError as error:
                share.release()
                raise DeveloperError("EgressFailed", "The server is stopping; fetch again once it is back.") from error

            def ended(_: Future[list[str]]) -> None:
                try:
                    loop.call_soon_threadsafe(share.release)
                except RuntimeError:
                    pass  # the loop closed meanwhile, and with it everybody who could wait

            running.add_done_callback(ended)
            return await asyncio.wrap_future(running)

        return resolve

    def close(self) -> None:
        """Ends the threads as soon as their lookups end; does not wait for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
