"""What waits to be written: in order, and long transitions in pieces for clients that put them together."""

import json

import pytest

from skerry.http.frames import PING, TEXT, head_of
from skerry.http.outbox import Outbox, takes_chunks
from skerry.limits import SYNC_CHUNK_BYTES_MAX


def taken(outbox: Outbox) -> list[bytes]:
    found: list[bytes] = []
    while (frame := outbox.next()) is not None:
        head, payload = frame
        assert head in (head_of(TEXT, len(payload)), head_of(PING, len(payload)))
        found.append(payload)
    assert outbox.bytes_held == 0
    return found


@pytest.mark.parametrize(
    ("path", "takes"),
    [
        ("/api/1.48.0/sync", True),
        ("/api/1.28.0/sync", True),
        ("/api/2.0.0-beta.1/sync", True),
        ("/api/1.27.9/sync", False),
        ("/api/0.99.0/sync", False),
        ("/api/sync", False),
        ("/api/1.28/sync", False),
        ("/api/new/sync", False),
    ],
)
def test_chunks_are_for_the_versions_that_take_them(path: str, takes: bool) -> None:
    assert takes_chunks(path) is takes


def test_a_transition_at_the_bound_goes_whole_and_one_past_it_in_pieces() -> None:
    outbox = Outbox()
    outbox.use_chunks()
    whole, longer = b"x" * SYNC_CHUNK_BYTES_MAX, b"y" * (SYNC_CHUNK_BYTES_MAX + 1)
    outbox.put(TEXT, whole, is_transition=True)
    outbox.put(TEXT, longer, is_transition=True)
    outbox.put(PING, b"")
    outbox.put(TEXT, longer)
    first, *parts, ping, last = taken(outbox)
    assert (first, ping, last) == (whole, b"", longer), "answers go whole: only transitions have pieces"
    chunks = [json.loads(part) for part in parts]
    assert [(chunk["type"], chunk["partNumber"], chunk["totalParts"]) for chunk in chunks] == [
        ("TransitionChunk", 0, 2),
        ("TransitionChunk", 1, 2),
    ]
    assert "".join(chunk["chunk"] for chunk in chunks).encode() == longer
    assert len({chunk["transitionId"] for chunk in chunks}) == 1


@pytest.mark.parametrize("shift", range(4))
def test_pieces_are_cut_between_characters(shift: int) -> None:
    outbox = Outbox()
    outbox.use_chunks()
    text = ("x" * shift + '\U0001f600\\"' * (SYNC_CHUNK_BYTES_MAX // 3 + 1)).encode()
    outbox.put(TEXT, text, is_transition=True)
    chunks = [json.loads(part) for part in taken(outbox)]
    assert len(chunks) == chunks[0]["totalParts"] == 3
    assert "".join(chunk["chunk"] for chunk in chunks).encode() == text


def test_who_does_not_take_pieces_gets_it_whole() -> None:
    outbox = Outbox()
    longer = b"y" * (3 * SYNC_CHUNK_BYTES_MAX)
    outbox.put(TEXT, longer, is_transition=True)
    assert taken(outbox) == [longer]
