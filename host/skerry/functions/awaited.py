"""A call with a callback, as something to await."""

import asyncio
from collections.abc import Callable

from skerry.errors import SkerryError
from skerry.functions.lane import Done
from skerry.functions.request import CallRequest, CallResult


async def awaited(
    loop: asyncio.AbstractEventLoop, call: Callable[[CallRequest, Done], None], request: CallRequest
) -> CallResult:
    """What a call of the request comes to. Raises: SkerryError."""
    future: asyncio.Future[CallResult] = loop.create_future()

    def done(outcome: CallResult | SkerryError) -> None:
        if future.done():  # who waited for it has left
            return
        if isinstance(outcome, SkerryError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    call(request, done)
    return await future
