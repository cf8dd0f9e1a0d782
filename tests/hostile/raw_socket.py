"""A WebSocket spoken by hand: any bytes, and what came back until the server closed or enough was heard."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

from tests.hostile.case import Outcome

SESSION = "2d2f0000-0000-4000-8000-000000000001"
CONNECT = {"type": "Connect", "sessionId": SESSION, "connectionCount": 0, "lastCloseReason": "InitialConnect"}
WAIT_SECONDS_MAX = 60
_KEY = "AAECAwQFBgcICQoLDA0ODw=="
_TEXT = 0x81
_CLOSE = 0x88
_PONG = 0x8A


def frame(first: int, payload: bytes = b"", *, mask: bytes = b"\1\2\3\4") -> bytes:
    """A client's frame. Shape: `first` its first byte, with FIN and reserved bits."""
    length = len(payload)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 65536:
        head = bytes((first, 0xFE)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + length.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def said(*messages: Any) -> bytes:
    """Messages as frames."""
    return b"".join(
        frame(_TEXT, message if isinstance(message, bytes) else json.dumps(message).encode()) for message in messages
    )


class RawSocket:
    """One connection to a deployment. Close it."""

    def __init__(self, url: str, deployment: str = "script", path: str = "/api/sync", *headers: str) -> None:
        parts = urlsplit(url)
        self.connection = socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS_MAX)
        lines = [f"Host: {deployment}.localhost", "Connection: Upgrade", "Upgrade: websocket"]
        usual = [f"Sec-WebSocket-Key: {_KEY}", "Sec-WebSocket-Version: 13"]
        given = {line.partition(":")[0].lower() for line in headers}
        lines += [*(line for line in usual if line.partition(":")[0].lower() not in given), *headers]
        self.connection.sendall("\r\n".join([f"GET {path} HTTP/1.1", *filter(None, lines), "", ""]).encode())
        self._rest = b""
        self.is_over = False
        while b"\r\n\r\n" not in self._rest and self._more():
            pass
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        self.status = int(self.head.split(" ")[1]) if self.head else 0

    def __enter__(self) -> "RawSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.is_over = True

    def hear(self) -> tuple[int, bytes] | None:
        """First byte and payload of the next frame, None where the server has closed."""
        while True:
            rest = self._rest
            if len(rest) >= 2:
                size = {126: 2, 127: 8}.get(rest[1], 0)
                length = int.from_bytes(rest[2 : 2 + size], "big") if size else rest[1]
                end = 2 + size + length
                if len(rest) >= max(end, 2 + size):
                    self._rest = rest[end:]
                    return rest[0], rest[2 + size : end]
            if not self._more():
                return None

    def _more(self) -> bool:
        try:
            piece = self.connection.recv(1 << 20)
        except (ConnectionResetError, BrokenPipeError):
            piece = b""
        self._rest += piece
        self.is_over = self.is_over or not piece
        return bool(piece)

    def answers(self, count: int) -> list[Any]:
        """So many messages, fewer where the server ends; pings left out, a close as its code and reason."""
        found: list[Any] = []
        while len(found) < count:
            heard = self.hear()
            if heard is None:
                break
            first, payload = heard
            if first == _TEXT and payload != b'{"type":"Ping"}':
                found.append(json.loads(payload))
            elif first == _CLOSE:
                found.append((int.from_bytes(payload[:2], "big"), payload[2:].decode()))
                break
            elif first == _PONG:
                found.append(("pong", payload))
        return found


def outcome(found: list[Any]) -> Outcome:
    """What was heard as the tables write it."""
    return ("socket", *[_shown(message) for message in found])


def _shown(message: Any) -> Any:
    if isinstance(message, tuple):
        return message
    kind = message["type"]
    if kind in ("FatalError", "AuthError"):
        return (kind, message["error"])
    if kind == "Transition":
        changes = message["modifications"]
        return (kind, message["endVersion"]["querySet"], *[_result(change, "errorMessage") for change in changes])
    return (kind, _result(message, "result"))


def _result(said: dict[str, Any], failure: str) -> Any:
    if said["type"] == "QueryRemoved":
        return "removed"
    is_failed = said["type"] == "QueryFailed" or said.get("success") is False
    text = said[failure] if is_failed else said.get("value", said.get("result"))
    return text.partition("] Server Error\n")[2] or text if is_failed else text
