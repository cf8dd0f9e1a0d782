"""Every route there is, as (method, path): the app is built from these tables, and docs/http.md is compared with them.

The right that a route asks of a key stands with the route, and is checked before the route's handler is called.
"""

from typing import Final

from skerry.admin.access import Right

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

# Served through the framework, each with the right it asks for; None where anybody may.
DEPLOYMENT_ROUTES: Final[dict[tuple[str, str], Right | None]] = {
    ("GET", "/"): None,
    ("GET", "/version"): None,
    ("GET", "/instance_name"): None,
    ("GET", "/instance_version"): None,
    ("POST", "/echo"): None,
    ("GET", "/health"): None,
    ("GET", "/api/check_admin_key"): Right.SEE,
    ("GET", "/api/skerry/functions"): Right.SEE,
    ("POST", "/api/skerry/deploy"): Right.DEPLOY,
    ("GET", "/api/skerry/versions"): Right.SEE,
    ("GET", "/api/skerry/schema"): Right.SEE,
    ("GET", "/api/skerry/crons"): Right.SEE,
    ("POST", "/api/skerry/rollback"): Right.DEPLOY,
    ("GET", "/api/skerry/usage"): Right.SEE,
    ("POST", "/api/import"): Right.DATA,
    ("POST", "/api/import/start_upload"): Right.DATA,
    ("POST", "/api/import/upload_part"): Right.DATA,
    ("POST", "/api/import/finish_upload"): Right.DATA,
    ("POST", "/api/perform_import"): Right.DATA,
    ("POST", "/api/cancel_import"): Right.DATA,
    ("GET", "/api/skerry/imports/{id}"): Right.DATA,
    ("POST", "/api/export/request/zip"): Right.DATA,
    ("GET", "/api/export/zip/{id}"): Right.DATA,
    ("GET", "/api/skerry/exports/latest"): Right.DATA,
    ("GET", "/api/skerry/storage"): Right.SEE,
    ("POST", "/api/skerry/storage/settings"): Right.STORAGE,
    ("POST", "/api/skerry/storage/jobs"): Right.STORAGE,
    ("GET", "/api/skerry/backup"): Right.STORAGE,
    ("GET", "/api/skerry/keys"): Right.KEYS,
    ("POST", "/api/skerry/keys"): Right.KEYS,
    ("DELETE", "/api/skerry/keys/{id}"): Right.KEYS,
}

# The same, for the host's operator: they take the host credential, and are served by no deployment's own address.
HOST_ROUTES: Final[tuple[tuple[str, str], ...]] = (
    ("GET", "/metrics"),
    ("GET", "/metrics/worker"),
    ("GET", "/host/deployments"),
    ("POST", "/host/deployments"),
    ("GET", "/host/deployments/{name}"),
    ("DELETE", "/host/deployments/{name}"),
    ("POST", "/host/deployments/{name}/pause"),
    ("POST", "/host/deployments/{name}/resume"),
    ("POST", "/host/deployments/{name}/restore"),
    ("GET", "/host/deployments/{name}/usage"),
    ("GET", "/host/deployments/{name}/quotas"),
    ("POST", "/host/deployments/{name}/quotas"),
    ("GET", "/host/deployments/{name}/keys"),
    ("POST", "/host/deployments/{name}/keys"),
    ("DELETE", "/host/deployments/{name}/keys/{id}"),
    ("GET", "/host/quarantine"),
    ("DELETE", "/host/deployments/{name}/quarantine"),
)

ROUTES: Final[tuple[tuple[str, str], ...]] = (*CALL_ROUTES, *DEPLOYMENT_ROUTES, *HOST_ROUTES)
RUN_PREFIX: Final = "/api/run/"
