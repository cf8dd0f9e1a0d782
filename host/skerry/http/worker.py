"""A worker process of `skerry serve`: begins with what its supervisor hands it, serves its share, ends when told.

Everything heavy is imported after the supervisor was heard, so that a worker whose parent ended is not left behind.
"""

import asyncio
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from skerry.errors import SkerryError
from skerry.http.server_log import log_to
from skerry.supervisor.channel import ChannelEnded
from skerry.supervisor.ownership import Owners
from skerry.supervisor.worker_side import Beginning, KnownQuarantine, begin

if TYPE_CHECKING:
    from skerry.http.server import Serving, Share


def main() -> int:
    """Runs a worker to its end; the exit code."""
    try:
        beginning = begin()
    except SkerryError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    log_to(sys.stderr, f"%(asctime)s %(levelname)s worker {beginning.index} %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        _serve(beginning)
    except SkerryError as error:
        beginning.say_failed(error)
        return 1
    return 0


def _serve(beginning: Beginning) -> None:
    import uvloop

    from skerry.admin.host import HostShare
    from skerry.functions.crash_notes import keep_crash_notes
    from skerry.http.serve_options import ServeOptions
    from skerry.http.server import Share, serve_on
    from skerry.jail import JAIL, WALL_NAMES

    keep_crash_notes(beginning.crash_page)
    owners = Owners(beginning.workers)
    quarantine = KnownQuarantine(beginning.quarantined, beginning.control.send)
    of_host = HostShare(
        owns=lambda name: owners.of(name) == beginning.index,
        succeeds=beginning.succeeds,
        quarantine=quarantine,
        workers=beginning.workers,
    )
    share = Share(beginning.index, beginning.door, beginning.doors, of_host)
    options = ServeOptions.from_json(beginning.options)
    if options.require_walls:
        JAIL.require(WALL_NAMES)

    async def ready(serving: "Serving") -> None:
        await _follow(beginning, share, serving, quarantine)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_on(options, beginning.listeners, share, ready))


async def _follow(beginning: Beginning, share: "Share", serving: "Serving", quarantine: KnownQuarantine) -> None:
    """Does what the supervisor says, until the server stops or the supervisor is gone."""
    share.open_door()
    beginning.say_ready({"deployment": serving.deployment.name})
    if beginning.index == 0 and not beginning.succeeds:
        sys.stderr.write(await asyncio.to_thread(_walls_line) + "\n")
    while (told := await _hear(beginning, serving.loop)) is not None:
        if "quarantined" in told:
            quarantine.told(told["quarantined"])
        if told.get("retire"):
            await share.retire()
            break
    serving.stop()


def _walls_line() -> str:
    """What confines the compilation of uploaded code here, and what does not."""
    from skerry.jail import walls

    try:
        found = walls()
    except SkerryError as error:
        return f"compiling uploaded code: {error.message}"
    down = [f"{wall.name} ({wall.why})" for wall in found if not wall.up]
    missing = f"; NOT up: {', '.join(down)}" if down else ""
    return f"compiling uploaded code: {len(found) - len(down)} of {len(found)} walls up{missing}"


async def _hear(beginning: Beginning, loop: asyncio.AbstractEventLoop) -> dict[str, Any] | None:
    """The supervisor's next message, None when there will be none."""
    while True:
        try:
            arrived = beginning.control.receive()
        except ChannelEnded:
            return None
        if arrived is not None:
            return json.loads(arrived[0])
        readable = loop.create_future()
        loop.add_reader(beginning.control.fileno(), readable.set_result, None)
        try:
            await readable
        finally:
            loop.remove_reader(beginning.control.fileno())


if __name__ == "__main__":
    sys.exit(main())
