"""Each wall, tried from inside: all of them together, and each alone, so that none hides behind another."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from skerry import limits
from skerry.errors import ClientError, SystemFault
from skerry.jail import WALL_NAMES, Jail
from tests.jail.conftest import tried

ALL_REFUSED = "EPERM"
NAMESPACES = [name for name in WALL_NAMES if name.startswith("namespace: ")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What there is to get at: a file of the data folder, a listening server, this process."""
    secret = tmp_path_factory.mktemp("data") / "host.key"
    secret.write_bytes(b"secret")
    with ExitStack() as open_sockets:
        server = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        datagrams = open_sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", 0))
        abstract = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0skerry test {os.getpid()}")
        abstract.listen()
        yield {
            "secret": str(secret),
            "port": server.getsockname()[1],
            "datagram port": datagrams.getsockname()[1],
            "abstract": f"skerry test {os.getpid()}",
            "pid": os.getpid(),
            "folder": str(secret.parent),
            "new": str(secret.parent / "new"),
        }


# name of the attempt -> (probe, arguments; a string in braces is looked up in `world`)
ATTEMPTS: dict[str, tuple[object, ...]] = {
    "read a file of the system": ("read_file", "/etc/passwd"),
    "read the data folder": ("read_file", "{secret}"),
    "read a process's environment": ("read_file", "/proc/self/environ"),
    "list the root": ("list_folder", "/"),
    "write a file": ("write_file", "{new}"),
    "connect to a server": ("connect", "{port}"),
    "listen": ("listen",),
    "send a datagram": ("send_datagram", "{datagram port}"),
    "connect to an abstract socket": ("connect_abstract", "{abstract}"),
    "fork": ("fork",),
    "fork without end": ("fork_bomb",),
    "start a program": ("spawn",),
    "become a program": ("execute",),
    "kill the host": ("kill", "{pid}"),
    "kill everything": ("kill", -1),
    "signal a thread of the host": ("signal_thread", "{pid}"),
    "attach to the host": ("trace", "{pid}"),
    "read the host's memory": ("read_memory", "{pid}"),
    "share memory": ("hoard_shared",),
    "change the root": ("change_root",),
    "mount": ("mount",),
    "make a namespace": ("new_namespace",),
}


def attempt(jail: Jail, world: dict[str, object], name: str) -> object:
    probe, *arguments = ATTEMPTS[name]
    looked_up = [
        world[argument.strip("{}")] if isinstance(argument, str) and argument.startswith("{") else argument
        for argument in arguments
    ]
    return tried(jail, str(probe), *looked_up)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_whoever_takes_over_a_job_gets_nowhere(
    jail_with: Callable[..., Jail], world: dict[str, object], name: str
) -> None:
    assert attempt(jail_with(), world, name) == ALL_REFUSED
    assert not Path(str(world["new"])).exists()


ALONE: dict[str, tuple[list[str], dict[str, str]]] = {
    "landlock": (
        ["no privileges", "landlock"],
        {
            "read a file of the system": "EACCES",
            "read the data folder": "EACCES",
            "list the root": "EACCES",
            "write a file": "EACCES",
            "connect to a server": "EACCES",
            "connect to an abstract socket": "EPERM",
            "kill the host": "EPERM",
            "attach to the host": "EPERM",
            "start a program": "EACCES",
        },
    ),
    "empty root": (
        ["namespace: user", "namespace: mounts", "empty root"],
        {
            "read a file of the system": "ENOENT",
            "read the data folder": "ENOENT",
            "write a file": "ENOENT",
            "start a program": "ENOENT",
        },
    ),
    "network": (
        ["namespace: user", "namespace: network"],
        {
            "connect to a server": "ENETUNREACH",
            "send a datagram": "ENETUNREACH",
            "connect to an abstract socket": "ECONNREFUSED",
        },
    ),
    "processes": (
        ["namespace: user", "namespace: processes"],
        {"kill the host": "ESRCH", "attach to the host": "ESRCH", "read the host's memory": "ESRCH"},
    ),
    "no privileges": (["namespace: user", "no privileges"], {"change the root": "EPERM", "mount": "EPERM"}),
    "system call filter": (["no privileges", "system call filter"], dict.fromkeys(ATTEMPTS, "EPERM")),
}


@pytest.mark.parametrize(("wall", "name"), [(wall, name) for wall, (_, refusals) in ALONE.items() for name in refusals])
def test_each_wall_stands_alone(jail_with: Callable[..., Jail], world: dict[str, object], wall: str, name: str) -> None:
    only, refusals = ALONE[wall]
    down = [wall for wall in jail_with().walls() if wall.name in only and not wall.up]
    if down:
        pytest.skip(f"this machine refuses it: {down[0].why}")
    assert attempt(jail_with(only=only), world, name) == refusals[name]


