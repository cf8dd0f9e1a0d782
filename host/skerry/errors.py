"""Every error that leaves the host: three families, one table of stable codes.

*Developer* errors are caused by a deployment's own code or by its limits: inside a function they are exceptions it may
catch, outside they are the function's failure (HTTP 200 with `status: "error"`). *Client* errors are a bad request:
wrong JSON, no such function, no permission. *System* errors are ours. The table gives each code its family, the HTTP
status it travels with, and what the reader should do; `docs/errors.md` is compared with it by a test.
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
    # -- live queries ----------------------------------------------------------------------------------------------
    "InvalidSyncMessage": _client(400, "Speak the sync protocol; the message says what is wrong with what was sent."),
    "BaseVersionMismatch": _client(400, "Connect again: the client and the server disagree on what was sent before."),
    "AnswerNotKept": _client(410, "The mutation took effect; query what it wrote, for its long answer is not kept."),
    "TooManyQueries": _client(400, "Watch fewer queries on one connection, or open another one."),
    "TooManyConcurrentMutations": _system(503, "Wait for answers before sending more mutations on one connection."),
    "TooManyConnections": _system(503, "The deployment has too many connections; try again in a moment."),
    # -- crypto.subtle ---------------------------------------------------------------------------------------------
    "CryptoDataError": _developer("The key or its form is malformed; the message says what is wrong."),
    "CryptoOperationError": _developer(
        "The operation failed for these inputs: wrong key, damaged data, or a bad parameter."
    ),
    "CryptoNotSupportedError": _developer("Use an algorithm, curve or key format that CRYPTO.md lists."),
    "CryptoInvalidAccessError": _developer("The key does not allow this: another curve, another algorithm or usage."),
    "CryptoRandomnessRefused": _developer("Move the code that needs cryptographic randomness into an action."),
    "CryptoLimitExceeded": _developer("Use a smaller key, fewer iterations or less data; the message has the bound."),
    # -- system --------------------------------------------------------------------------------------------------
    "InternalServerError": _system(
        500, "A fault of the server; the log of the server has the request id and the trace."
    ),
    "EngineBuildFailed": _system(
        500, "The JavaScript engine could not be built from its sources; the message has the reason."
    ),
    # -- bundle: modules and images ------------------------------------------------------------------------------
    "GuestModuleInvalid": _client(
        400, "Upload a core WebAssembly module that follows the guest ABI; the message says where."
    ),
    "ImageBuildFailed": _client(400, "The deployment's code failed while it was loaded; the message has its error."),
    # -- the jail ------------------------------------------------------------------------------------------------
    "JobTooExpensive": _client(
        400, "Upload a smaller or simpler module: compiling it or building its image passes a limit."
    ),
    "JailBusy": _system(503, "Too many modules are being compiled; try again in a moment."),
    "JailFailed": _system(
        500, "The confined process of a job did not start or did not answer; the server's log has why."
    ),
    "JailWallsMissing": _system(
        503, "The machine refuses a wall that the server was told to require; the message names it."
    ),
    # -- system: storage
    "StorageFull": _system(503, "The disk or the storage quota of the deployment is full; free or add space."),
    "StorageFailed": _system(
        503, "The storage engine could not make a write durable; nothing of it was kept. Try again."
    ),
    "StorageKeyInvalid": _system(500, "A key handed to storage is empty or longer than storage takes."),
    "SnapshotGone": _system(503, "The storage engine was reopened under a running call; the call can be repeated."),
    "TooManySnapshots": _system(503, "More calls read the deployment's storage at once than it takes; try again."),
    "DataFolderInUse": _system(503, "Another process serves this data folder; stop it or name another folder."),
    "DataFolderFormat": _system(
        503, "The data folder was not written by this version, or is damaged; the message says which."
    ),
    # -- values --------------------------------------------------------------------------------------------------
    "InvalidJson": _developer("The text is not JSON; send valid UTF-8 JSON."),
    "InvalidValue": _developer("The JSON or the value is none of the value types; the message names what is wrong."),
    "InvalidFieldName": _developer("Rename the field; the message gives the rule."),
    "InvalidTableName": _developer("Rename the table; the message gives the rule."),
    "InvalidIndexName": _developer("Rename the index; the message gives the rule."),
    "InvalidModulePath": _developer("Rename the module; the message gives the rule."),
    "InvalidFunctionName": _developer("Rename the function; the message gives the rule."),
    "InvalidDocumentId": _developer("Pass an id that the database gave out, unchanged."),
    "ArrayTooLong": _developer("Keep the elements in documents of their own, or split the array."),
    "TooManyFieldsError": _developer("Keep the entries in documents of their own, or as an array of pairs."),
    "TooNestedError": _developer("Flatten the value, or keep inner parts in documents of their own."),
    "ValueTooLargeError": _developer("Split the value, or keep large data in file storage."),
    "InvalidValidator": _developer("The validator of a function or a table is malformed; the message says where."),
    "ArgumentValidationError": _developer("Call the function with arguments that match its validator."),
    "ReturnsValidationError": _developer("Return what the function's validator promises, or change the validator."),
    "SchemaEnforcementError": _developer("Write documents that match the schema, or change the schema."),
    "ValidationTooExpensive": _developer("Simplify nested unions in the validator, or send smaller values."),
    # -- bundle: building, reading and verifying bundles -----------------------------------------------------------
    "NodeNotFound": _client(400, "Install Node 18 or newer; only building TypeScript needs it."),
    "NpmInstallFailed": _client(400, "Check the network and npm's registry setting, then build again."),
    "AppInvalid": _client(400, "The app's folder is not laid out as the message says it must be."),
    "CompileFailed": _client(400, "The app's code does not compile; each diagnostic has its file and line."),
    "ModuleLoadFailed": _client(400, "The app's code fails while its modules load; the message has the source line."),
    "PreludeBuildFailed": _system(
        500, "The engine's prelude could not be bundled; the message has what the bundler said."
    ),
    "BundlerFailed": _system(500, "The bundler process ended; run the build again, and report it if it stays."),
    "BundleInvalid": _client(400, "The bundle is not one that `skerry build` wrote, or was damaged on the way."),
    "BundleDigestMismatch": _client(400, "The bundle's content is not what its digest says; build or fetch it again."),
    "BundleTooLarge": _client(413, "The bundle is over a limit; the message names it."),
    "BundleNotReproduced": _client(
        400, "Rebuilding gave other bytes than the bundle has; the message names the first difference."
    ),
    # -- isolates and the guest ABI ------------------------------------------------------------------------------
    "FunctionTimedOut": _developer("The function used more CPU time than it may; do less in one call."),
    "StackOverflow": _developer("The function recursed too deeply; recurse less, or use a loop."),
    "GuestTrapped": _developer("The function's WebAssembly trapped; the message says how."),
    "GuestExited": _developer("Return from the function instead of leaving the program."),
    "GuestPointerInvalid": _developer("The guest broke the ABI: a pointer or length lies outside its memory."),
    "GuestProtocolError": _developer("The guest broke the ABI; guest_sdk/ABI.md has the rules."),
    "TooManyHostcalls": _developer("Read and write in fewer, larger steps."),
    "TooManyConcurrentOperations": _developer("Await some operations before starting more."),
    "HostcallTooLarge": _developer("Send less in one operation."),
    "ResultTooLarge": _developer("Return less, or paginate."),
    "UnknownOperation": _developer("The host has no such operation, or not in this kind of function."),
    "FunctionPathNotFound": _developer("Check the function's name, and that its module exports it."),
    "WrongFunctionKind": _developer("Call queries as queries and mutations as mutations."),
    "FunctionCallTooDeep": _developer("Let functions call each other less deeply."),
    "NoActiveVersion": _developer("Deploy an app first: skerry deploy APP."),
    "DescriptionInvalid": _client(400, "The module's describe export must give what guest_sdk/ABI.md says."),
    "ManifestMismatch": _client(400, "The bundle's manifest says something else than its module; build it again."),
    "TooManyConcurrentRequests": _system(503, "Too many long calls wait; try again in a moment."),
    "SchemaRefused": _client(
        400, "The schema or the data must change first; the message names the rule or the first document."
    ),
    "BadConvexFunctionIdentifier": _client(400, "Write the path as module:function."),
    "ThreadStackTooSmall": _system(500, "Raise the limit of the stack before starting: ulimit -s 8192"),
    "IsolatesExhausted": _system(503, "Every isolate is in use; try again in a moment."),
    # -- actions ---------------------------------------------------------------------------------------------------
    "ActionTimedOut": _developer("The action ran for longer than an action may; split it, and schedule the rest."),
    "ActionCancelled": _developer("The action that called this one ended first; await what an action calls."),
    "TooManyConcurrentActions": _system(503, "Too many actions run or wait for their turn; try again in a moment."),
    # -- database ------------------------------------------------------------------------------------------------
    "OptimisticConcurrencyControlFailure": _system(
        503, "What the call had read changed before it could commit; retry."
    ),
    "CommitterFullError": _system(503, "Too many writes wait for the disk; retry in a moment."),
    "CompactionInProgress": _system(409, "The storage is being compacted already; wait for that to end."),
    "CompactionFailed": _system(503, "The storage is what it was before; the message says why. Try again later."),
    "InvalidSettings": _client(400, "Send known settings with whole numbers, or null for the default."),
    "InvalidJob": _client(400, "Ask for a job that there is: space, verify or compact."),
    "JobInProgress": _client(409, "A deployment does one of these jobs at a time; wait for the end of the other."),
    "BackupInvalid": _client(400, "Nothing was restored. Give the full backup and its increments, in order and whole."),
    "BackupBaseUnknown": _client(409, "Take a full backup; increments need history that goes back to the one before."),
    "RestoreInProgress": _client(409, "Something is being restored under this name; wait for its end."),
    "TooManyRestores": _client(409, "Wait for other restores to end before beginning one more."),
    "CommitLogCorrupted": _system(500, "The commit log cannot be read; keep the data folder and report it."),
    "IndexCorrupted": _system(500, "An index and its documents disagree; keep the data folder and report it."),
    "InvalidArgument": _developer(
        "Pass what the database operation asks for; the message says which argument is wrong."
    ),
    "SystemTableAccess": _developer("Use db.system for system tables and db for the others."),
    "SystemTableReadOnly": _developer("System tables cannot be written by functions."),
    "ReadOnlyTransaction": _developer("Write in a mutation; queries only read."),
    "DocumentNotFound": _developer("The document does not exist (any more); get it first where that may happen."),
    "TableNotFound": _developer("The id belongs to no table of this deployment."),
    "QueryNotFound": _developer("The query has ended; open it again."),
    "TooManyOpenQueries": _developer("Finish or return from queries before opening more."),
    "TooManySavepoints": _developer("Nest calls of mutations less deep."),
    "InvalidQuery": _developer("The query is malformed; the message says where."),
    "InvalidFilter": _developer("Correct the filter expression; the message says what does not fit."),
    "FilterTooExpensive": _developer("Narrow the query with an index range before filtering."),
    "FeatureNotServed": _developer("This server does not serve the feature yet."),
    "IndexNotFoundError": _developer("Declare the index in the schema, or correct its name."),
    "IndexBackfillingError": _developer("Wait until the index is built and the push that declares it is live."),
    "IndexStagedError": _developer("Declare the index without `staged: true` and deploy, then query it."),
    "IndexNotASearchIndexError": _developer("Use the index with the kind of query it was declared for."),
    "IncorrectSearchField": _developer("Search the field that the index declares as its `searchField`."),
    "DuplicateSearchFiltersError": _developer("Search for all the words in one search filter."),
    "MissingSearchFilterError": _developer("Begin a search with `q.search(field, text)`."),
    "IncorrectFilterFieldError": _developer("Declare the field in `filterFields`, or filter behind the search."),
    "TooManyFilterConditionsInSearchQueryError": _developer("Use fewer equalities, or filter behind the search."),
    "SearchQueryScannedTooManyDocumentsError": _developer("Take fewer results, paginate, or use a filter field."),
    "TooManySearchKeysRead": _developer("Search less often in one function."),
    "IndexNotADatabaseIndexError": _developer("Use the index with the kind of query it was declared for."),
    "InvalidIndexRange": _developer("Compare the fields of the index in their order."),
    "FieldNotInIndex": _developer("Compare fields of the index only, or use a filter."),
    "AlreadyDefinedBound": _developer("Give each field one equality, or one lower and one upper bound."),
    "BoundsOnMultipleFields": _developer("Bound one field of the index, and use a filter for others."),
    "IndexKeyTooLarge": _developer("Index smaller fields."),
    "LongIndexKeysTooExpensive": _developer("Index smaller fields, or ones that differ early."),
    "InvalidCursor": _developer("Start paginating from the beginning again."),
    "InvalidPageSize": _developer("Ask for at least one document a page and at most the limit."),
    "MultiplePaginatedQueries": _developer("Paginate one query in each function."),
    "OutOfRetention": _system(503, "Read at a later timestamp; older states are no longer kept."),
    "TimestampInFuture": _client(400, "Read at a timestamp that the server gave out, such as that of /api/query_ts."),
    "TooManyReads": _developer("Read fewer ranges and documents in one function."),
    "TooManyDocumentsRead": _developer("Paginate, or use an index range."),
    "TooManyBytesRead": _developer("Paginate, or use an index range."),
    "TooManyWrites": _developer("Write fewer documents in one function."),
    "TooManyBytesWritten": _developer("Write fewer or smaller documents in one function."),
    "TooManyFunctionsScheduled": _developer("Schedule fewer functions, or one that schedules the rest."),
    "InvalidCron": _client(400, "Correct the cron in crons.ts that the message names, and push again."),
    "InvalidScheduledFunction": _developer("Schedule a mutation or an action that is exported."),
    "InvalidScheduledFunctionDelay": _developer("Schedule for a time within the next five years."),
    "ScheduledFunctionCancelingItself": _developer("Return early instead of canceling the running function."),
    "ScheduledFunctionGone": _developer("The scheduled function was canceled before it ran."),
    "ScheduledFunctionsArgumentsTooLarge": _developer("Pass ids instead of documents to scheduled functions."),
    "TooManyIndexBytesWritten": _developer("Index smaller fields, or write fewer documents in one function."),
    "TooManyTables": _developer("Use fewer tables."),
    "UnknownTableInSchema": _developer("Declare the table that the validator names, or correct the name."),
    "InvalidSchema": _developer("The exported schema is malformed; the message says where."),
    "TableNameReserved": _developer("Choose a table name without a leading underscore."),
    "IndexNameReserved": _developer("Choose another index name."),
    "IndexNamesNotUnique": _developer("Give each index of a table its own name."),
    "EmptyIndex": _developer("Give the index at least one field."),
    "FieldsNotUniqueWithinIndex": _developer("Name each field once in an index."),
    "IndexTooManyFields": _developer("Use fewer fields in the index."),
    "IndexFieldsContainId": _developer("Leave _id out; every index ends with it."),
    "IndexFieldsContainCreationTime": _developer("Leave _creationTime out; every index ends with it."),
    "IndexFieldNameReserved": _developer("Index fields of your own; an underscore in front marks the system's."),
    "InvalidIndexField": _developer("Name index fields by paths of identifiers."),
    "IndexNotUnique": _developer("Declare each list of index fields once."),
    "SearchIndexFieldNotUnique": _developer("Declare one search index for each field."),
    "VectorIndexFieldNotUnique": _developer("Declare one vector index for each field."),
    "IndexTooManyFilterFields": _developer("Use fewer filter fields in the index."),
    "TooManyIndexes": _developer("Declare fewer indexes on the table."),
    "InvalidVectorDimensions": _developer("Choose vector dimensions within the limits."),
    # -- vector search -------------------------------------------------------------------------------------------
    "VectorDimensionsMismatch": _developer("Search with a vector of as many numbers as the index declares."),
    "VectorLimitTooLargeError": _developer("Ask for at most 256 results."),
    "InvalidVectorSearchFilter": _developer("Filter with q.eq of a field and a value, or with q.or of such."),
    "IncorrectVectorFilterField": _developer("Name the field in the index's filterFields, or filter by another."),
    "TooManyElementsInVectorQueryError": _developer("Filter by fewer values."),
    "IndexNotAVectorIndexError": _developer("Declare a vector index, or use this one with the query it is for."),
    "VectorIndexTooLarge": _developer("Use fewer dimensions, fewer vectors or fewer vector indexes."),
    "VectorIndexesUnavailable": _system(503, "The vector index is being loaded; try again in a moment."),
    # -- egress --------------------------------------------------------------------------------------------------
    "EgressRefused": _developer(
        "Fetch public addresses on the listed ports, or let the operator of the server allow this one."
    ),
    "EgressFailed": _developer("The other server could not be reached or broke off; the message says how far it came."),
    "EgressTimedOut": _developer("The other server was too slow; the message says for what."),
    "EgressTooLarge": _developer("Send or fetch less at once; the message has the bound."),
    "EgressInvalidRequest": _developer("Correct the address, the method, the headers or the body of the request."),
    "EgressBusy": _developer("Read or close earlier responses first: the deployment has too many fetches open."),
    # -- http ----------------------------------------------------------------------------------------------------
    "BadJsonBody": _client(400, "Send the request's body as valid UTF-8 JSON of the documented shape."),
    "RequestTooDeep": _client(400, "Nest the JSON of the request less deep."),
    "RequestTooLarge": _client(413, "Send a smaller request; the message has the bound."),
    "BadFormat": _client(400, "Ask for convex_encoded_json, json or export_json."),
    "MissingIdentifier": _client(400, "Name the module and the function: /api/run/<module>/<function>."),
    "InvalidVersion": _client(400, "Send Convex-Client as <client>-<semantic version>, or leave it out."),
    "InvalidHeaderFailure": _client(400, "Send Authorization as Bearer <token> or Convex <admin key>."),
    "InvalidAdminKey": _client(400, "Send Authorization as Bearer <token> or Convex <admin key>."),
    "HeaderParseFailure": _client(400, "After the admin key's colon, send the identity's JSON object in base64."),
    "BadAdminKey": _client(
        401, "Send an admin key of this deployment: it was shown when the server, or the deployment, was made."
    ),
    "BadDeployKey": _client(
        403, "Send an admin key of this deployment: it was shown when the server, or the deployment, was made."
    ),
    "InvalidAuthHeader": _client(401, "Send a JSON Web Token of three base64url parts that a provider signed."),
    "NoAuthProvider": _client(401, "Add the token's issuer and audience to convex/auth.config.ts and deploy it."),
    "AuthProviderDiscoveryFailed": _client(
        401, "The provider's keys could not be had; the message says why. Allow its host with --allow-egress if needed."
    ),
    "Unauthenticated": _client(401, "Get a new token of the provider: this one is not valid (any more)."),
    "TokenExpired": _client(401, "Get a new token of the provider, and authenticate again."),
    "InvalidAuthConfig": _client(400, "Correct convex/auth.config.ts; the message names the provider and the field."),
    "AuthConfigMissingEnvironmentVariable": _client(
        400, "Set the environment variable that convex/auth.config.ts uses, and deploy again."
    ),
    "InvalidComponentPath": _client(400, "Leave componentPath out: this deployment has no components."),
    "RouteNotFound": _client(404, "Check the address; docs/http.md lists the routes."),
    "MethodNotAllowed": _client(405, "Use a method of the route; docs/http.md lists them."),
    "BadTimestamp": _client(400, "Send a timestamp as /api/query_ts gives it: 8 bytes, little-endian, in base64."),
    "DigestRequired": _client(400, "Send Content-Digest: sha-256=:<base64>: with the bundle."),
    "DigestMismatch": _client(400, "The upload was damaged on the way; send it again."),
    "PushSuperseded": _client(409, "Nothing to do: the newer push goes on. Push again to have this version instead."),
    "DeployInProgress": _client(409, "Another deploy is under way; try again when it is done."),
    "ShuttingDown": _client(503, "The server is stopping; try again once it is back."),
    "PortInUse": _system(503, "Another program listens on the port; stop it or choose another port."),
    # -- supervisor and workers ----------------------------------------------------------------------------------
    "RegistryBusy": _system(503, "Try again in a moment."),
    "QuarantineUnchanged": _system(503, "The supervisor did not answer. Try again; the server's log says more."),
    "ModuleQuarantined": _system(
        503,
        "Deploy another version, or go back to one; the operator sees why in the log, and can lift it.",
    ),
    "WorkerUnstartable": _system(503, "Look at what the workers wrote to standard error, correct it, start again."),
    # -- a host of several deployments -----------------------------------------------------------------------------
    "DeploymentNotFound": _client(404, "Check the name in the address; the host's operator lists the deployments."),
    "DeploymentPaused": _client(403, "The deployment was paused by the host's operator, who can resume it."),
    "DeploymentNameTaken": _client(409, "Choose another name."),
    "DeploymentNameInvalid": _client(400, "Use lower-case letters, digits and inner hyphens, and no reserved name."),
    "DeploymentProtected": _client(409, "The default deployment can be paused, not deleted."),
    "TooManyDeployments": _client(409, "Delete deployments that are not needed before creating more."),
    "TooManyDeploymentsOpen": _system(503, "More deployments are busy than the host opens at once; try again soon."),
    "KeyNotAllowed": _client(403, "Use a key whose scope allows this; docs/http.md has the table."),
    "KeyNotFound": _client(404, "List the deployment's keys for their ids."),
    "InvalidKeyRequest": _client(400, "Send a scope (deploy, read or admin), and a label and an expiry if wanted."),
    "TooManyKeys": _client(409, "Revoke keys that are not needed before creating more."),
    "BadHostCredential": _client(401, "Send the host credential; it is in host.credential of the data folder."),
    "HostHeaderInvalid": _client(400, "Send one Host header with a host name and, where needed, a port."),
    "BatchExceedsQuota": _client(400, "Send fewer queries in each batch, or ask the operator for a larger quota."),
    "TooManyCallsAtOnce": _client(429, "The deployment's quota of calls at once is taken; send calls as others end."),
    "RequestRateExceeded": _client(429, "The deployment's quota of requests is spent; wait as Retry-After says."),
    "CpuQuotaSpent": _client(429, "The deployment's quota of CPU time is spent; wait as Retry-After says."),
    "TooManyActionsAtOnce": _client(429, "The deployment's quota of actions at once is taken; try as others end."),
    "StorageQuotaReached": _developer("Delete documents, or ask the host's operator for a larger storage quota."),
    "EgressQuotaSpent": _developer("Fetch less, or ask the host's operator for a larger egress quota."),
    "InvalidQuotas": _client(400, "Send known quotas with whole numbers, or null for the host's default."),
    "VersionNotFound": _client(404, "List the versions that are kept; older ones are gone."),
    # -- import and export ---------------------------------------------------------------------------------------
    "ImportRefused": _client(400, "Nothing was imported: do as the message says, and import again."),
    "ImportInProgress": _client(409, "Another import of this deployment is under way; try again when it is done."),
    "ImportNotFound": _client(404, "Begin again: imports are forgotten when the server restarts, and after a while."),
    "TransferQuotaReached": _client(413, "Cancel imports that wait, wait for those under way, or send a smaller file."),
    "ImportTooLarge": _client(413, "Split the file; the message has the bound."),
    "ImportCanceled": _client(409, "The import was cancelled; nothing of it was kept."),
    "ExportInProgress": _client(409, "An export of this deployment is under way; wait for it."),
    "ExportNotFound": _client(404, "Request an export first; the last one is kept until the server restarts."),
    "ImportOverlapped": _client(409, "Nothing was imported: the tables or their schema changed meanwhile; try again."),
    "TableConflict": _client(400, "Import without `_id` fields, or into a deployment without these tables."),
    "DuplicateId": _developer("Each document of a table has an id of its own: remove one of the two."),
    # -- the command ---------------------------------------------------------------------------------------------
    "PushOutcomeUnknown": _client(503, "See `skerry versions` for what is live, and push again where it is another."),
    "ServerUnreachable": _client(503, "Start the server, or name the right one with --url."),
    "ServerAnswerInvalid": _client(502, "What answers at the address is not this server, or another version of it."),
    "AdminKeyMissing": _client(401, "Pass --admin-key or set CONVEX_SELF_HOSTED_ADMIN_KEY."),
    "HostCredentialMissing": _client(401, "Pass --host-credential or set SKERRY_HOST_CREDENTIAL."),
    "FileUnusable": _client(400, "Name a file or folder that exists and may be read or written."),
    "TypecheckFailed": _client(400, "Correct the type errors, or leave --typecheck out."),
}


class SkerryError(Exception):
    """An error with a stable code from `ERRORS`.

    Shape: `code`, `message` (one sentence that says what to do), `data` (a decoded value, or None where there is none),
    `retry_after_s` the whole seconds after which it is worth trying again, None where nobody can tell.
    """

    def __init__(self, code: str, message: str, data: Any = None, *, retry_after_s: int | None = None) -> None:
        assert code in ERRORS, f"error code {code} has no row in the table"
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.retry_after_s = retry_after_s

    @property
    def spec(self) -> ErrorSpec:
        return ERRORS[self.code]


class DeveloperError(SkerryError):
    """Raised for what a deployment's function did; the function may catch it."""


class ClientError(SkerryError):
    """Raised for a request that cannot be served as it stands."""


class SystemFault(SkerryError):
    """Raised for what the host could not do; logged, answered with the code's status."""
