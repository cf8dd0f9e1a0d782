"""How many fetches a deployment has open at once: a counter with a bounded queue in order of arrival."""

import asyncio
from collections import deque

from skerry.errors import DeveloperError


class Places:
    """A number of places; who finds none waits, up to a number of waiters and for some seconds.

    Concurrency: one event loop. Taking a free place does not yield to it.
    """

    def __init__(self, places: int, waiting_max: int, seconds_max: float) -> None:
        self._free = places
        self._waiting_max = waiting_max
        self._seconds_max = seconds_max
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Takes a place if one is free."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def take(self) -> None:
        """Waits for a place and takes it.

        Raises: DeveloperError EgressBusy.
        """
        if len(self._waiting) >= self._waiting_max:
            raise DeveloperError("EgressBusy", f"{self._waiting_max} fetches already wait for earlier ones to be read.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._seconds_max):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give()  # it came in the same moment
            elif turn in self._waiting:  # who gave a place in the same moment has passed it over
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                sentence = f"No earlier fetch ended within {self._seconds_max:g} s; read or close responses first."
                raise DeveloperError("EgressBusy", sentence) from None
            raise

    def give(self) -> None:
        """Gives a place back, or on to who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
