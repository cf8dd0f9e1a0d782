"""A process that changes a host's registry beside others: `registry_writer.py FOLDER ROUNDS`; prints what it created.

It waits for a line on standard input before it begins, so that all begin together.
"""

import asyncio
import json
import sys
from pathlib import Path

from skerry.admin.registry import Registry
from skerry.errors import ClientError
from skerry.storage.folder import DeploymentFolder, Hold
from skerry.storage.lmdb_engine import LmdbEngine


async def main(folder: Path, rounds: int) -> None:
    engine = LmdbEngine(folder, folder_format=DeploymentFolder.HOST_FORMAT, hold=Hold.SHARED)
    registry = Registry(engine, engine)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    created: list[str] = []
    for number in range(rounds):
        try:
            await registry.create(f"n{number}", number)
            created.append(f"n{number}")
        except ClientError as error:
            assert error.code == "DeploymentNameTaken", error
        registry.add_usage(f"n{number}", {"calls": 1})
        registry.add_usage("n0", {"calls": 1})
        await registry.save_usage()
    registry.close()
    sys.stdout.write(json.dumps(created) + "\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
