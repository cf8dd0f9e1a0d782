"""Every error that leaves the host: three families, one table of stable codes.

*Developer* errors are caused by a deployment's own code or by its limits: inside a function they are exceptions it may
catch, outside they are the function's failure (HTTP 200 with `status: "error"`). *Client* errors are a bad request: wrong
JSON, no such function, no permission. *System* errors are ours. The table gives each code its family, the HTTP status it
travels with, and what the reader should do; `docs/errors.md` is compared with it by a test.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class Family(Enum):
    DEVELOPER = "developer"
    CLIENT = "client"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    family: Family
    http_status: int
    advice: str


def _developer(advice: str) -> ErrorSpec:
    return ErrorSpec(Family.DEVELOPER, 200, advice)


def _client(http_status: int, advice: str) -> ErrorSpec:
    return ErrorSpec(Family.CLIENT, http_status, advice)


def _system(http_status: int, advice: str) -> ErrorSpec:
    return ErrorSpec(Family.SYSTEM, http_status, advice)


ERRORS: Final[dict[str, ErrorSpec]] = {
    # -- system --------------------------------------------------------------------------------------------------
    "InternalServerError": _system(500, "A fault of the server; the log of the server has the request id and the trace."),
}


class SkerryError(Exception):
    """An error with a stable code from `ERRORS`.

    Shape: `code`, `message` (one sentence that says what to do), `data` (a decoded value, or None where there is none).
    """

    def __init__(self, code: str, message: str, data: Any = None) -> None:
        assert code in ERRORS, f"error code {code} has no row in the table"
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    @property
    def spec(self) -> ErrorSpec:
        return ERRORS[self.code]


class DeveloperError(SkerryError):
    """Raised for what a deployment's function did; the function may catch it."""


class ClientError(SkerryError):
    """Raised for a request that cannot be served as it stands."""


class SystemFault(SkerryError):
    """Raised for what the host could not do; logged, answered with the code's status."""
