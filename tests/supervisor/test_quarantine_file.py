"""The file of quarantined modules: what was written comes back, and what is damaged is told."""

import asyncio
from pathlib import Path

import pytest

from skerry.errors import SystemFault
from skerry.limits import QUARANTINE_LIFT_SECONDS_MAX, QUARANTINED_MODULES_MAX
from skerry.supervisor import worker_side
from skerry.supervisor.channel import ChannelEnded
from skerry.supervisor.crash_page import RunningModule
from skerry.supervisor.quarantine_file import load_quarantine, quarantine_file, save_quarantine
from skerry.supervisor.worker_side import KnownQuarantine

ONE = RunningModule("one", "a" * 64)
TWO = RunningModule("two", "b" * 64)


def test_what_was_written_comes_back_and_the_oldest_is_forgotten_past_the_bound(tmp_path: Path) -> None:
    path = quarantine_file(tmp_path)
    assert load_quarantine(path) == []
    save_quarantine(path, [ONE, TWO])
    save_quarantine(path, [TWO, ONE])
    assert load_quarantine(path) == [TWO, ONE]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    many = [RunningModule(f"n{number}", f"{number:064x}") for number in range(QUARANTINED_MODULES_MAX + 1)]
    save_quarantine(path, many[:-1])
    assert load_quarantine(path) == many[:-1]
    save_quarantine(path, many)
    assert load_quarantine(path) == many[1:]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"format":2,"modules":[]}', '{"format":1,"modules":7}', '{"format":1,"modules":[["one"]]}',
        '{"format":1,"modules":[["one","xyz"]]}', '{"format":1,"modules":[["one",7]]}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "quarantine.json"
    path.write_text(text)
    with pytest.raises(SystemFault) as caught:
        load_quarantine(path)
    assert caught.value.code == "DataFolderFormat" and str(path) in caught.value.message


def test_a_worker_waits_until_it_is_told_that_a_quarantine_was_lifted() -> None:
    asked: list[bytes] = []

    async def lift() -> None:
        known = KnownQuarantine([ONE, TWO], lambda message: asked.append(message) is None)
        lifting = asyncio.ensure_future(known.lift("one"))
        await asyncio.sleep(0)
        assert asked == [b'{"lift": "one"}'] and not lifting.done() and known.has(*ONE)
        known.told([["two", "b" * 64]])
        await lifting
        assert known.listed() == [TWO] and not known.has(*ONE)
        lifting = asyncio.ensure_future(known.lift("two"))
        await asyncio.sleep(0)
        known.told([TWO])  # of another change
        with pytest.raises(SystemFault, match="Try again"):
            await lifting

    asyncio.run(lift())


@pytest.mark.parametrize("ended", [False, True])
def test_a_supervisor_that_cannot_be_asked_is_told(ended: bool) -> None:
    def ask(message: bytes) -> bool:
        if ended:
            raise ChannelEnded
        return False

    with pytest.raises(SystemFault) as caught:
        asyncio.run(KnownQuarantine([ONE], ask).lift("one"))
    assert caught.value.code == "QuarantineUnchanged"


def test_a_supervisor_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_side, "QUARANTINE_LIFT_SECONDS_MAX", QUARANTINE_LIFT_SECONDS_MAX / 1_000)
    with pytest.raises(SystemFault, match="did not lift"):
        asyncio.run(KnownQuarantine([ONE], lambda message: True).lift("one"))
