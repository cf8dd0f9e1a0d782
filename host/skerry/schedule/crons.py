"""What `crons.ts` declares: which function runs when, in UTC. Hostile input, checked when a version goes live.

An *interval* counts from its run before; everything else is a cron expression of five fields, which the library reads
(lists, ranges, steps, names, `L` and `#`). Where a minute is left out it is the cron's own, drawn from its name, so
that not everything happens on the full hour.

Source: protocol reference 9.3. Deliberately absent: seconds, time zones, the nearest weekday (`W`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import orjson
from cronsim import CronSim, CronSimError

from skerry.errors import ClientError
from skerry.limits import (
    CRON_ARGS_BYTES_MAX,
    CRON_EXPRESSION_CHARS_MAX,
    CRON_INTERVAL_SECONDS_MAX,
    CRON_NAME_CHARS_MAX,
    CRON_SKIPPED_COUNTED_MAX,
    CRONS_MAX,
)
from skerry.value import check_value, decode

_FIELDS: Final = ("minute", "hour", "day of the month", "month", "day of the week")
_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3_600}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MS_PER_S: Final = 1_000


class Cron(NamedTuple):
    """Shape: `path` as `module:function`; `args` the JSON of a list with one object; `expression` of five fields, empty
    for an interval of `period_ms`; `definition` is JSON, equal where two are the same."""

    name: str
    path: str
    args: bytes
    expression: str
    period_ms: int
    definition: str


def parse_crons(said: Any, kinds: Mapping[str, str]) -> dict[str, Cron]:
    """The crons that a version declares, by name. Shape: `kinds` of its functions, by path; None declares none.

    Raises: ClientError `InvalidCron`. Limits: CRONS_MAX, CRON_ARGS_BYTES_MAX and those of each.
    """
    if said is None:
        return {}
    if type(said) is not dict:
        raise ClientError("InvalidCron", "The crons of a version are an object.")
    entries = cast("dict[str, Any]", said)
    if len(entries) > CRONS_MAX:
        raise ClientError("InvalidCron", f"A deployment has at most {CRONS_MAX} crons.")
    crons = {name: _cron(name, entry, kinds) for name, entry in entries.items()}
    if sum(len(cron.args) for cron in crons.values()) > CRON_ARGS_BYTES_MAX:
        raise ClientError("InvalidCron", f"The arguments of all crons have more than {CRON_ARGS_BYTES_MAX} bytes.")
    return crons


def _cron(name: str, entry: Any, kinds: Mapping[str, str]) -> Cron:
    if not (len(name) <= CRON_NAME_CHARS_MAX and name.isascii() and name.isprintable()):
        raise _invalid(name, f"its name must be printable ASCII, {CRON_NAME_CHARS_MAX} characters at most")
    fields = cast("dict[str, Any]", entry) if type(entry) is dict else {}
    path, args, schedule = fields.get("name"), fields.get("args"), fields.get("schedule")
    if type(path) is not str or type(args) is not list or len(cast("list[Any]", args)) != 1:
        raise _invalid(name, "it needs a function and its arguments, one object")
    decoded = decode(cast("list[Any]", args)[0])
    if type(decoded) is not dict:
        raise _invalid(name, "its arguments must be one object")
    check_value(decoded)
    kind = kinds.get(path.replace(".js:", ":"))
    if kind not in ("mutation", "action"):
        what = "there is no such function" if kind is None else f"that is a {kind}"
        raise _invalid(name, f"it runs {path[:200]}, and {what}: name a mutation or an action")
    if type(schedule) is not dict:
        raise _invalid(name, "it needs a schedule")
    timing = cast("dict[str, Any]", schedule)
    period_ms = _period_ms(name, timing) if timing.get("type") == "interval" else 0
    expression = "" if period_ms else _expression(name, timing)
    definition = orjson.dumps([path, args, timing], option=orjson.OPT_SORT_KEYS).decode()
    return Cron(name, path.replace(".js:", ":"), orjson.dumps(args), expression, period_ms, definition)


def _period_ms(name: str, schedule: dict[str, Any]) -> int:
    given = [(unit, schedule[unit]) for unit in _UNITS if schedule.get(unit) is not None]
    if len(given) != 1 or not _is_whole(given[0][1], 1, CRON_INTERVAL_SECONDS_MAX // _UNITS[given[0][0]]):
        raise _invalid(name, "an interval is a whole number above 0 of seconds, minutes or hours, a year at most")
    unit, count = given[0]
    return int(count) * _UNITS[unit] * _MS_PER_S


def _expression(name: str, schedule: dict[str, Any]) -> str:
    kind = schedule.get("type")
    if kind == "cron":
        return check_expression(name, schedule.get("cron"))
    minute, hour, day = schedule.get("minuteUTC"), schedule.get("hourUTC"), schedule.get("day")
    if minute is None:
        minute = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") % 60
    if not _is_whole(minute, 0, 59):
        raise _invalid(name, "minuteUTC must be a whole number from 0 to 59")
    if kind == "hourly":
        return f"{int(minute)} * * * *"
    if not _is_whole(hour, 0, 23):
        raise _invalid(name, "hourUTC must be a whole number from 0 to 23")
    clock = f"{int(minute)} {int(cast('int', hour))}"
    if kind == "daily":
        return f"{clock} * * *"
    if kind == "weekly" and schedule.get("dayOfWeek") in _DAYS:
        return f"{clock} * * {_DAYS.index(schedule['dayOfWeek'])}"
    if kind == "monthly" and _is_whole(day, 1, 31):
        return f"{clock} {int(cast('int', day))} * *"
    raise _invalid(name, "its schedule must be an interval, hourly, daily, weekly (dayOfWeek), monthly (day) or cron")


def check_expression(name: str, given: Any) -> str:
    """A cron expression that the library reads and that comes true. Raises: ClientError `InvalidCron`, which names the
    field and the character that it begins at."""
    if type(given) is not str or len(given) > CRON_EXPRESSION_CHARS_MAX:
        raise _invalid(name, f"its cron expression must be a text of {CRON_EXPRESSION_CHARS_MAX} characters at most")
    fields = given.upper().split()
    if len(fields) != len(_FIELDS):
        raise _invalid(
            name, f"its cron expression {given!r} has {len(fields)} fields in place of 5: {', '.join(_FIELDS)}"
        )
    at = 0
    for number, field in enumerate(fields):
        at = given.upper().index(field, at)
        alone = ["*"] * len(_FIELDS)
        alone[number] = field
        try:
            CronSim(" ".join(alone), _EPOCH)
        except (CronSimError, ValueError, AssertionError):
            raise _invalid(
                name,
                f"its cron expression {given!r} is wrong at character {at + 1}: {given[at : at + len(field)]!r} is no "
                f"{_FIELDS[number]}",
            ) from None
        at += len(field)
    expression = " ".join(fields)
    if _next_of(expression, 0.0) is None:
        raise _invalid(name, f"its cron expression {given!r} never comes true")
    return expression


def next_ms(cron: Cron, after_ms: float) -> float:
    """When a cron runs next, after its run at a time. Units: ms since 1970."""
    if cron.period_ms:
        return after_ms + cron.period_ms
    found = _next_of(cron.expression, after_ms)
    assert found is not None, "it was tried when it was declared"
    return found


def first_ms(cron: Cron, now_ms: float) -> float:
    """When a cron that is new runs first: an interval at once."""
    return now_ms if cron.period_ms else next_ms(cron, now_ms)


def following(cron: Cron, run_ms: float, now_ms: float) -> tuple[float, int]:
    """When a cron runs after its run at a time, in the future; and how many runs are left out for that, of which at
    most `CRON_SKIPPED_COUNTED_MAX` are counted one by one."""
    after = next_ms(cron, run_ms)
    if after > now_ms:
        return after, 0
    if cron.period_ms:
        skipped = int((now_ms - after) // cron.period_ms) + 1
        return after + skipped * cron.period_ms, skipped
    skipped = 0
    while after <= now_ms and skipped < CRON_SKIPPED_COUNTED_MAX:
        skipped += 1
        after = next_ms(cron, after)
    return (after if after > now_ms else next_ms(cron, now_ms)), skipped


def _next_of(expression: str, after_ms: float) -> float | None:
    try:
        found = next(CronSim(expression, _EPOCH + timedelta(milliseconds=after_ms)))
    except (StopIteration, CronSimError):  # the 30th of February is known at once
        return None
    return float((found - _EPOCH) // _MILLISECOND)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) in (int, float) and value == int(value) and least <= value <= most


def _invalid(name: str, why: str) -> ClientError:
    return ClientError("InvalidCron", f"Cron {name[:CRON_NAME_CHARS_MAX]!r} cannot be: {why}.")
