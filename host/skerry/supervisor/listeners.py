"""The listening sockets: opened once, by the process that outlives those which accept from them."""

import os
import socket
from typing import Final

from skerry.errors import SystemFault

BACKLOG: Final = 1024


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 means any free one. Raises: SystemFault `PortInUse`."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # What the library says names the address again; the system's words are enough.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise SystemFault("PortInUse", f"Cannot listen on {host} port {port}: {why}.") from None


def origin_of(listener: socket.socket) -> str:
    """The address that a listening socket is reached by from the same machine."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
