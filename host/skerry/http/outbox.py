"""What waits to be written on a WebSocket, in order: texts, control frames, and long transitions in pieces.

A transition of more than `SYNC_CHUNK_BYTES_MAX` goes to clients that take it as several messages (`TransitionChunk`),
each made when the socket has taken the one before. So a long one is held once, whatever its escapes come to, and a
client on a slow line hears a message now and then, without which it would give the connection up after a minute.
Nothing stands between the pieces of one.

Source: protocol reference 3.3 (chunks), 12.3 (since which version).
"""

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from typing import Final

import orjson

from skerry.http.frames import TEXT, head_of
from skerry.limits import SYNC_CHUNK_BYTES_MAX

_VERSION: Final = re.compile(r"/api/(\d{1,6})\.(\d{1,6})\.[^/]*/sync")
_CHUNKS_SINCE: Final = (1, 28)
WRITE_BYTES: Final = 65_536
"""From this size on a frame's payload is written as it is, and shorter ones are joined."""


def takes_chunks(path: str) -> bool:
    """Whether the client that connects to this path, which names its version, can put a transition together."""
    found = _VERSION.fullmatch(path)
    return found is not None and (int(found[1]), int(found[2])) >= _CHUNKS_SINCE


class Outbox:
    """Frames in the order in which they are to leave. Shape: `bytes_held` of those that nobody has taken."""

    __slots__ = ("_chunks", "_frames", "_has_chunks", "_transitions", "bytes_held")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, bytes, bool]] = deque()
        self._chunks: Iterator[bytes] | None = None
        self._has_chunks = False
        self._transitions = 0
        self.bytes_held = 0

    def use_chunks(self) -> None:
        """From now on long transitions go in pieces."""
        self._has_chunks = True

    def put(self, kind: int, payload: bytes, *, is_transition: bool = False) -> None:
        """Adds a frame."""
        self._frames.append((kind, payload, is_transition))
        self.bytes_held += len(payload)

    def next(self) -> tuple[bytes, bytes] | None:
        """Head and payload of the next frame, None where there is none."""
        if self._chunks is not None:
            chunk = next(self._chunks, None)
            if chunk is not None:
                return head_of(TEXT, len(chunk)), chunk
            self._chunks = None
        if not self._frames:
            return None
        kind, payload, is_transition = self._frames.popleft()
        self.bytes_held -= len(payload)
        if is_transition and self._has_chunks and len(payload) > SYNC_CHUNK_BYTES_MAX:
            self._transitions += 1
            self._chunks = _chunks(payload, self._transitions)
            return self.next()
        return head_of(kind, len(payload)), payload


def write_pieces(wire: asyncio.WriteTransport, pieces: list[bytes]) -> None:
    """Writes pieces and forgets them; a long one as it is, without a copy."""
    last = pieces.pop()
    if len(last) > WRITE_BYTES:
        wire.write(b"".join(pieces))
        wire.write(last)
    else:
        pieces.append(last)
        wire.write(b"".join(pieces))
    pieces.clear()


def _chunks(text: bytes, number: int) -> Iterator[bytes]:
    """The messages that a transition goes in: its text, cut between characters."""
    cuts = [0]
    while cuts[-1] < len(text):
        cut = cuts[-1] + SYNC_CHUNK_BYTES_MAX
        while cut < len(text) and text[cut] & 0xC0 == 0x80:
            cut -= 1
        cuts.append(min(cut, len(text)))
    n_parts = len(cuts) - 1
    for part in range(n_parts):
        yield b'{"type":"TransitionChunk","chunk":%b,"partNumber":%d,"totalParts":%d,"transitionId":"%d"}' % (
            orjson.dumps(text[cuts[part] : cuts[part + 1]].decode()),
            part,
            n_parts,
            number,
        )
