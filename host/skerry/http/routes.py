"""Every route there is, as (method, path): the app is built from this table, and docs/http.md is compared with it."""

from typing import Final

# Served by `skerry.http.calls` in front of the framework: what runs functions.
CALL_ROUTES: Final[tuple[tuple[str, str], ...]] = (
    ("GET", "/api/query"),
    ("POST", "/api/query"),
    ("POST", "/api/mutation"),
    ("POST", "/api/action"),
    ("POST", "/api/function"),
    ("POST", "/api/run/{path}"),
    ("POST", "/api/query_ts"),
    ("POST", "/api/query_at_ts"),
    ("POST", "/api/query_batch"),
)

# Served through the framework.
PLAIN_ROUTES: Final[tuple[tuple[str, str], ...]] = (
    ("GET", "/"),
    ("GET", "/version"),
    ("GET", "/instance_name"),
    ("GET", "/instance_version"),
    ("POST", "/echo"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/api/check_admin_key"),
    ("GET", "/api/skerry/functions"),
    ("POST", "/api/skerry/deploy"),
)

ROUTES: Final[tuple[tuple[str, str], ...]] = CALL_ROUTES + PLAIN_ROUTES
RUN_PREFIX: Final = "/api/run/"
