"""Frames of WebSockets: what another implementation writes is read whatever the cuts; each broken rule has its code."""

import random

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from skerry import limits
from skerry.http.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameFault,
    FrameReader,
    Heard,
    close_payload,
    echoed_close,
    head_of,
)

BYTES_MAX = 300_000
FRAMES_MAX = 50
CUTS = 25
MASK = b"\x01\x02\x03\x04"
LENGTHS = (0, 1, 125, 126, 127, 65535, 65536, BYTES_MAX)


def frame(kind: int, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode(kind), payload, fin).serialize(mask=True)


def read(reader: FrameReader, *pieces: bytes) -> list[Heard]:
    found: list[Heard] = []
    for piece in pieces:
        reader.feed(piece)
        while (heard := reader.next()) is not None:
            found.append(Heard(heard.kind, bytes(heard.data)))
    return found


def made() -> FrameReader:
    return FrameReader(BYTES_MAX, FRAMES_MAX)


@pytest.mark.parametrize("seed", range(CUTS))
def test_what_another_implementation_writes_is_read_whatever_the_cuts(seed: int) -> None:
    chance = random.Random(seed)
    written, meant = b"", list[Heard]()
    for _ in range(12):
        message = chance.randbytes(chance.choice(LENGTHS))
        parts = chance.randint(1, 5)
        kind = chance.choice((TEXT, BINARY))
        cuts = sorted(chance.randint(0, len(message)) for _ in range(parts - 1))
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(message)], strict=True)):
            written += frame(0 if number else kind, message[start:end], fin=number == parts - 1)
            if number < parts - 1 and chance.random() < 0.5:
                control = Heard(chance.choice((PING, PONG)), chance.randbytes(chance.randint(0, 125)))
                written += frame(*control)
                meant.append(control)
        meant.append(Heard(kind, message))
    cuts = sorted(chance.randint(0, len(written)) for _ in range(chance.randint(0, 200)))
    pieces = [written[start:end] for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    reader = made()
    assert read(reader, *pieces) == meant
    assert reader.bytes_held == 0
    short = written[: 3 * limits.KIB]
    assert read(made(), *[short[at : at + 1] for at in range(len(short))]) == read(made(), short)


@pytest.mark.parametrize("length", LENGTHS)
def test_what_the_server_writes_is_read_by_another_implementation(length: int) -> None:
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN)
    payload = b"x" * length
    client.receive_data(head_of(TEXT, length) + payload + head_of(CLOSE, 6) + close_payload(1013, "Full", 123))
    text, close = client.events_received()
    assert not isinstance(text, Response) and not isinstance(close, Response)
    assert bytes(text.data) == payload and client.close_rcvd is not None
    assert (client.close_rcvd.code, client.close_rcvd.reason) == (1013, "Full")


FAULTS = {
    "a reserved bit": (b"\xc1\x80" + MASK, 1002),
    "an opcode of nobody": (b"\x83\x80" + MASK, 1002),
    "a control opcode of nobody": (b"\x8b\x80" + MASK, 1002),
    "no mask": (b"\x81\x01x", 1002),
    "a ping in pieces": (b"\x09\x80" + MASK, 1002),
    "a ping of 126 bytes": (b"\x89\xfe\x00\x7e", 1002),
    "a ping whose length is still to come": (b"\x89\xff", 1002),
    "a continuation of nothing": (frame(0, b"x"), 1002),
    "a text in a text": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
    "a continuation after the end": (frame(TEXT, b"x", fin=False) + frame(0, b"x") + frame(0, b"x"), 1002),
    "a length of 63 bits": (b"\x81\xff\x7f" + b"\xff" * 7, 1009),
    "a length of 64 bits": (b"\x81\xff" + b"\xff" * 8, 1009),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_broken_rule_has_its_code(name: str) -> None:
    written, code = FAULTS[name]
    for pieces in ([written], [written[at : at + 1] for at in range(len(written))]):
        with pytest.raises(FrameFault) as caught:
            read(made(), *pieces)
        assert caught.value.code == code and caught.value.reason


@pytest.mark.parametrize("pieces", [1, 3])
def test_bound_of_a_message_is_met_before_it_has_arrived(pieces: int) -> None:
    first = [frame(TEXT if not n else 0, b"x" * 1000, fin=False) for n in range(pieces - 1)]
    rest = BYTES_MAX - 1000 * (pieces - 1)
    whole = [*first, frame(0 if first else TEXT, b"x" * rest)]
    assert [len(heard.data) for heard in read(made(), *whole)] == [BYTES_MAX]
    head = bytes((0x80 if first else 0x81, 0xFF)) + (rest + 1).to_bytes(8, "big")
    with pytest.raises(FrameFault) as caught:
        read(made(), *first, head)
    assert caught.value.code == 1009


def test_bound_of_the_frames_of_a_message_counts_the_empty_ones() -> None:
    empty = [frame(TEXT, b"", fin=False), *[frame(0, b"", fin=False)] * (FRAMES_MAX - 2)]
    assert read(made(), *empty, frame(0, b"x")) == [Heard(TEXT, b"x")]
    reader = made()
    with pytest.raises(FrameFault) as caught:
        read(reader, *empty, frame(0, b"", fin=False), frame(0, b"x"))
    assert caught.value.code == 1009
    several = made()
    for _ in range(3):
        assert read(several, *empty, frame(0, b"x")) == [Heard(TEXT, b"x")], "of each message"
        assert several.bytes_held == 0


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"\x03\xe8", b"\x03\xe8"),
        (b"\x03\xe8bye", b"\x03\xe8"),
        (b"\x0f\xa0", b"\x0f\xa0"),
        (b"\x03", 1002),
        (b"\x03\xed", 1002),
        (b"\x00\x00", 1002),
        (b"\x13\x88", 1002),
        (b"\x03\xe8\xff", 1007),
    ],
)
def test_a_close_is_answered_with_its_code_or_refused(sent: bytes, answer: bytes | int) -> None:
    if isinstance(answer, bytes):
        assert echoed_close(sent) == answer
        return
    with pytest.raises(FrameFault) as caught:
        echoed_close(sent)
    assert caught.value.code == answer


def test_a_reason_is_cut_between_characters() -> None:
    assert close_payload(1000, "é" * 100, 123) == b"\x03\xe8" + ("é" * 61).encode()
