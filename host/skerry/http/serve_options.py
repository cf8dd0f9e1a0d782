"""What a server is started with, apart from the web framework, so that whoever starts one need not load it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What a server is started with.

    Shape: a port of 0 means any free one; the origins are what clients reach the ports by, where they differ;
    `allow_egress` is what actions may reach beside the public internet (host:port). The deployments are subdomains of
    `domain` beside those of localhost. `log_calls` writes a line for each call.
    """

    data: Path
    host: str
    port: int
    site_port: int
    production: bool
    admin_key: str | None
    cloud_origin: str | None = None
    site_origin: str | None = None
    allow_egress: tuple[str, ...] = ()
    require_walls: bool = False
    host_credential: str | None = None
    domain: str | None = None
    log_calls: bool = False

    def to_json(self) -> dict[str, Any]:
        """The options as a worker process is told them."""
        return {**asdict(self), "data": str(self.data)}

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> "ServeOptions":
        """The options from `to_json`."""
        given: dict[str, Any] = {**told, "data": Path(told["data"]), "allow_egress": tuple(told["allow_egress"])}
        return ServeOptions(**given)
