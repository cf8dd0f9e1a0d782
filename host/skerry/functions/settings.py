"""What an operator sets for one deployment, kept in its metadata tree: how long history is kept.

    META "settings"    a JSON object; a name that is absent has its default

Deliberately absent: quotas, which are the host's (`admin.shares`), and anything that a call could see.

Concurrency: the loop thread.
"""

import asyncio
from typing import Any, Final, cast

import orjson

from skerry import limits
from skerry.errors import ClientError, SystemFault
from skerry.storage import StorageEngine, Tree

SETTINGS_KEY: Final = b"settings"
_RETENTION: Final = "historyRetentionSeconds"


class Settings:
    """The settings of the deployment in an engine. Raises: SystemFault `DataFolderFormat` where they are damaged."""

    def __init__(self, engine: StorageEngine) -> None:
        self._engine = engine
        snapshot = engine.snapshot()
        try:
            raw = snapshot.get(Tree.META, SETTINGS_KEY)
        finally:
            snapshot.close()
        try:
            self._set: dict[str, int] = {} if raw is None else checked_settings(orjson.loads(raw))
        except (ValueError, ClientError) as error:
            raise SystemFault("DataFolderFormat", "The deployment's settings are damaged: put back a copy.") from error

    @property
    def retention_s(self) -> int:
        """How long the past can be read, in seconds."""
        return self._set.get(_RETENTION, limits.HISTORY_RETENTION_S)

    def shown(self) -> dict[str, Any]:
        """All settings in force, and which of them were set."""
        return {_RETENTION: self.retention_s, "set": sorted(self._set)}

    async def change(self, asked: dict[str, Any]) -> None:
        """Sets some, durable on return; None gives one back to its default. Raises: ClientError `InvalidSettings`."""
        changed = {**self._set, **asked}
        kept = checked_settings({name: value for name, value in changed.items() if value is not None})
        await asyncio.wrap_future(self._engine.commit([(Tree.META, SETTINGS_KEY, orjson.dumps(kept))]))
        self._set = kept


def checked_settings(asked: Any) -> dict[str, int]:
    """Settings that may be kept. Raises: ClientError `InvalidSettings`.

    Limits: HISTORY_RETENTION_S_MIN, HISTORY_RETENTION_S_MAX.
    """
    if not isinstance(asked, dict):
        raise ClientError("InvalidSettings", "Settings are a JSON object.")
    settings = cast("dict[str, Any]", asked)
    for name, value in settings.items():
        if name != _RETENTION:
            raise ClientError("InvalidSettings", f"There is no setting {name[:80]!r}; there is {_RETENTION}.")
        least, most = limits.HISTORY_RETENTION_S_MIN, limits.HISTORY_RETENTION_S_MAX
        if type(value) is not int or not least <= value <= most:
            raise ClientError("InvalidSettings", f"{_RETENTION} is a whole number from {least} to {most}.")
    return settings
