"""What fails by itself is counted each time and told once for each kind, until it succeeds."""

import logging

import pytest

from skerry.errors import SystemFault
from skerry.functions.failing import Failing
from skerry.functions.metering import Meter


def test_a_kind_is_told_once_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter("blog")
    failing = Failing("The upkeep", logging.getLogger("skerry.test"), meter)
    failing.succeeded()
    full, broken = SystemFault("StorageFull", "No room."), ValueError("what nobody foresaw")
    for error in (full, full, broken, full, broken):
        failing.failed(error)
    assert meter.background_failures == 5
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    first, second = caplog.records
    assert first.getMessage().startswith("The upkeep of blog failed: StorageFull: No room. It is tried again")
    assert first.exc_info is None and second.exc_info is not None
    failing.succeeded()
    failing.succeeded()
    assert [record.getMessage() for record in caplog.records[2:]] == ["The upkeep of blog works again."]
    failing.failed(full)
    assert len(caplog.records) == 4 and meter.totals()["background_failures"] == 6
