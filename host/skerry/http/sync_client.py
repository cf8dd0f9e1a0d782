"""Who the client of a sync connection is: told by the client, judged by the hub, over once its token has expired.

While that is open, what the client says behind it waits, and nothing is sent that would tell of it. A call runs as
whoever the client was when it asked for it.

Source: protocol reference 3.8, 7.3.
"""

from typing import Final

from skerry.errors import ClientError, SkerryError
from skerry.http.sync_hub import NOBODY, Leaving, SyncCaller, SyncHub
from skerry.sync.messages import Authenticate
from skerry.sync.session import Session

DONE: Final = 1000
RESTARTING: Final = 1012


class SyncClient(Leaving):
    """That part of a connection. Shape: `_is_open` and `_is_waiting` as the connection has them."""

    def __init__(self) -> None:
        self._session = Session()
        self._caller = NOBODY
        self._is_open = False  # after the handshake, before either side has said that it ends
        self._is_waiting = False  # something beside the loop thread comes before what is next

    def leave_as_user(self) -> None:
        """Ends the connection of a user, who is to say again who it is."""
        if self._caller.token is not None:
            self._close(RESTARTING, "AuthConfigChanged")

    def _identify(self, hub: SyncHub, sent: Authenticate) -> None:
        hub.identify(sent, lambda who: self._identified(hub, sent, who))
        if self._session.is_undecided and self._is_open:
            self._is_waiting = True
            self._pause_reading()

    def _identified(self, hub: SyncHub, sent: Authenticate, who: SyncCaller | SkerryError) -> None:
        """It is known who the client is: what it said behind that follows."""
        has_waited, self._is_waiting = self._is_waiting, False
        if self._is_open and isinstance(who, SyncCaller):
            self._session.identified()
            is_same, self._caller = who.key == self._caller.key, who
            if not is_same:
                self._watch_again(hub)
        elif self._is_open and isinstance(who, ClientError):
            self._send(self._session.refused_identity(sent, f"{who.code}: {who.message}"))
            self._close(DONE, who.code)
        elif self._is_open and isinstance(who, SkerryError):
            self._close_for(who)
        self._update_soon()  # what was to be sent meanwhile has waited
        if has_waited:
            self._hear()

    def _has_expired(self, hub: SyncHub, caller: SyncCaller) -> bool:
        """Whether a token has stopped to hold; then the client hears it, and comes back with another."""
        if caller.token is None or not hub.has_expired(caller):
            return False
        self._send(self._session.expired_identity())
        self._close(DONE, "TokenExpired")
        return True

    # -- what the connection does ------------------------------------------------------------------------------------

    def _watch_again(self, hub: SyncHub) -> None:
        """Watches all queries as somebody else."""
        raise NotImplementedError

    def _send(self, frame: bytes) -> None:
        raise NotImplementedError

    def _close(self, code: int, reason: str) -> None:
        raise NotImplementedError

    def _close_for(self, error: SkerryError) -> None:
        raise NotImplementedError

    def _pause_reading(self) -> None:
        raise NotImplementedError

    def _update_soon(self) -> None:
        raise NotImplementedError

    def _hear(self) -> None:
        raise NotImplementedError
