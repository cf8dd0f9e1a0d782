"""Frames of a WebSocket: bytes from a stranger become messages as they arrive, and texts become frames.

`FrameReader` unmasks each piece when it comes and keeps a message in one buffer, so that no step takes longer than what
one read of the socket holds, however long the message, and a message costs its bytes however it is cut. What breaks the
rules of framing raises `FrameFault` with the close code that says so; after that nothing more is to be read.

Deliberately absent: input and output, extensions, the handshake, a look at the encoding of texts (whoever parses them
finds out).

Source: RFC 6455, sections 5 and 7.4.
"""

from typing import Final, NamedTuple

from websockets.frames import apply_mask  # pyright: ignore[reportPrivateImportUsage]  # in C, where that is

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_CONTINUATION: Final = 0
_DATA: Final = (_CONTINUATION, TEXT, BINARY)
_KINDS: Final = frozenset((*_DATA, CLOSE, PING, PONG))

_PROTOCOL_ERROR: Final = 1002
_TOO_BIG: Final = 1009
_NO_STATUS: Final = 1005
_CONTROL_BYTES_MAX: Final = 125
_SHORT_BYTES_MAX: Final = 125
_MIDDLE_BYTES_MAX: Final = 0xFFFF


class FrameFault(Exception):
    """What arrives breaks the rules of framing. Shape: the close code and a few words that say so."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Heard(NamedTuple):
    """A whole message or control frame. Shape: `kind` is TEXT, BINARY, CLOSE, PING or PONG."""

    kind: int
    data: bytes | bytearray


class FrameReader:
    """What arrives on one connection. Shape: `feed` bytes, then take messages with `next` until it has none.

    Limits: `bytes_max` of a message, `frames_max` that it comes in.
    """

    __slots__ = (
        "_at", "_bytes_max", "_control", "_data", "_frames", "_frames_max", "_is_final", "_is_open", "_kind", "_left",
        "_mask", "_message", "_message_kind",
    )  # fmt: skip

    def __init__(self, bytes_max: int, frames_max: int) -> None:
        self._bytes_max = bytes_max
        self._frames_max = frames_max
        self._data = b""
        self._at = 0
        self._is_open = False  # a frame's head was read and its payload was not
        self._kind = self._left = self._frames = self._message_kind = 0
        self._is_final = False
        self._mask = b""
        self._message = bytearray()
        self._control = bytearray()

    @property
    def bytes_held(self) -> int:
        """What is kept of messages and frames that are not whole, and of what was not looked at."""
        return len(self._message) + len(self._control) + len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Takes what has arrived."""
        self._data = data if self._at == len(self._data) else self._data[self._at :] + data
        self._at = 0

    def next(self) -> Heard | None:
        """The next message or control frame, None where more must arrive first. Raises: FrameFault."""
        while True:
            if not self._is_open and not self._read_head():
                return None
            take = min(self._left, len(self._data) - self._at)
            piece = b""
            if take:
                piece = apply_mask(self._data[self._at : self._at + take], self._mask)
                self._at += take
                self._left -= take
            if self._left:
                into = self._control if self._kind >= CLOSE else self._message
                into += piece
                turn = take % 4
                self._mask = self._mask[turn:] + self._mask[:turn]
                return None
            self._is_open = False
            heard = self._ended(piece)
            if heard is not None:
                return heard

    def _ended(self, piece: bytes) -> Heard | None:
        """A frame is whole: what it completes."""
        if self._kind >= CLOSE:
            control, self._control = self._control, bytearray()
            return Heard(self._kind, control + piece if control else piece)
        if self._is_final and not self._message:
            whole: bytes | bytearray = piece
        else:
            self._message += piece
            if not self._is_final:
                return None
            whole, self._message = self._message, bytearray()
        kind, self._message_kind = self._message_kind, 0
        self._frames = 0
        return Heard(kind, whole)

    def _read_head(self) -> bool:
        """Reads the head of a frame, where all of it is there."""
        data, at = self._data, self._at
        have = len(data) - at
        if have < 2:
            return False
        first, second = data[at], data[at + 1]
        kind = first & 0x0F
        if first & 0x70 or kind not in _KINDS:
            raise FrameFault(_PROTOCOL_ERROR, "reserved bits or an unknown opcode")
        if not second & 0x80:
            raise FrameFault(_PROTOCOL_ERROR, "a client's frames must be masked")
        length = second & 0x7F
        end = at + 2
        if length > _SHORT_BYTES_MAX:
            end += 2 if length == _SHORT_BYTES_MAX + 1 else 8
            if len(data) < end:
                self._judge(first, kind, 0, length)
                return False
            length = int.from_bytes(data[at + 2 : end], "big")
        self._judge(first, kind, length, second & 0x7F)
        if len(data) < end + 4:
            return False
        self._mask = data[end : end + 4]
        self._at = end + 4
        self._is_open = True
        self._left = length
        self._kind = kind
        self._is_final = first >= 0x80
        if kind < CLOSE:
            self._frames += 1
            if kind:
                self._message_kind = kind
        return True

    def _judge(self, first: int, kind: int, length: int, short_length: int) -> None:
        """Whether a frame may come now. Raises: FrameFault."""
        if kind >= CLOSE:
            if first < 0x80 or short_length > _CONTROL_BYTES_MAX:
                raise FrameFault(_PROTOCOL_ERROR, "a control frame is short and in one piece")
            return
        if (kind == _CONTINUATION) != bool(self._message_kind):
            raise FrameFault(_PROTOCOL_ERROR, "frames of a message out of their order")
        if len(self._message) + length > self._bytes_max:
            raise FrameFault(_TOO_BIG, f"a message has {self._bytes_max} bytes at most")
        if self._frames >= self._frames_max:
            raise FrameFault(_TOO_BIG, f"a message comes in {self._frames_max} frames at most")


def head_of(kind: int, length: int) -> bytes:
    """What stands before a payload of this length that the server sends."""
    first = 0x80 | kind
    if length <= _SHORT_BYTES_MAX:
        return bytes((first, length))
    if length <= _MIDDLE_BYTES_MAX:
        return bytes((first, _SHORT_BYTES_MAX + 1)) + length.to_bytes(2, "big")
    return bytes((first, _SHORT_BYTES_MAX + 2)) + length.to_bytes(8, "big")


def close_payload(code: int, reason: str, bytes_max: int) -> bytes:
    """The payload of a close frame; a reason that is too long is cut at a character."""
    return code.to_bytes(2, "big") + reason.encode()[:bytes_max].decode("utf-8", "ignore").encode()


def echoed_close(data: bytes | bytearray) -> bytes:
    """The payload that answers a client's close frame. Raises: FrameFault, where that one is malformed."""
    if not data:
        return b""
    code = int.from_bytes(data[:2], "big") if len(data) > 1 else 0
    if not ((1000 <= code <= 1014 and code not in (1004, _NO_STATUS, 1006)) or 3000 <= code <= 4999):
        raise FrameFault(_PROTOCOL_ERROR, "a close code that nobody may send")
    try:
        bytes(data[2:]).decode()
    except UnicodeDecodeError:
        raise FrameFault(1007, "a close reason that is no UTF-8") from None
    return bytes(data[:2])
