"""The example of scheduled functions, as it is."""

from pathlib import Path

from skerry.bundle.build import build_app
from skerry.isolate import build_runner_at
from tests.conftest import REPOSITORY
from tests.fixtures import shared
from tests.fixtures.bundles import CLOCK_MS
from tests.fixtures.world import NOW_MS
from tests.schedule.test_crons import pass_ms, shown
from tests.schedule.world import Clocked

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def test_reminders_fire_are_taken_back_and_are_tidied_away(base: Path, tmp_path: Path) -> None:
    folder = REPOSITORY / "examples" / "reminders"
    runner = build_runner_at(shared.module_cache(base))
    bundle = build_app(folder, clock_ms=CLOCK_MS, instantiate_at=runner).to_bytes()
    with Clocked(tmp_path / "data", shared.compiled(base)) as world:
        world.activate(bundle)
        world.mutation("reminders:add", {"text": "tea", "at": NOW_MS + HOUR_MS})
        taken_back = world.mutation("reminders:add", {"text": "never", "at": NOW_MS + HOUR_MS})
        world.mutation("reminders:remove", {"id": taken_back})
        [tea] = world.query("reminders:list")
        assert (tea["text"], tea["firedAt"], tea["state"]) == ("tea", None, "pending")
        pass_ms(world, HOUR_MS)
        world.settle()
        [tea] = world.query("reminders:list")
        assert tea["state"] == "success" and tea["firedAt"] >= NOW_MS + HOUR_MS
        assert list(shown(world)) == ["remove old reminders"]
        for _ in range(9 * 24 + 1):
            pass_ms(world, HOUR_MS)
        assert world.query("reminders:list") == []