def test_without_walls_the_attempts_succeed(jail_with: Callable[..., Jail], world: dict[str, object]) -> None:
    """So that a refusal above is the wall's."""
    for name in (
        "read the data folder",
        "connect to a server",
        "connect to an abstract socket",
        "fork",
        "share memory",
    ):
        assert attempt(jail_with(only=[]), world, name) == "done", name


def test_the_root_of_a_job_is_empty(jail_with: Callable[..., Jail]) -> None:
    assert tried(jail_with(only=ALONE["empty root"][0]), "list_folder", "/") == []


def test_a_job_has_no_environment_and_three_pipes(jail_with: Callable[..., Jail]) -> None:
    with open(os.devnull) as inheritable:
        os.set_inheritable(inheritable.fileno(), True)
        jail = jail_with()
        assert tried(jail, "environment") == {}
        assert tried(jail, "descriptors") == [0, 1, 2]


def test_a_job_cannot_be_inspected_or_gain_rights(jail_with: Callable[..., Jail]) -> None:
    assert tried(jail_with(only=["no privileges"]), "core_flags") == [0, 1]


def test_memory_has_a_bound(jail_with: Callable[..., Jail]) -> None:
    assert tried(jail_with(limits={"JAIL_MEMORY_BYTES_MAX": 256 << 20}), "hoard") == "MemoryError"


def test_file_size_has_a_bound(jail_with: Callable[..., Jail]) -> None:
    jail = jail_with()
    assert tried(jail, "long_file", limits.JAIL_FILE_BYTES_MAX) == "done"
    assert tried(jail, "long_file", limits.JAIL_FILE_BYTES_MAX + 1) == "EFBIG"


def test_descriptors_have_a_bound(jail_with: Callable[..., Jail]) -> None:
    assert limits.JAIL_FILES_MAX < 1_000
    assert tried(jail_with(), "hoard_files") == "EMFILE"
    assert tried(jail_with(only=["limits"]), "hoard_files") == "EMFILE"


def test_cpu_time_has_a_bound(jail_with: Callable[..., Jail], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JAIL_CPU_SECONDS_MAX", 1)
    with pytest.raises(ClientError, match="more than 1 s of CPU time") as caught:
        tried(jail_with(limits={"JAIL_CPU_SECONDS_MAX": 1}), "burn")
    assert caught.value.code == "JobTooExpensive"


def test_a_job_cannot_raise_its_limits(jail_with: Callable[..., Jail]) -> None:
    jail = jail_with(only=["namespace: user", "no privileges", "limits"])
    assert tried(jail, "raise_limit") in ("ValueError", "EPERM")
    assert tried(jail_with(), "raise_limit") != "done"


def test_every_wall_is_reported_and_those_of_any_linux_are_up(jail_with: Callable[..., Jail]) -> None:
    walls = jail_with().walls()
    assert [wall.name for wall in walls] == list(WALL_NAMES)
    assert {wall.name for wall in walls if wall.up} >= {"system call filter", "limits", "no privileges"}
    assert all(wall.why for wall in walls)


@pytest.mark.parametrize("name", [*WALL_NAMES, "all"])
def test_a_wall_that_the_machine_refuses_leaves_the_others(jail_with: Callable[..., Jail], name: str) -> None:
    refused = list(WALL_NAMES) if name == "all" else [name]
    missing_here = {wall.name for wall in jail_with().walls() if not wall.up}
    jail = jail_with(refused=refused)
    down = {wall.name: wall.why for wall in jail.walls() if not wall.up}
    # Without a user namespace a process that may not make the others itself has none of them.
    may_follow = missing_here | {"empty root", *(NAMESPACES if name == "namespace: user" else [])}
    assert set(refused) <= set(down) <= {*refused, *may_follow}
    assert "Operation not permitted" in down[refused[0]]
    assert tried(jail, "environment") == {}


def test_walls_can_be_required(jail_with: Callable[..., Jail]) -> None:
    jail = jail_with(refused=["landlock"])
    jail.require(["system call filter"])
    assert tried(jail, "environment") == {}
    jail.require(["system call filter", "landlock"])
    with pytest.raises(SystemFault, match="landlock: the machine refuses: Operation not permitted") as caught:
        tried(jail, "environment")
    assert caught.value.code == "JailWallsMissing"
