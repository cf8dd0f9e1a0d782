"""Crons of a deployment: they follow its version, run once for a time and one at a time, and are shown."""

import functools
from pathlib import Path
from typing import Any

import pytest

from skerry.bundle.build import build_app
from skerry.errors import ClientError
from skerry.isolate import build_runner_at
from skerry.schedule.jobs import LOST_ACTION
from tests.bundle.apps import write_app
from tests.fixtures import shared
from tests.fixtures.bundles import CLOCK_MS
from tests.fixtures.world import NOW_MS
from tests.schedule.world import Clocked

SECOND_MS = 1000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
JOBS = """
    import { mutationGeneric as mutation, internalMutationGeneric as internalMutation, queryGeneric as query,
             internalActionGeneric as internalAction, anyApi } from "convex/server";
    const api: any = anyApi;
    const put = async (ctx: any, n: any) => void (await ctx.db.insert("notes", { n }));
    export const note = internalMutation({ handler: async (ctx: any, { n }: any) => await put(ctx, n) });
    export const fails = mutation({ handler: async () => { throw new Error("no luck"); } });
    export const sleeps = internalAction({
      handler: async (ctx: any, { n }: any) => {
        await ctx.runMutation(api.jobs.note, { n });
        await new Promise((resolve) => setTimeout(resolve, 150_000));
      },
    });
    export const look = query({ handler: async () => null });
    export const notes = query({
      handler: async (ctx: any) => (await ctx.db.query("notes").collect()).map(({ n }: any) => n),
    });
    export const who = internalMutation({
      handler: async (ctx: any) => await put(ctx, await ctx.auth.getUserIdentity()),
    });
"""


@functools.cache
def app(base: Path, crons: str) -> bytes:
    """An app whose `crons.ts` says this."""
    files = {
        "package.json": '{"dependencies": {"convex": "1"}}',
        "convex/jobs.ts": JOBS,
        "convex/crons.ts": f"""
            import {{ anyApi, cronJobs }} from "convex/server";
            const internal: any = anyApi;
            const crons = cronJobs();
            {crons}
            export default crons;
        """,
    }
    folder = write_app(base / f"crons-{abs(hash(crons))}", files)
    return build_app(folder, clock_ms=CLOCK_MS, instantiate_at=build_runner_at(shared.module_cache(base))).to_bytes()


EVERY = 'crons.interval("every", { minutes: 1 }, internal.jobs.note, { n: 1 });'
NIGHTLY = 'crons.daily("nightly", { hourUTC: 3, minuteUTC: 0 }, internal.jobs.note, { n: 2 });'
SLOW = 'crons.interval("slow", { minutes: 1 }, internal.jobs.sleeps, { n: 3 });'


@pytest.fixture
def world(base: Path, tmp_path: Path) -> Any:
    with Clocked(tmp_path / "data", shared.compiled(base)) as made:
        yield made


def settle(world: Clocked) -> None:
    world.until(lambda: world.deployment.scheduled.crons.is_quiet and not world.deployment.under_way)


def deploy(world: Clocked, raw: bytes) -> None:
    world.activate(raw)
    settle(world)


def pass_ms(world: Clocked, ms: float) -> None:
    world.now_ns += int(ms * 1_000_000)
    world.timers.advance(ms / 1000)
    settle(world)


def shown(world: Clocked) -> dict[str, dict[str, Any]]:
    return {cron["name"]: cron for cron in world.deployment.scheduled.crons.listed()}


def test_an_interval_runs_at_once_and_then_by_its_period(world: Clocked, base: Path) -> None:
    deploy(world, app(base, EVERY))
    assert world.notes() == [1]
    pass_ms(world, MINUTE_MS - SECOND_MS)
    assert world.notes() == [1]
    pass_ms(world, SECOND_MS)
    assert world.notes() == [1, 1]
    cron = shown(world)["every"]
    assert cron["lastState"] == {"kind": "success"}
    assert cron["nextTime"] - cron["lastTime"] == MINUTE_MS
    assert cron["function"] == "jobs.js:note"


def test_a_daily_cron_waits_for_its_hour(world: Clocked, base: Path) -> None:
    deploy(world, app(base, NIGHTLY))
    assert world.notes() == []
    due_ms = shown(world)["nightly"]["nextTime"]
    assert NOW_MS < due_ms <= NOW_MS + 24 * HOUR_MS and due_ms % (24 * HOUR_MS) == 3 * HOUR_MS
    while world.now_ns < (due_ms - 2 * HOUR_MS) * 1_000_000:
        pass_ms(world, HOUR_MS)
    assert world.notes() == []
    for _ in range(2):
        pass_ms(world, HOUR_MS)
    assert world.notes() == [2]


