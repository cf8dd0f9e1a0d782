"""A result is checked like all that a guest says, except documents that come back as the host handed them out."""

from typing import Any

import pytest

from skerry import limits
from skerry.functions import execution
from tests.fixtures.world import World


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The results that were looked at."""
    seen: list[bytes] = []
    check = execution.check_encoded_result

    def look(raw: bytes, **how: Any) -> Any:
        seen.append(raw)
        return check(raw, **how)

    monkeypatch.setattr(execution, "check_encoded_result", look)
    return seen


def test_documents_returned_as_they_were_collected_are_not_checked_again(scripted: World, checked: list[bytes]) -> None:
    for body in ("one", "two"):
        scripted.mutation("f:insert", {"n": 1, "body": body})
    checked.clear()
    assert [document["body"] for document in scripted.query("f:list", {"n": 1})] == ["one", "two"]
    assert checked == []
    assert scripted.query("f:first", {"n": 1})["body"] == "one"
    assert scripted.query("f:echo", {"n": 1}) == {"n": 1}
    assert len(checked) == 2


@pytest.mark.parametrize("past", [0, 1])
def test_at_the_bound_documents_are_still_believed_and_past_it_checked(
    scripted: World, checked: list[bytes], past: int
) -> None:
    scripted.mutation("f:insert", {"n": 1, "body": ""})
    frame = len(scripted.call("query", "f:list", {"n": 1}).value)
    room = limits.RESULT_UNCHECKED_BYTES_MAX - frame
    scripted.mutation("f:insert", {"n": 2, "body": "x" * (room + past)})
    checked.clear()
    value = scripted.call("query", "f:list", {"n": 2}).value
    assert len(value) == limits.RESULT_UNCHECKED_BYTES_MAX + past
    assert len(checked) == past
