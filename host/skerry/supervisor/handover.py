"""A connection on its way to another worker: its descriptor, which port it came to, and the bytes read so far.

Short bytes travel in the message, longer ones in a memory file beside the connection's descriptor. A door is a
channel's sending end: many workers send into it, its owner receives, and what lies in it outlives both.
"""

import os
import socket
from typing import Final, NamedTuple

from skerry.limits import HANDOVER_BYTES_MAX, HANDOVER_INLINE_BYTES_MAX
from skerry.supervisor.channel import Channel

_INLINE: Final = 0
_IN_FILE: Final = 1


class Handover(NamedTuple):
    """Shape: `port` is the number of the listening socket; `received` what was read of the next request."""

    connection: socket.socket
    port: int
    received: bytes


def send_handover(door: Channel, descriptor: int, port: int, received: bytes) -> bool:
    """Sends a connection through a door; false when the door is full. The sender closes its descriptor afterwards.

    Limits: HANDOVER_BYTES_MAX. Raises: ChannelEnded; OSError when the machine has no descriptor left.
    """
    assert len(received) <= HANDOVER_BYTES_MAX
    if len(received) <= HANDOVER_INLINE_BYTES_MAX:
        return door.send(bytes((port, _INLINE)) + received, (descriptor,))
    file = os.memfd_create("skerry-received")
    try:
        _write(file, received)
        return door.send(bytes((port, _IN_FILE)), (descriptor, file))
    finally:
        os.close(file)


def receive_handover(door: Channel) -> Handover | None:
    """The next connection in the door, if there is one. Raises: ChannelEnded."""
    arrived = door.receive()
    if arrived is None:
        return None
    message, descriptors = arrived
    port, where = message[0], message[1]
    received = message[2:]
    if where == _IN_FILE:
        file = descriptors.pop()
        try:
            received = _read(file)
        finally:
            os.close(file)
    (descriptor,) = descriptors
    return Handover(socket.socket(fileno=descriptor), port, received)


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _read(file: int) -> bytes:
    size = os.fstat(file).st_size
    return os.pread(file, min(size, HANDOVER_BYTES_MAX), 0)
