"""The sync protocol spoken by hand: what a client says, and what it hears, message by message."""

import json
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

from websockets.sync.client import ClientConnection, connect

from tests.http.serving import RunningServer

MESSAGE_BYTES_MAX = 1 << 26
SECONDS_MAX = 90


class SyncClient:
    """One connection. Shape: `session` is the client's own id, which it keeps when it connects again."""

    def __init__(self, server: RunningServer, session: str | None = None) -> None:
        self.session = session or str(uuid4())
        self.versions = [0, 0]
        self._open = ExitStack()
        address = server.url.replace("http", "ws", 1) + "/api/sync"
        self.wire: ClientConnection = self._open.enter_context(
            connect(address, max_size=MESSAGE_BYTES_MAX, compression=None)
        )
        self.tell({"type": "Connect", "sessionId": self.session, "connectionCount": 0, "lastCloseReason": None})

    def __enter__(self) -> "SyncClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def tell(self, message: dict[str, Any]) -> None:
        self.wire.send(json.dumps(message))

    def hear(self, kind: str) -> dict[str, Any]:
        """The next message of this type; what succeeds before it is passed over."""
        while True:
            message = json.loads(self.wire.recv(timeout=SECONDS_MAX))
            if message["type"] == kind:
                return message
            assert message["type"] in ("Transition", "Ping") or message.get("success"), message

    def watch(self, path: str, args: dict[str, Any] | None = None) -> int:
        """Watches a query; its id."""
        version = self.versions[0]
        add = {"type": "Add", "queryId": version, "udfPath": path, "args": [args or {}]}
        message = {"type": "ModifyQuerySet", "baseVersion": version, "newVersion": version + 1, "modifications": [add]}
        self.versions[0] += 1
        self.tell(message)
        return version

    def hear_of(self, query_id: int) -> dict[str, Any]:
        """The next result of a query."""
        while True:
            for change in self.hear("Transition")["modifications"]:
                if change["queryId"] == query_id:
                    return change

    def be_admin(self, key: str, acting_as: dict[str, Any] | None = None) -> None:
        message = {"type": "Authenticate", "baseVersion": self.versions[1], "tokenType": "Admin", "value": key}
        if acting_as is not None:
            message["impersonating"] = acting_as
        self.versions[1] += 1
        self.tell(message)
        self.hear("Transition")

    def mutate(self, request_id: int, path: str, args: dict[str, Any]) -> None:
        self.tell({"type": "Mutation", "requestId": request_id, "udfPath": path, "args": [args]})

    def answer(self) -> dict[str, Any]:
        """The next answer to a mutation."""
        return self.hear("MutationResponse")
