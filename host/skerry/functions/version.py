"""One version of a deployment's code, ready to be called.

Made from a bundle at activation: the module is checked, compiled, made to describe itself in an isolate of its own, and
what it says is compared with the manifest. Nothing of the manifest is believed. When its deployment is opened later, a
version is made from what the host kept of that (skerry.functions.checked_versions). A version is immutable; a call
keeps the version it began with.
"""

from typing import TYPE_CHECKING, Any, Final

import orjson

from skerry import limits
from skerry.bundle.bundle_file import Bundle
from skerry.bundle.source_maps import StackMapper
from skerry.errors import ClientError, DeveloperError
from skerry.functions.crash_notes import crash_number_of, note_of_this_thread
from skerry.functions.failures import thrown_failure
from skerry.functions.function_table import ABI_VERSION, Description, FunctionSpec
from skerry.functions.module_check import check_module
from skerry.identity import Provider
from skerry.isolate import DONE, ActionModule, BuildRunner, CompiledModule, ModuleCache

if TYPE_CHECKING:
    from skerry.schedule.due_mark import DueMark
    from skerry.vectors import VectorIndexes

_NO_SCHEMA: Final[bytes] = b'{"schemaValidation":true,"tables":[]}'


class Version:
    """Shape: `digest` of the bundle, `module` compiled, `functions` by canonical path, `schema` the export's JSON,
    `stacks` for traces, `environment` what `process.env` shows, `crash_number` what is noted while its code runs,
    `action_module` the module as actions run it, None before the first action, `vectors` and `due_mark` the
    deployment's own, `providers` whom it trusts to say who a user is.
    """

    __slots__ = (
        "action_module",
        "crash_number",
        "crons",
        "deployment_name",
        "digest",
        "due_mark",
        "environment",
        "features",
        "functions",
        "listed",
        "module",
        "providers",
        "schema",
        "stacks",
        "vectors",
    )

    def __init__(
        self,
        digest: str,
        module: CompiledModule,
        description: Description,
        stacks: StackMapper,
        deployment_name: str,
        environment: dict[str, str],
        vectors: "VectorIndexes | None" = None,
        due_mark: "DueMark | None" = None,
        providers: tuple[Provider, ...] = (),
    ) -> None:
        self.due_mark = due_mark
        self.vectors = vectors
        self.providers = providers
        self.digest = digest
        self.crash_number = crash_number_of(deployment_name, digest)
        self.module = module
        self.action_module: ActionModule | None = None
        self.functions: dict[str, FunctionSpec] = description.functions
        self.listed: list[Any] = description.listed
        self.features = description.features
        self.crons = description.crons
        self.schema = _NO_SCHEMA if description.schema is None else orjson.dumps(description.schema)
        self.stacks = stacks
        self.deployment_name = deployment_name
        self.environment = environment


def check_version(bundle: Bundle, cache: ModuleCache, deployment_name: str) -> tuple[CompiledModule, bytes]:
    """The module in a bundle, and what it says of itself, once both have passed every check that there is.

    Blocks for as long as compiling takes: not for the loop thread.
    Raises: ClientError `GuestModuleInvalid`, `DescriptionInvalid`, `ManifestMismatch`, `ModuleLoadFailed`.
    """
    check_module(bundle.image)
    manifest = bundle.manifest
    try:
        module = cache.load(bundle.image)
    except ValueError as error:
        raise ClientError("GuestModuleInvalid", f"The module does not validate: {error}") from error
    note = note_of_this_thread()
    note[0] = crash_number_of(deployment_name, bundle.digest)
    try:
        status, payload = _describe(cache, bundle)
    finally:
        note[0] = 0
    if status != DONE:
        failure = thrown_failure(payload, StackMapper(bundle.source_map))
        raise ClientError("ModuleLoadFailed", f"The module cannot describe itself: {failure.text}")
    description = Description(payload)
    said = (manifest.functions, manifest.schema, manifest.features)
    if said != (description.listed, description.schema, description.features):
        raise ClientError(
            "ManifestMismatch", "The manifest's functions, schema or features are not what the module describes."
        )
    return module, payload


def _describe(cache: ModuleCache, bundle: Bundle) -> tuple[int, bytes]:
    """What the module's `describe` returns, in an isolate of its own."""
    manifest = bundle.manifest
    try:
        runner = BuildRunner(cache, bundle.image, manifest.clock_ms, bytes.fromhex(manifest.seed), is_building=False)
        try:
            abi = runner.call("skerry_abi_version", None) & 0xFFFF_FFFF
            if abi != ABI_VERSION:
                raise ClientError(
                    "GuestModuleInvalid", f"The module follows ABI {abi}, and this host serves {ABI_VERSION}."
                )
            return runner.describe()
        finally:
            runner.close()
    except DeveloperError as error:
        raise ClientError("ModuleLoadFailed", f"The module cannot describe itself: {error.message}") from error


assert limits.DESCRIPTION_BYTES_MAX <= limits.GUEST_PAYLOAD_BYTES_MAX