def test_what_was_missed_runs_once_and_the_rest_is_left_out(world: Clocked, base: Path) -> None:
    deploy(world, app(base, EVERY))
    before = shown(world)["every"]["nextTime"]
    pass_ms(world, 10 * MINUTE_MS)
    assert world.notes() == [1, 1]
    cron = shown(world)["every"]
    assert cron["skipped"] == 9
    assert cron["nextTime"] == before + 10 * MINUTE_MS


def test_a_deploy_keeps_changes_adds_and_removes(world: Clocked, base: Path) -> None:
    deploy(world, app(base, EVERY + NIGHTLY))
    before = shown(world)
    pass_ms(world, SECOND_MS)
    other = NIGHTLY.replace("hourUTC: 3", "hourUTC: 4")
    deploy(world, app(base, EVERY + other))
    after = shown(world)
    assert after["every"] == before["every"], "what is the same keeps its next run"
    assert after["nightly"]["nextTime"] != before["nightly"]["nextTime"]
    deploy(world, app(base, NIGHTLY))
    assert list(shown(world)) == ["nightly"]
    pass_ms(world, 2 * MINUTE_MS)
    assert world.notes() == [1]
    deploy(world, app(base, ""))
    assert shown(world) == {}
    assert world.deployment.scheduled.crons.next_due_ms() is None


def test_crons_go_on_after_a_restart(world: Clocked, base: Path, tmp_path: Path) -> None:
    deploy(world, app(base, EVERY))
    before, now_ns = shown(world), world.now_ns
    world.close()
    with Clocked(tmp_path / "data", shared.compiled(base), stream=b"again") as again:
        again.now_ns = now_ns
        settle(again)
        assert shown(again) == before
        pass_ms(again, MINUTE_MS)
        assert again.notes() == [1, 1]


def test_one_run_at_a_time_and_what_comes_meanwhile_is_left_out(world: Clocked, base: Path) -> None:
    world.activate(app(base, SLOW))
    world.until(lambda: world.timers.waiting(150))
    assert shown(world)["slow"]["lastState"] == {"kind": "inProgress"}
    for _ in range(4):
        world.now_ns += 30 * SECOND_MS * 1_000_000
        world.timers.advance(30)
        world.turn(5)
    assert world.notes() == [3], "the second and third time came while it ran"
    world.now_ns += 31 * SECOND_MS * 1_000_000
    world.timers.advance(31)
    settle(world)
    cron = shown(world)["slow"]
    assert cron["lastState"] == {"kind": "success"}
    assert cron["skipped"] == 2
    assert cron["nextTime"] > world.now_ns / 1_000_000
    world.now_ns += MINUTE_MS * 1_000_000
    world.timers.advance(60)
    world.asked_until(lambda: world.notes() == [3, 3])
    world.deployment.actions.end_all()
    settle(world)


def test_an_action_that_was_lost_has_failed_and_its_cron_goes_on(world: Clocked, base: Path, tmp_path: Path) -> None:
    world.activate(app(base, SLOW))
    world.until(lambda: world.timers.waiting(150))
    world.deployment.actions.end_all()
    settle(world)
    assert shown(world)["slow"]["lastState"] == {"kind": "failed", "error": LOST_ACTION}
    assert shown(world)["slow"]["running"] is None


def test_a_mutation_that_throws_has_failed_and_runs_the_next_time(world: Clocked, base: Path) -> None:
    deploy(world, app(base, 'crons.interval("bad", { minutes: 1 }, internal.jobs.fails);'))
    first = shown(world)["bad"]
    assert first["lastState"]["kind"] == "failed" and "no luck" in first["lastState"]["error"]
    pass_ms(world, MINUTE_MS)
    assert shown(world)["bad"]["lastTime"] == first["nextTime"]


def test_crons_run_as_nobody(world: Clocked, base: Path) -> None:
    deploy(world, app(base, 'crons.interval("who", { hours: 1 }, internal.jobs.who);'))
    assert world.notes() == [None]


@pytest.mark.parametrize(
    ("crons", "said"),
    [
        ('crons.cron("odd", "* * 32 * *", internal.jobs.note, { n: 1 });', "wrong at character 5: '32' is no day of"),
        ('crons.interval("gone", { hours: 1 }, internal.jobs.away);', "there is no such function"),
        ('crons.interval("asks", { hours: 1 }, internal.jobs.look);', "that is a query"),
    ],
)
def test_a_version_with_bad_crons_does_not_go_live(world: Clocked, base: Path, crons: str, said: str) -> None:
    deploy(world, app(base, EVERY))
    with pytest.raises(ClientError, match="cannot be") as caught:
        world.activate(app(base, crons))
    assert caught.value.code == "InvalidCron"
    assert said in caught.value.message
    settle(world)
    assert list(shown(world)) == ["every"]
