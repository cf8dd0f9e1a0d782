"""Messages with descriptors between two processes of one server, over a Unix socket that keeps message boundaries.

Both ends are the server's own: what arrives is not hostile, but may be cut off by a death. A message is sent whole or
not at all, by any number of processes that share an end, and received by one.
"""

import errno
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Final

from skerry.limits import CHANNEL_DESCRIPTORS_MAX, CHANNEL_MESSAGE_BYTES_MAX

_DESCRIPTOR: Final = array("i").itemsize
_DESCRIPTORS_SPACE: Final = socket.CMSG_SPACE(_DESCRIPTOR * CHANNEL_DESCRIPTORS_MAX)


class ChannelEnded(Exception):
    """The other end is gone: no message will come, and none can be sent."""


class Channel:
    """One end. Shape: never blocks unless `wait` is asked for. Limits: CHANNEL_MESSAGE_BYTES_MAX,
    CHANNEL_DESCRIPTORS_MAX for a message.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        end.setblocking(False)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> bool:
        """Sends one message; false when there is no room for it now. The descriptors stay the caller's too.

        Raises: ChannelEnded.
        """
        assert 0 < len(message) <= CHANNEL_MESSAGE_BYTES_MAX and len(descriptors) <= CHANNEL_DESCRIPTORS_MAX
        try:
            sent = socket.send_fds(self.socket, [message], descriptors)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionError) as error:
            raise ChannelEnded from error
        assert sent == len(message), "a socket with message boundaries sends all or nothing"
        return True

    def receive(self) -> tuple[bytes, list[int]] | None:
        """The next message with its descriptors, which are the caller's to close; None when none is there yet.

        Raises: ChannelEnded; OSError where this process can have no more descriptors: the message is lost.
        """
        try:
            # The library's own function for this ignores its flags, and descriptors would be inherited.
            message, told, flags, _ = self.socket.recvmsg(
                CHANNEL_MESSAGE_BYTES_MAX, _DESCRIPTORS_SPACE, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except ConnectionError as error:
            raise ChannelEnded from error
        descriptors = _descriptors(told)
        if flags & socket.MSG_CTRUNC:
            close_all(descriptors)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if not message:
            raise ChannelEnded
        return message, descriptors

    def close(self) -> None:
        self.socket.close()


def channel_pair() -> tuple[Channel, Channel]:
    """Two ends of a new channel."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (one, other):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * CHANNEL_MESSAGE_BYTES_MAX)
    return Channel(one), Channel(other)


def _descriptors(told: list[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, data in told:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) // _DESCRIPTOR * _DESCRIPTOR])
    return found.tolist()


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
