"""A process that schedules and runs until it is killed: prints what was answered."""

import asyncio
import sys
from pathlib import Path

from tests.fixtures.world import World

AT_ONCE = 4


def main() -> None:
    folder, compiled, bundle, begin = sys.argv[1:]
    with World(Path(folder), Path(compiled), stream=begin.encode()) as world:
        world.now_ns += int(begin) * 1_000_000
        if world.deployment.version is None:
            world.activate(Path(bundle).read_bytes())
        world.loop.run_until_complete(_schedule_forever(world, int(begin)))


async def _schedule_forever(world: World, begin: int) -> None:
    numbers = iter(range(begin, 1 << 60))

    async def one_after_the_other() -> None:
        for number in numbers:
            world.now_ns += 1_000_000
            function = ("note", "act", "fails")[number % 3]
            result = await world.start("mutation", "jobs:after", {"ms": number % 5, "n": number, "fn": function})
            assert result.ok, result.error_message
            sys.stdout.buffer.write(b"%d\n" % number)
            sys.stdout.buffer.flush()

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    main()
