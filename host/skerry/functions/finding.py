"""Which function a request means, and what its caller hears where there is none."""

from skerry.errors import ClientError, DeveloperError, SkerryError
from skerry.functions.failures import error_message, host_failure
from skerry.functions.function_table import FunctionSpec, normalise_path
from skerry.functions.operations import wrong_kind
from skerry.functions.request import CallRequest, CallResult
from skerry.functions.version import Version


def find_function(version: Version, request: CallRequest) -> FunctionSpec:
    """The function a request means.

    Raises: ClientError for a malformed path; DeveloperError for a missing function or one of another kind.
    """
    path = request.path
    spec = version.functions.get(path) if ".js:" not in path else None
    if spec is not None and spec.is_public and spec.kind == request.kind and spec.kind != "httpAction":
        return spec  # what nearly every call asks for; names of functions are their own canonical paths
    path = normalise_path(path)
    if path is None:
        raise ClientError(
            "BadConvexFunctionIdentifier", f"{request.path!r:.200} is no function path. Write module:function."
        )
    spec = version.functions.get(path)
    if spec is None and f"node:{path.rpartition(':')[0]}" in version.features:
        raise DeveloperError(
            "FeatureNotServed", f"'{path}' is in a \"use node\" module: the Node runtime is not served yet."
        )
    if spec is None or spec.kind == "httpAction" or not (spec.is_public or request.is_admin):
        raise DeveloperError("FunctionPathNotFound", missing(request, ""))
    if request.kind is not None and spec.kind != request.kind:
        raise DeveloperError("WrongFunctionKind", wrong_kind(spec.name, request.kind, spec.kind))
    return spec


def refused(request: CallRequest, error: SkerryError) -> CallResult | SkerryError:
    """The outcome of a call that never ran."""
    if not isinstance(error, DeveloperError):
        return error
    message = error_message(request.request_id, host_failure(error))
    return CallResult(False, b"", [], None, message, None, error.code)


def missing(request: CallRequest, advice: str) -> str:
    """The sentence about a function that is not there. Shape: `advice` begins with a space, or is empty."""
    if request.wording == "public":
        return f"Could not find public function for '{request.path}'.{advice}"
    return f"Could not find function for '{request.path}'. Did you forget to run `npx convex dev`?{advice}"
