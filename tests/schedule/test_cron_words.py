"""What crons may say, when that comes true, and what is refused by name and position."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry import limits
from skerry.errors import ClientError
from skerry.schedule.crons import Cron, check_expression, first_ms, following, next_ms, parse_crons
from tests.fixtures.effort import drawn

KINDS = {"jobs:run": "mutation", "jobs:act": "action", "jobs:look": "query"}
HOUR_MS = 3_600_000.0
DAY_MS = 24 * HOUR_MS


def ms(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp() * 1000  # type: ignore[arg-type,misc]  # no time zone is among the numbers


def entry(schedule: Any, path: str = "jobs:run", args: Any = None) -> dict[str, Any]:
    return {"name": path, "args": [{}] if args is None else args, "schedule": schedule}


def cron(schedule: Any, name: str = "one") -> Cron:
    return parse_crons({name: entry(schedule)}, KINDS)[name]


def refusal(said: Any) -> str:
    with pytest.raises(ClientError) as caught:
        parse_crons(said, KINDS)
    assert caught.value.code == "InvalidCron"
    return caught.value.message


def times(schedule: Any, after: float, count: int) -> list[float]:
    found = [after]
    for _ in range(count):
        found.append(next_ms(cron(schedule), found[-1]))
    return found[1:]


def test_each_kind_of_schedule_comes_when_it_says() -> None:
    now = ms(2026, 2, 27, 10, 30)
    assert times({"type": "interval", "minutes": 5}, now, 2) == [now + 5 * 60_000, now + 10 * 60_000]
    assert times({"type": "hourly", "minuteUTC": 15}, now, 2) == [ms(2026, 2, 27, 11, 15), ms(2026, 2, 27, 12, 15)]
    assert times({"type": "daily", "hourUTC": 10, "minuteUTC": 0}, now, 1) == [ms(2026, 2, 28, 10, 0)]
    weekly = {"type": "weekly", "dayOfWeek": "sunday", "hourUTC": 0, "minuteUTC": 5}
    assert times(weekly, now, 2) == [ms(2026, 3, 1, 0, 5), ms(2026, 3, 8, 0, 5)]
    monthly = {"type": "monthly", "day": 31, "hourUTC": 1, "minuteUTC": 2}
    assert times(monthly, now, 3) == [ms(2026, 3, 31, 1, 2), ms(2026, 5, 31, 1, 2), ms(2026, 7, 31, 1, 2)]
    assert times({"type": "cron", "cron": "0 16 1 * *"}, now, 2) == [ms(2026, 3, 1, 16), ms(2026, 4, 1, 16)]
    assert times({"type": "cron", "cron": "*/20 9-10 * * mon"}, now, 2) == [ms(2026, 3, 2, 9), ms(2026, 3, 2, 9, 20)]
    assert times({"type": "cron", "cron": "0 0 L * *"}, now, 2) == [ms(2026, 2, 28), ms(2026, 3, 31)]
    assert times({"type": "cron", "cron": "0 0 * * FRI#2"}, now, 1) == [ms(2026, 3, 13)]


def test_an_interval_runs_at_once_and_others_when_they_come() -> None:
    now = ms(2026, 2, 27, 10, 30)
    assert first_ms(cron({"type": "interval", "seconds": 30}), now) == now
    assert first_ms(cron({"type": "daily", "hourUTC": 9, "minuteUTC": 0}), now) == ms(2026, 2, 28, 9)


def test_a_minute_that_is_left_out_is_the_crons_own() -> None:
    minutes = {cron({"type": "hourly"}, f"cron {n}").expression for n in range(200)}
    assert len(minutes) > 30
    assert cron({"type": "hourly"}, "a").expression == cron({"type": "hourly"}, "a").expression


@pytest.mark.parametrize(
    ("text", "at", "field"),
    [
        ("60 * * * *", 1, "minute"),
        ("* 24 * * *", 3, "hour"),
        ("*  *  32 * *", 7, "day of the month"),
        ("* * * 13 *", 7, "month"),
        ("* * * * 8", 9, "day of the week"),
        ("* * * * mun", 9, "day of the week"),
        ("5-1 * * * *", 1, "minute"),
        ("*/0 * * * *", 1, "minute"),
        ("1,,2 * * * *", 1, "minute"),
        ("* * 15W * *", 5, "day of the month"),
    ],
)
def test_a_bad_expression_is_refused_at_its_position(text: str, at: int, field: str) -> None:
    said = refusal({"nightly": entry({"type": "cron", "cron": text})})
    assert "'nightly'" in said
    assert f"wrong at character {at}:" in said
    assert said.endswith(f"is no {field}.")


def test_expressions_that_have_other_fields_or_never_come_are_refused() -> None:
    assert "has 4 fields" in refusal({"a": entry({"type": "cron", "cron": "* * * *"})})
    assert "has 6 fields" in refusal({"a": entry({"type": "cron", "cron": "* * * * * *"})})
    assert "never comes true" in refusal({"a": entry({"type": "cron", "cron": "0 0 30 2 *"})})
    most = limits.CRON_EXPRESSION_CHARS_MAX
    assert cron({"type": "cron", "cron": "* * * * *".ljust(most)}).expression == "* * * * *"
    assert "at most" in refusal({"a": entry({"type": "cron", "cron": "* * * * *".ljust(most + 1)})})
    assert "text" in refusal({"a": entry({"type": "cron"})})


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        [],
        {"type": "yearly"},
        {"type": "interval"},
        {"type": "interval", "seconds": 0},
        {"type": "interval", "seconds": 1.5},
        {"type": "interval", "seconds": 1, "minutes": 1},
        {"type": "interval", "hours": 1e12},
        {"type": "hourly", "minuteUTC": 60},
        {"type": "hourly", "minuteUTC": "0 0"},
        {"type": "daily"},
        {"type": "daily", "hourUTC": 24},
        {"type": "weekly", "hourUTC": 1, "dayOfWeek": "someday"},
        {"type": "monthly", "hourUTC": 1, "day": 0},
        {"type": "monthly", "hourUTC": 1, "day": 32},
    ],
)
def test_a_schedule_that_says_nothing_is_refused(schedule: Any) -> None:
    assert "Cron 'a' cannot be" in refusal({"a": entry(schedule)})


def test_functions_and_arguments_are_checked() -> None:
    every = {"type": "interval", "seconds": 1}
    assert "there is no such function" in refusal({"a": entry(every, "jobs:away")})
    assert "that is a query" in refusal({"a": entry(every, "jobs:look")})
    assert "one object" in refusal({"a": entry(every, args=[])})
    assert "one object" in refusal({"a": entry(every, args=[1])})
    assert "an object" in refusal([])
    assert "needs a function" in refusal({"a": 1})


def test_the_bounds() -> None:
    every = entry({"type": "interval", "seconds": limits.CRON_INTERVAL_SECONDS_MAX})
    assert len(parse_crons({str(n): every for n in range(limits.CRONS_MAX)}, KINDS)) == limits.CRONS_MAX
    assert "at most" in refusal({str(n): every for n in range(limits.CRONS_MAX + 1)})
    assert "a year" in refusal({"a": entry({"type": "interval", "seconds": limits.CRON_INTERVAL_SECONDS_MAX + 1})})
    name = "n" * limits.CRON_NAME_CHARS_MAX
    assert cron({"type": "hourly"}, name).name == name
    assert "its name" in refusal({name + "n": every})
    assert "its name" in refusal({"zażółć": every})
    half = [{"text": "x" * (limits.CRON_ARGS_BYTES_MAX // 2 - 20)}]
    assert len(parse_crons({n: entry({"type": "hourly"}, args=half) for n in "ab"}, KINDS)) == 2
    assert "all crons" in refusal({n: entry({"type": "hourly"}, args=half) for n in "abc"})


def test_runs_that_were_missed_are_left_out_and_counted() -> None:
    now = ms(2026, 2, 27, 10, 30)
    every = cron({"type": "interval", "minutes": 1})
    assert following(every, now, now) == (now + 60_000, 0)
    assert following(every, now, now + 59_999) == (now + 60_000, 0)
    assert following(every, now, now + 60_000) == (now + 120_000, 1)
    assert following(every, now, now + DAY_MS) == (now + DAY_MS + 60_000, 1440)
    hourly = cron({"type": "hourly", "minuteUTC": 0})
    assert following(hourly, ms(2026, 2, 27, 10), ms(2026, 2, 27, 12, 30)) == (ms(2026, 2, 27, 13), 2)
    often = cron({"type": "cron", "cron": "* * * * *"})
    most = limits.CRON_SKIPPED_COUNTED_MAX
    assert following(often, now, now + most * 60_000) == (now + (most + 1) * 60_000, most)
    assert following(often, now, now + 2 * most * 60_000) == (now + (2 * most + 1) * 60_000, most)


@given(
    st.sampled_from(
        [
            {"type": "interval", "seconds": 7},
            {"type": "hourly", "minuteUTC": 59},
            {"type": "daily", "hourUTC": 23, "minuteUTC": 59},
            {"type": "weekly", "dayOfWeek": "monday", "hourUTC": 0, "minuteUTC": 0},
            {"type": "monthly", "day": 31, "hourUTC": 0, "minuteUTC": 0},
            {"type": "cron", "cron": "*/7 */5 29 2 *"},
        ]
    ),
    st.floats(0, 4e12),
    st.floats(0, 40 * DAY_MS),
)
@drawn(60)
def test_the_next_run_is_in_the_future_and_none_between_is_forgotten(schedule: Any, run: float, late: float) -> None:
    one = cron(schedule)
    after, skipped = following(one, run, run + late)
    assert after > run + late
    between = [run]
    while between[-1] < after and len(between) <= 50:
        between.append(next_ms(one, between[-1]))
    if skipped < 50:
        assert between[-1] == after or one.period_ms
        assert len(between) - 2 == skipped


@given(st.text("0123456789*,-/#LW SUNMOJAabc.?", max_size=40))
@drawn(200)
def test_no_text_is_more_than_refused(text: str) -> None:
    try:
        check_expression("a", text)
    except ClientError as error:
        assert error.code == "InvalidCron"
