"""Every bound of the host, by name, with its unit in the name.

A bound lives here and nowhere else; each has a test at the bound and one past it, and a row in `docs/limits.md` that a
test compares with this file. Relations between bounds are asserted at import.
"""

KIB = 1024
MIB = 1024 * KIB

# -- values (protocol reference 1.4, 1.5) ------------------------------------------------------------------------
VALUE_ARRAY_ELEMENTS_MAX = 8192
VALUE_OBJECT_FIELDS_MAX = 1024
VALUE_NESTING_MAX = 64
VALUE_BYTES_MAX = 32 * MIB
FIELD_NAME_CHARS_MAX = 1024
IDENTIFIER_CHARS_MAX = 64
DOCUMENT_BYTES_MAX = 1 * MIB
DOCUMENT_NESTING_MAX = 16
VALUE_JSON_NESTING_MAX = VALUE_NESTING_MAX + 1  # the innermost value may be written as {"$integer": ...}
VALUE_JSON_BYTES_MAX = 64 * MIB  # text of any value, before it is parsed
VALUE_JSON_VALUES_MAX = 2_000_000  # in any text, before it is parsed; as many numbers fit the largest arguments
VALUE_JSON_CONTAINERS_MAX = 500_000  # arrays and objects among them: a parser spends most on these
JSON_WHOLE_BYTES_MAX = 256 * KIB  # of text that is parsed or written in one go; longer text goes in pieces
JSON_PIECE_BYTES = 32 * KIB  # of text that is parsed in one go: Python's global lock is held meanwhile
JSON_PIECE_VALUES = 8_192  # written, or freed, in one go
FUNCTION_RESULT_JSON_BYTES_MAX = 32 * MIB  # text of a result, before it is parsed
MODULE_PATH_CHARS_MAX = 512
MODULE_PATH_COMPONENT_CHARS_MAX = 64
FUNCTION_NAME_CHARS_MAX = 128
TABLE_NUMBER_MAX = 2**32 - 1
TABLE_NUMBER_CACHE_ENTRIES_MAX = 4096  # table prefixes of ids kept ready, per process
DOCUMENT_ID_CACHE_ENTRIES_MAX = 4096  # decoded ids a process remembers
DOCUMENT_ID_SHOWN_CHARS_MAX = 64  # of a string that is no id, in its error
VALIDATOR_NESTING_MAX = 64
VALIDATOR_NODES_MAX = 8192  # parts of one validator
VALIDATOR_STEPS_MAX = 2_000_000  # fields, elements and union members one check may try
VALIDATION_MESSAGE_PART_CHARS_MAX = 2048  # of the path, the value and the validator in an error, each

# -- function calls ----------------------------------------------------------------------------------------------
FUNCTION_ARGS_BYTES_MAX = 16 * MIB
FUNCTION_RESULT_BYTES_MAX = 16 * MIB
FUNCTION_CALL_DEPTH_MAX = 8
LOG_LINES_MAX = 256
LOG_LINE_BYTES_MAX = 4 * KIB

# -- transactions (protocol reference 8.1) -----------------------------------------------------------------------
TRANSACTION_BYTES_READ_MAX = 16 * MIB
TRANSACTION_DOCUMENTS_READ_MAX = 32_000
TRANSACTION_RANGES_READ_MAX = 4_096
TRANSACTION_DOCUMENTS_WRITTEN_MAX = 16_000
TRANSACTION_BYTES_WRITTEN_MAX = 16 * MIB

assert DOCUMENT_BYTES_MAX <= TRANSACTION_BYTES_WRITTEN_MAX <= VALUE_BYTES_MAX
assert DOCUMENT_NESTING_MAX <= VALUE_NESTING_MAX
assert VALUE_BYTES_MAX <= VALUE_JSON_BYTES_MAX
assert JSON_PIECE_BYTES < JSON_WHOLE_BYTES_MAX and JSON_PIECE_VALUES <= VALUE_ARRAY_ELEMENTS_MAX
assert FUNCTION_ARGS_BYTES_MAX // 9 < VALUE_JSON_VALUES_MAX, "a number counts nine bytes"
assert FUNCTION_RESULT_BYTES_MAX <= FUNCTION_RESULT_JSON_BYTES_MAX <= VALUE_JSON_BYTES_MAX

# -- storage -----------------------------------------------------------------------------------------------------
STORAGE_LMDB_KEY_BYTES_MAX = 511
STORAGE_KEY_DIGEST_BYTES = 24
STORAGE_SHORT_KEY_BYTES_MAX = STORAGE_LMDB_KEY_BYTES_MAX - STORAGE_KEY_DIGEST_BYTES
STORAGE_KEY_BYTES_MAX = 4 * MIB  # an escaped index key of a whole document fits twice
STORAGE_MAP_BYTES_INITIAL = 1024 * MIB  # it doubles while the storage is open, before it is full
STORAGE_MAP_BYTES_MAX = 1024 * 1024 * MIB
STORAGE_ADDRESS_SPACE_BYTES_MAX = 32 * 1024 * 1024 * MIB  # all environments of one process; the kernel gives 128 TiB
STORAGE_MAP_FILLING_PERCENT = 50  # of the map in use: it grows once no call reads beside the lane
STORAGE_MAP_URGENT_PERCENT = 75  # it grows at once; calls beside the lane begin again
STORAGE_READERS_MAX = 510
STORAGE_LOCK_SECONDS_MAX = 45  # that a worker waits for the one it succeeds to close a deployment
STORAGE_LOCK_RETRY_SECONDS = 0.005
STORAGE_GROUP_BATCHES_MAX = 512
STORAGE_GROUP_BYTES_MAX = 64 * MIB
STORAGE_WRITES_PER_SLICE = 64
STORAGE_SLICE_PAUSE_SECONDS = 20e-6

assert STORAGE_SHORT_KEY_BYTES_MAX > 2 * STORAGE_KEY_DIGEST_BYTES
assert 2 * DOCUMENT_BYTES_MAX < STORAGE_KEY_BYTES_MAX < 2**32
assert TRANSACTION_BYTES_WRITTEN_MAX < STORAGE_GROUP_BYTES_MAX < STORAGE_MAP_BYTES_INITIAL <= STORAGE_MAP_BYTES_MAX
assert STORAGE_MAP_BYTES_MAX < STORAGE_ADDRESS_SPACE_BYTES_MAX
assert STORAGE_MAP_FILLING_PERCENT < STORAGE_MAP_URGENT_PERCENT < 100

# -- isolates ----------------------------------------------------------------------------------------------------
ISOLATES_MAX = 64
GUEST_MEMORY_BYTES_MAX = 128 * MIB
GUEST_TABLES_MAX = 4
GUEST_TABLE_ELEMENTS_MAX = 20_000
GUEST_STACK_BYTES_MAX = 4 * MIB  # the JavaScript engine's own bound (stack.h) trips within three quarters of it
GUEST_THREAD_STACK_BYTES = 7 * MIB  # of a thread that runs guests: the guest's part, and the host's above it
GUEST_CPU_MS_MAX = 5_000
MODULE_LOAD_CPU_MS_MAX = 4_000
EPOCH_TICK_MS = 1
EPOCH_IDLE_TICKS = 200
INLINE_SLICE_MS = 5
INLINE_SLICE_SHARED_MS = 2  # while several deployments ask for the loop thread
CPU_LOOK_TICKS_MAX = 50
POOL_MEMORY_RESIDENT_BYTES = 976 * KIB  # where the JavaScript engine keeps what calls touch (arena.c)
POOL_TABLE_RESIDENT_BYTES = 16 * KIB
COMPILED_FILES_KEPT_MAX = 20_000  # of native code: two for each deployment of a host
COMPILED_FILES_BYTES_MAX = 64 * 1024 * MIB  # and never more than half of what the disk has left for them

assert GUEST_STACK_BYTES_MAX + 2 * MIB < GUEST_THREAD_STACK_BYTES < 8 * MIB, "8 MiB is what machines give"

# -- the jail: processes that compile and build images -----------------------------------------------------------
JAIL_JOBS_MAX = 2  # at once
JAIL_JOBS_WAITING_MAX = 32
JAIL_WAIT_SECONDS_MAX = 60  # for a place among them
JAIL_START_SECONDS_MAX = 20
JAIL_JOB_SECONDS_MAX = 120  # on the wall's clock: a busy machine lets a job wait
JAIL_CPU_SECONDS_MAX = 40  # of all threads of a job
JAIL_MEMORY_BYTES_MAX = 1024 * MIB
JAIL_FILE_BYTES_MAX = 16 * MIB  # of an unnamed file in memory: nothing else can be written
JAIL_FILES_MAX = 16
JAIL_INPUT_BYTES_MAX = 192 * MIB
JAIL_OUTPUT_BYTES_MAX = 256 * MIB
JAIL_MESSAGE_CHARS_MAX = 64 * KIB
JAIL_SPARE_SECONDS = 180
JAIL_END_MS = 2_000
JAIL_NICE = 5

# -- guest ABI ---------------------------------------------------------------------------------------------------
HOSTCALL_NAME_BYTES_MAX = 64
HOSTCALL_ARGUMENT_BYTES_MAX = 20 * MIB
HOSTCALL_RESULT_BYTES_MAX = 64 * MIB
HOSTCALLS_PER_CALL_MAX = 100_000
TICKETS_OPEN_MAX = 1_000
TICKETS_OPEN_BYTES_MAX = 64 * MIB  # arguments of functions that were called and wait for their turn
COMPLETIONS_BYTES_MAX = 48 * MIB  # of results handed over in one resume; one result may lie on top
GUEST_PAYLOAD_BYTES_MAX = 32 * MIB
ENTROPY_BYTES_MAX = 65_536

assert FUNCTION_RESULT_JSON_BYTES_MAX <= GUEST_PAYLOAD_BYTES_MAX < 1 << 28, "a packed result holds 28 bits of length"
assert HOSTCALL_RESULT_BYTES_MAX < 1 << 28
assert HOSTCALL_ARGUMENT_BYTES_MAX <= TICKETS_OPEN_BYTES_MAX
assert COMPLETIONS_BYTES_MAX + GUEST_PAYLOAD_BYTES_MAX < GUEST_MEMORY_BYTES_MAX, "completions fit the guest's memory"
assert FUNCTION_ARGS_BYTES_MAX < HOSTCALL_ARGUMENT_BYTES_MAX < GUEST_MEMORY_BYTES_MAX
assert TRANSACTION_DOCUMENTS_READ_MAX + TRANSACTION_DOCUMENTS_WRITTEN_MAX < HOSTCALLS_PER_CALL_MAX

# -- bundles: an app's sources, the file that is uploaded, error traces ------------------------------------------
APP_ENTRY_MODULES_MAX = 4096
CONVEX_JSON_BYTES_MAX = 64 * KIB
SOURCE_FILE_BYTES_MAX = 8 * MIB
BUNDLER_ANSWER_BYTES_MAX = 256 * MIB
DIAGNOSTICS_SHOWN_MAX = 20
BUNDLE_FILE_BYTES_MAX = 128 * MIB
BUNDLE_ENTRIES_MAX = 20_000
BUNDLE_ENTRY_NAME_BYTES_MAX = 512
BUNDLE_IMAGE_BYTES_MAX = 64 * MIB
BUNDLE_MANIFEST_BYTES_MAX = 8 * MIB
SOURCE_MAP_BYTES_MAX = 16 * MIB
SOURCE_MAP_SOURCES_MAX = BUNDLE_ENTRIES_MAX
SOURCE_MAP_SEGMENTS_MAX = 500_000
SOURCE_MAP_LINES_MAX = 500_000  # of the script that it maps, empty ones too
SOURCE_MAP_SEGMENT_BYTES = 200  # of memory that a decoded segment takes, about
SOURCE_MAPS_DECODED_BYTES_MAX = 256 * MIB  # of memory that the decoded maps of a process take together, about
STACK_TEXT_CHARS_MAX = 64 * KIB
SOURCE_LINE_CHARS_MAX = 500
STACK_FRAMES_MAX = 64

assert SOURCE_MAP_BYTES_MAX + SOURCE_MAP_SEGMENTS_MAX * SOURCE_MAP_SEGMENT_BYTES < SOURCE_MAPS_DECODED_BYTES_MAX
assert BUNDLE_MANIFEST_BYTES_MAX < BUNDLE_IMAGE_BYTES_MAX < BUNDLE_FILE_BYTES_MAX <= BUNDLER_ANSWER_BYTES_MAX
assert BUNDLE_ENTRIES_MAX < 65_535, "the count of a plain zip has 16 bits"

# -- bundle: the outside of WebAssembly modules ------------------------------------------------------------------
MODULE_BYTES_MAX = 64 * MIB
MODULE_SECTIONS_MAX = 256
MODULE_TYPES_MAX = 10_000
MODULE_IMPORTS_MAX = 64
MODULE_FUNCTIONS_MAX = 100_000
MODULE_TABLE_ELEMENTS_MAX = 100_000
MODULE_GLOBALS_MAX = 1_000
MODULE_EXPORTS_MAX = 100
MODULE_ELEMENT_SEGMENTS_MAX = 10_000
MODULE_DATA_SEGMENTS_MAX = 100_000
MODULE_NAME_BYTES_MAX = 1_024

# -- crypto.subtle (work the host does for a guest) --------------------------------------------------------------
CRYPTO_DATA_BYTES_MAX = 16 * MIB
CRYPTO_KEY_BYTES_MAX = 16 * KIB  # also salts, infos, labels, signatures
CRYPTO_DERIVED_BYTES_MAX = 64 * KIB
CRYPTO_PBKDF2_ROUNDS_MAX = 2_000_000  # iterations times blocks of the hash; 600,000 is today's advice for one block
CRYPTO_RSA_MODULUS_BITS_MIN = 1_024
CRYPTO_RSA_MODULUS_BITS_MAX = 4_096
CRYPTO_RSA_EXPONENT_BITS_MAX = 64
CRYPTO_KEYS_REMEMBERED = 64

assert CRYPTO_DATA_BYTES_MAX <= HOSTCALL_ARGUMENT_BYTES_MAX
assert CRYPTO_DERIVED_BYTES_MAX + CRYPTO_KEY_BYTES_MAX <= HOSTCALL_RESULT_BYTES_MAX

# -- database ----------------------------------------------------------------------------------------------------
TABLES_MAX = 10_000
INDEXES_PER_TABLE_MAX = 64
INDEX_FIELDS_MAX = 16
INDEX_FILTER_FIELDS_MAX = 16
VECTOR_DIMENSIONS_MIN = 2
VECTOR_DIMENSIONS_MAX = 4_096
SCHEMA_JSON_BYTES_MAX = 8 * MIB
INDEX_KEY_BYTES_MAX = STORAGE_KEY_BYTES_MAX - 16  # the index number goes in front
TRANSACTION_FUNCTIONS_SCHEDULED_MAX = 1_000
TRANSACTION_SCHEDULED_ARGS_BYTES_MAX = 16 * MIB
TRANSACTION_INDEX_BYTES_MAX = 64 * MIB
TRANSACTION_GATHERED_BYTES_MAX = 128 * MIB
USAGE_WARNING_PERCENT = 80
QUERY_OPERATORS_MAX = 256
QUERY_JSON_BYTES_MAX = 4 * MIB
QUERY_JSON_NESTING_MAX = 200
QUERY_FINGERPRINT_BYTES = 16
OPEN_QUERIES_MAX = 1_000
FILTER_NESTING_MAX = 64
FILTER_STEPS_MAX = 10_000_000
FILTER_BYTES_PER_STEP = 8
FILTER_STEPS_PER_LOOK = 1_000  # before somebody looks at the clock
SCAN_CHUNK_KEYS_FIRST = 16
SCAN_CHUNK_KEYS_MAX = 256
SCAN_CHUNK_KEYS_LONG = 4_096  # once keys turned out to share a prefix too long for the storage engine to order
SAVEPOINT_DEPTH_MAX = 64
PAGE_DOCUMENTS_MAX = 32_000
PAGE_SPLIT_DOCUMENTS = 6_144
PAGE_SPLIT_PERCENT = 75
CURSOR_CHARS_MAX = 8 * MIB  # a cursor holds an index key, which may be as large as a document
PLAN_CACHE_ENTRIES_MAX = 1_024
PLAN_CACHE_TEXT_BYTES_MAX = 4 * KIB
COMMIT_TS_MAX = 2**64 - 1
CONFLICT_VALUE_CHARS_MAX = 64  # of an indexed value, in the report of a conflict
PAST_CHUNK_KEYS = 64  # of a range read in the past, each of which may take as many look-ups as lie between milestones
COMMITS_PENDING_MAX = 20_000
COMMITS_TOGETHER_MAX = 16  # as many go to storage at once; more would leave the writer idle for longer than it saves
COMMITS_TOGETHER_BYTES_MAX = 1 * MIB
COMMITS_PENDING_BYTES_MAX = 128 * MIB
WRITE_LOG_COMMITS_MAX = 100_000
WRITE_LOG_BYTES_MAX = 256 * MIB  # beyond what may be pending: kept while detached transactions run
SCHEMA_CHANGE_BATCH_ITEMS = 1_000
SCHEMA_CHANGE_BATCH_BYTES = 1 * MIB  # of index keys that share a sync; those of the last step may lie on top
BULK_BATCH_WRITES = 1_024  # documents or index entries of an import that share a sync
BULK_BATCH_BYTES = 512 * KIB  # likewise; those of the last document may lie on top
BULK_BATCHES_PENDING_MAX = 6  # of an import on their way to storage, where no calls wait; one, where some do
SORT_CHUNK_KEYS = 2_048  # index keys of an import that are sorted at once
SORT_CHUNK_BYTES = 256 * KIB  # likewise; those of the last document may lie on top
SORT_RUN_CHUNKS = 32  # that are held in memory before they go to a file as one run
SORT_RUN_BYTES = 4 * MIB  # likewise
SORT_LEVEL_RUNS = 64  # of which one larger run is made
SORT_PIECE_KEYS = 2_048  # that one step of merging puts in order, if there are fewer runs than that
SORT_BLOCK_KEYS = 256  # of a run that are read at once
SORT_BLOCK_BYTES = 32 * KIB  # likewise; the last key may lie on top
SORT_WRITE_BYTES = 1 * MIB  # of a run that are written at once
BULK_STEP_ITEMS = 64  # stored documents that one step copies or clears
SCHEMA_STEP_ITEMS = 64  # documents or index entries that a step looks at before it looks at the clock
SCHEMA_STEP_BYTES = 16 * KIB  # likewise; a piece of more than twice as many is worked on beside the loop thread
SCHEMA_STEP_US_MAX = 1_000  # after which a step ends with the piece at hand
SCHEMA_BATCHES_PENDING_MAX = 2  # batches of a schema change on their way to storage
STEP_BUSY_TURN_US = 100  # of the loop thread's CPU, beyond which others use it: the next step of long work waits
STEP_BUSY_PAUSE_SECONDS = 0.002  # for so long
STEP_BUSY_TURNS = 64  # without calls, after which a deployment is no longer busy
STEP_BUSY_BATCH_WRITES = 256  # of long work that go to storage at once, where calls are made: commits wait behind them
SCHEMA_RETRY_SECONDS = 30.0  # after which background work that storage failed is tried again
SCHEMA_OFFENDERS_SHOWN_MAX = 5  # documents that do not fit a schema and are named in its refusal
SCHEMA_OFFENDERS_COUNTED_MAX = 1_000  # and that are counted before the count becomes "at least"
SCHEMA_OFFENDERS_SEARCH_DOCUMENTS = 100_000  # that are judged behind the first offender, for the sake of the count
SCHEMA_WRITTEN_DOCUMENTS_MAX = 10_000  # written during a push and not judged yet; beyond, mutations wait until they are
BACKFILL_BATCH_ENTRIES = 1_000  # that are put into an index together
BACKFILL_BATCH_BYTES = 256 * KIB  # likewise; the last entry may lie on top
BACKFILL_RUN_CHUNKS = 16  # batches whose entries are sorted together; a crash repeats so many at most
BACKFILL_RUN_BYTES = 4 * MIB  # likewise; those of the last piece may lie on top
RETENTION_CHUNK_COMMITS = 1_000
RETENTION_CHUNK_CHANGES = 250  # replaced versions that one step drops; each costs some 50 us for a table with indexes
RETENTION_CHUNK_BYTES = 1 * MIB  # of log entries and replaced versions that one step reads; the last may lie on top
HISTORY_MILESTONE_VERSIONS = 64  # a read in the past steps over at most so many versions of a document

assert FUNCTION_CALL_DEPTH_MAX <= SAVEPOINT_DEPTH_MAX
assert 2 * DOCUMENT_BYTES_MAX < INDEX_KEY_BYTES_MAX < STORAGE_KEY_BYTES_MAX
assert TRANSACTION_BYTES_WRITTEN_MAX + TRANSACTION_INDEX_BYTES_MAX < COMMITS_PENDING_BYTES_MAX
assert SCAN_CHUNK_KEYS_FIRST <= SCAN_CHUNK_KEYS_MAX < PAGE_DOCUMENTS_MAX <= TRANSACTION_DOCUMENTS_READ_MAX
assert 256 % HISTORY_MILESTONE_VERSIONS == 0 and HISTORY_MILESTONE_VERSIONS & (HISTORY_MILESTONE_VERSIONS - 1) == 0
assert COMMITS_TOGETHER_MAX < COMMITS_PENDING_MAX and COMMITS_TOGETHER_BYTES_MAX < STORAGE_GROUP_BYTES_MAX
assert COMMITS_PENDING_MAX < WRITE_LOG_COMMITS_MAX and COMMITS_PENDING_BYTES_MAX < WRITE_LOG_BYTES_MAX
assert QUERY_JSON_BYTES_MAX < HOSTCALL_ARGUMENT_BYTES_MAX

# -- search (protocol reference 9.1) -------------------------------------------------------------------------------
SEARCH_TEXT_CHARS_MAX = 256 * KIB  # of a text, counted from its beginning, that are indexed
SEARCH_TOKENS_PER_TEXT_MAX = 32_767  # likewise; what comes behind is not found
SEARCH_TERMS_PER_TEXT_MAX = 8_192  # different ones; another that comes behind is not found
SEARCH_TERM_BYTES_MAX = 32  # a longer one is cut, in texts and in queries
SEARCH_RUN_CHARS_MAX = 256  # characters that are normalised at a time: marks in one run cost the square of their number
SEARCH_TERM_COUNT_MAX = 255  # occurrences in a text that count
SEARCH_QUERY_TERMS_MAX = 16  # of a query; what comes behind is ignored
SEARCH_PREFIX_TERMS_MAX = 16  # indexed terms that the last term of a query stands for
SEARCH_FILTERS_MAX = 8
SEARCH_RESULTS_MAX = 1_024  # a query that comes to this one fails
SEARCH_POSTINGS_MAX = 1_024  # documents with a term that are read all; of more, the strongest
SEARCH_LONG_POSTINGS_MAX = 3_072  # of all the terms with more documents together
SEARCH_BATCH_POSTINGS = 64  # read of them before looking whether they suffice
SEARCH_CANDIDATES_READ_MAX = 128  # documents that are read to complete their score
SEARCH_PROBED_POSTINGS = 256  # counted to tell which of several filters leaves the fewest
SEARCH_SAMPLE_KEYS = 128  # from which the number of documents with a common term is estimated
SEARCH_SAMPLED_ONE_IN = 16  # documents; a power of two
SLICE_SEARCH_CHARS_MAX = 16 * KIB  # of a text that is indexed on the loop thread; longer ones go to the background
TRANSACTION_SEARCH_KEYS_MAX = 1_000_000  # that the searches of one function execution read

assert SEARCH_TOKENS_PER_TEXT_MAX < 1 << 15 and 256 % SEARCH_SAMPLED_ONE_IN == 0
assert 2 * SEARCH_TERM_BYTES_MAX + 64 < STORAGE_SHORT_KEY_BYTES_MAX
assert SEARCH_RESULTS_MAX <= SEARCH_POSTINGS_MAX < SEARCH_LONG_POSTINGS_MAX

# -- vector search -----------------------------------------------------------------------------------------------
VECTOR_RESULTS_DEFAULT = 10
VECTOR_RESULTS_MAX = 256
VECTOR_FILTER_VALUES_MAX = 64
VECTOR_EXACT_VALUES_MAX = 8 * 1024 * 1024  # numbers (vectors times dimensions) up to which every search is exact
VECTOR_DEPLOYMENT_BYTES_MAX = 512 * MIB  # that the vector indexes of one deployment take in memory
VECTOR_HOST_BYTES_MAX = 1024 * MIB  # likewise, of all deployments of a process
VECTOR_IDLE_SECONDS = 60  # without a search, after which an index may have to make room for another
VECTOR_RETRY_SECONDS = 30  # after there was no memory for an index, before it is tried again
VECTOR_WAIT_SECONDS_MAX = 30  # of an action, for an index to be loaded and for its turn
VECTOR_QUERY_WAIT_SECONDS_MAX = 5  # of a query, on a background thread
VECTOR_SEARCHES_WAITING_MAX = 256  # of one deployment's actions
VECTOR_THREADS = 2
VECTOR_BLOCK_BYTES = 1 * MIB  # of vectors, as much as memory grows by
VECTOR_BLOCK_ROWS_MIN = 64
VECTOR_BLOCK_ROWS_MAX = 4_096
VECTOR_DOCUMENTS_PER_PIECE = 64  # read, or taken from commits, in one piece of work
VECTOR_PIECE_BYTES = 256 * KIB  # about, of documents read in one piece
VECTOR_FEED_BYTES_MAX = 64 * MIB  # of changed documents that wait to be taken in; then the index is loaded anew
VECTOR_GRAPH_ROWS_PER_PIECE = 32
VECTOR_GRAPH_EFFORT_MIN = 64  # rows that a walk through the graph considers
VECTOR_GRAPH_EFFORT_MAX = 16_384
VECTOR_GRAPH_SAMPLE = 32  # searches that recall is measured by
VECTOR_RECALL_AIMED = 0.98  # of the sample, so that 0.95 holds for searches unlike it
VECTOR_PROPOSALS_MAX = 4_096  # of the graph for one filtered search; more are looked for exactly

assert VECTOR_RESULTS_DEFAULT < VECTOR_RESULTS_MAX < VECTOR_PROPOSALS_MAX <= VECTOR_GRAPH_EFFORT_MAX
assert VECTOR_BLOCK_ROWS_MIN * 4 * VECTOR_DIMENSIONS_MAX <= VECTOR_BLOCK_BYTES < VECTOR_DEPLOYMENT_BYTES_MAX
assert VECTOR_DEPLOYMENT_BYTES_MAX <= VECTOR_HOST_BYTES_MAX

# -- HTTP --------------------------------------------------------------------------------------------------------
HTTP_BODY_BYTES_MAX = 2 * FUNCTION_ARGS_BYTES_MAX + 64 * KIB  # of a call: arguments grow when written as JSON
HTTP_LONG_BYTES_WAITING_MAX = 256 * MIB  # of a deployment's bodies that wait to be parsed beside the loop thread
HTTP_FIELDS_MAX = 64  # of a call in a long body
HTTP_BODY_NESTING_MAX = VALUE_JSON_NESTING_MAX + 2  # the body's object, and the array around positional arguments
HTTP_ACCEPTS_PER_TURN_MAX = 256  # connections taken each time the loop looks; the rest waits for the next turn
HTTP_ACCEPT_PAUSE_SECONDS = 0.1  # after running out of descriptors
SYNC_MESSAGE_BYTES_MAX = 32 * MIB  # of a message on a WebSocket, all of its frames together
SYNC_MESSAGE_FRAMES_MAX = 16_384  # that a message comes in, the empty ones too
SYNC_FRAMES_PER_TURN_MAX = 64  # of one connection, before the loop looks at others
SYNC_STEPS_PER_TURN_MAX = 256  # of one connection: queries watched or forgotten, before the loop looks at others
SYNC_MESSAGE_NESTING_MAX = 80
SYNC_MODIFICATIONS_MAX = 10_000  # of one change of a query set
SYNC_QUERY_SET_BYTES_MAX = 64 * MIB  # of the long arguments of what one connection watches
SYNC_QUERIES_MAX = 10_000  # that one connection watches
SYNC_MUTATIONS_WAITING_MAX = 1_000  # of one connection, which have not begun
SYNC_MUTATIONS_AT_ONCE_MAX = 64  # of one connection, which have begun; all but the last are committed
SYNC_UPDATES_PER_TURN_MAX = 100  # connections of a deployment that a turn of the loop brings to the newest state
SYNC_SHARED_BYTES_MAX = 4 * MIB  # of transitions kept because the next connection may be told the same
SYNC_ACTIONS_MAX = 1_000  # of one connection at a time
SYNC_CONNECTIONS_EACH_MAX = 10_000  # of one deployment
SYNC_PING_SECONDS = 15  # between two signs of life to a client
SYNC_SILENCE_SECONDS_MAX = 120  # of a client, before its connection is dropped
SYNC_STALL_SECONDS_MAX = 60  # for which a client takes nothing of what was sent
SYNC_CHUNK_BYTES_MAX = 1 * MIB  # of a transition in one message, for clients that put it together
SYNC_UNSENT_BYTES_MAX = 64 * MIB  # in one connection's buffer, before it is dropped
ANSWERS_KEPT_SECONDS = 14 * 86_400  # at least, of mutations over a socket: one that is sent again takes effect once
ANSWER_BYTES_MAX = 64 * KIB  # of what is kept of one; of a longer one, that there was one
ANSWERS_PERIOD_SECONDS = 7 * 86_400  # whose answers are forgotten together, and in which one is looked for at a time
ANSWERS_STEP_KEYS = 200  # that one step of forgetting deletes
ANSWERS_STEP_BYTES = 1 * MIB  # that one step of forgetting reads; the last may lie on top
SYNC_COMMITS_REMEMBERED_MAX = 10_000  # while live queries run; what ran for longer holds at its snapshot only
SYNC_SUPERSEDED_EACH_MAX = 64  # results of a live query that hold no longer, and that a client may be brought to
SYNC_SUPERSEDED_BYTES_MAX = 16 * MIB  # of those, of all live queries of a deployment
QUERY_CACHE_EACH_BYTES_MAX = 32 * MIB  # of the answers to queries that are kept for a deployment, and what tells them
QUERY_CACHE_BYTES_MAX = 256 * MIB  # of all deployments of a worker; the one that has most gives some up
QUERY_CACHE_ARGS_BYTES_MAX = 16 * KIB  # of the arguments of a query whose answer is kept
QUERY_CACHE_READS_MAX = 1_000  # documents and ranges that such a query has read
QUERY_CACHE_SEEN_MAX = 4_096  # queries that are remembered as asked for once; and as many before them
HTTP_BATCH_QUERIES_MAX = 1_000
HTTP_CALLS_PER_TURN_MAX = 128  # run before what came since is looked at, and before the first of them is answered
TURN_QUANTUM_US = 1_000  # of the loop thread, which a deployment may use before the next one has its turn
TURN_DEBT_US_MAX = 50_000  # that a deployment's calls can owe; they end sooner, but for what the host does at their end
TURN_CALL_US_MIN = 40  # what a call counts for beside its own CPU time: its request and its answer
TURN_SHARED_US = 1_000  # of calls, before the loop looks at what has arrived, while several deployments ask
TURNS_SHARED = 2_000  # of the loop, for which several deployments count as asking once they have
HTTP_BODY_SECONDS_MAX = 300  # for a body to arrive, a bundle's too; then the connection is closed
HTTP_DRAIN_BYTES_MAX = 64 * MIB  # of a body that is too large, read so that the client sees why
HTTP_HEAD_BYTES_MAX = 64 * KIB
HTTP_HEAD_SECONDS_MAX = 15
HTTP_QUERY_STRING_BYTES_MAX = 48 * KIB
HTTP_HOST_BYTES_MAX = 261  # of the Host header: a name of 253 bytes, a dot, a colon and a port
HTTP_HOSTS_REMEMBERED_MAX = 4_096
HTTP_IDLE_SECONDS_MAX = 75
HTTP_SWEEP_SECONDS = 1  # between looks at the deadlines of connections
HTTP_EXPIRED_PER_TURN_MAX = 100  # connections past their deadlines that a turn of the loop sees to
HTTP_SHUTDOWN_SECONDS_MAX = 30
HTTP_RETRY_AFTER_SECONDS = 1  # what a 503 advises
LOG_SAME_REFUSAL_SECONDS = 10  # between two lines of one deployment on requests refused with the same code
LOG_REFUSAL_CHARS_MAX = 300  # of such a line that the message has
HTTP_ECHO_BYTES_MAX = 16 * MIB
HTTP_REQUEST_ID_CHARS_MAX = 64
USER_AGENT_CHARS_MAX = 512  # of the header, for functions that ask
CLIENT_HEADER_CACHE_ENTRIES_MAX = 256
ADMIN_KEY_CHARS_MAX = 512
ADMIN_KEY_CHARS_WANTED = 16  # a shorter one can be guessed; it works, with a warning
IDENTITY_JSON_BYTES_MAX = 16 * KIB

assert FUNCTION_ARGS_BYTES_MAX < HTTP_BODY_BYTES_MAX < VALUE_JSON_BYTES_MAX
assert JSON_WHOLE_BYTES_MAX < HTTP_BODY_BYTES_MAX < HTTP_LONG_BYTES_WAITING_MAX
assert TURN_CALL_US_MIN < TURN_QUANTUM_US < TURN_DEBT_US_MAX
assert HTTP_QUERY_STRING_BYTES_MAX < HTTP_HEAD_BYTES_MAX
assert HTTP_SWEEP_SECONDS < HTTP_HEAD_SECONDS_MAX < HTTP_BODY_SECONDS_MAX

# -- functions ---------------------------------------------------------------------------------------------------
FUNCTIONS_MAX = 16_384
DESCRIPTION_BYTES_MAX = 16 * MIB
BACKGROUND_THREADS = 3
BACKGROUND_THREADS_EACH_MAX = 2  # of one deployment: its long calls leave a thread to the others
BACKGROUND_THREAD_NICE = 5
LOG_RECORDS_WAITING_MAX = 1_000  # of the server's own log, for a reader that is slow; more are dropped and counted
LOG_END_SECONDS_MAX = 2  # for writing them when the server ends
GIVE_WAY_SECONDS_MAX = 0.002  # that background work stops at one look while the loop thread has calls to run
EVENTS_LOOK_NS = 100_000  # after which background work looks again whether events wait for the loop thread
HAND_OVER_SECONDS = 0.00005  # for which it sleeps then: to wake a thread takes about as long
VALIDATION_STEPS_PER_LOOK = 500  # of a check in the background, before it looks whether somebody waits
GIL_SWITCH_SECONDS = 0.0002  # that a thread keeps the global lock once another asks for it
BACKGROUND_CALLS_WAITING_MAX = 1_000
LANE_CALLS_WAITING_MAX = 1_000
CONFLICT_RETRIES_MAX = 3
SNAPSHOTS_LOST_MAX = 3  # by one call beside the lane, which begins again each time
INLINE_VALIDATION_STEPS_MAX = 200_000
SLICE_VALIDATION_STEPS_MAX = 10_000  # on the loop thread; a check that takes more is done in the background
SLICE_RESULT_BYTES_MAX = 512 * KIB  # likewise, a result that is checked there
SLICE_SOURCE_MAP_BYTES_MAX = 32 * KIB  # likewise, a source map that is decoded there
RESULT_UNCHECKED_BYTES_MAX = 256 * KIB  # of a result that is, byte for byte, the documents the function collected

assert 1 <= BACKGROUND_THREADS_EACH_MAX < BACKGROUND_THREADS
assert (BACKGROUND_THREADS + 2) * (FUNCTION_CALL_DEPTH_MAX + 1) <= ISOLATES_MAX, "nested calls always find an isolate"
assert SLICE_VALIDATION_STEPS_MAX < INLINE_VALIDATION_STEPS_MAX <= VALIDATOR_STEPS_MAX
assert RESULT_UNCHECKED_BYTES_MAX / 32 <= VALUE_ARRAY_ELEMENTS_MAX, "a document's id alone has 31 characters"
assert DOCUMENT_NESTING_MAX + 1 <= VALUE_NESTING_MAX and 9 * RESULT_UNCHECKED_BYTES_MAX <= FUNCTION_RESULT_BYTES_MAX
CALL_LOG_SECONDS = 0.25  # until the lines of calls are written, many at once
CALL_LOG_LINES_WAITING_MAX = 20_000  # of the log of calls, before they are written
PUSH_NAME_CHARS_MAX = 64  # that a client gives a push, to ask for its outcome by
PUSH_OUTCOMES_KEPT_MAX = 10  # of a deployment, for clients whose connection was lost
BUNDLES_KEPT_MAX = 10  # versions of a deployment, the active one among them
VERSION_PREFIX_CHARS_MIN = 6  # of a digest, to name a version by

# -- actions -----------------------------------------------------------------------------------------------------
ACTIONS_RUNNING_MAX = 1_000  # begun by callers; what these call comes on top
ACTIONS_WAITING_MAX = 1_000
ACTION_WAIT_SECONDS_MAX = 30  # for a place
ACTION_ISOLATES_MAX = 1_200
ACTION_WARM_ISOLATES_MAX = 88  # whose slots keep their memory for the next action; the others give it back
ACTION_WARM_EACH_MAX = 64  # of these for one deployment: its sleeping actions leave warm slots to the others
ACTION_WARM_MEMORY_RESIDENT_BYTES = POOL_MEMORY_RESIDENT_BYTES  # of each of those
ACTIONS_MEMORY_BYTES_MAX = 12 * 1024 * MIB  # that all isolates of actions may address: of a TypeScript app 9 MiB each
ACTION_SECONDS_MAX = 600
ACTION_SHUTDOWN_SECONDS_MAX = 20  # for actions under way when the server stops
ACTION_CPU_MS_MAX = 60_000
ACTION_SLICE_MS = 20  # of one entry, before its thread goes on with the lowest priority and another takes its place
ACTION_THREADS = 2
ACTION_JOBS_UNTOLD_MAX = 8  # entries whose outcome a thread keeps from the loop while there are more to run
ACTION_THREADS_OUTRUN_MAX = 16  # threads whose guest outran its slice
COMPUTING_TURN_NS = 20_000_000  # of a thread whose guest outran its slice, where others wait to compute
ACTION_THREAD_NICE = 5
ACTION_THREAD_OUTRUN_NICE = 19
ACTION_HELD_BYTES_MAX = 64 * MIB  # of arguments and bodies that one action's open operations hold
ACTION_RESULTS_IN_FLIGHT_MAX = 64  # functions called by one action, and bodies read whole for it, at once
ACTION_CALLS_PER_TURN = 4  # functions begun for one action each time the loop turns
ACTION_TIMER_MS_MAX = 2**31 - 1
ACTION_FETCHES_OPEN_MAX = 1_000  # whose body is not read to its end
ACTION_FETCH_CHUNK_BYTES = 64 * KIB
ACTION_FETCH_BODY_BYTES_MAX = 20 * MIB  # of a body read whole
ACTION_FETCH_HEADERS_MAX = 256
ACTION_FETCH_URL_CHARS_MAX = 64 * KIB

assert ACTION_WARM_EACH_MAX < ACTION_WARM_ISOLATES_MAX
assert ACTION_WARM_ISOLATES_MAX < ACTIONS_RUNNING_MAX < ACTION_ISOLATES_MAX
assert ACTION_ISOLATES_MAX * 9 * MIB + ACTION_THREADS * GUEST_MEMORY_BYTES_MAX < ACTIONS_MEMORY_BYTES_MAX
assert ACTION_SHUTDOWN_SECONDS_MAX < HTTP_SHUTDOWN_SECONDS_MAX, "callers hear what became of their action"
assert ACTION_FETCH_BODY_BYTES_MAX <= COMPLETIONS_BYTES_MAX and HOSTCALL_ARGUMENT_BYTES_MAX <= ACTION_HELD_BYTES_MAX

# -- upkeep ------------------------------------------------------------------------------------------------------
HISTORY_RETENTION_S = 3_600
UPKEEP_INTERVAL_S = 1.0
UPKEEP_COMMITS_MAX = 200
UPKEEP_STEP_US = 2_000  # of the loop thread, after which a step of dropping history ends with the change at hand
UPKEEP_SHARE_PERCENT = 10  # of the loop thread's time that dropping history may take
UPKEEP_LATE_SECONDS = 30  # that history may be older than its retention, before dropping it takes a larger share
UPKEEP_LATE_SHARE_PERCENT = 50
HISTORY_RETENTION_S_MIN = 10
HISTORY_RETENTION_S_MAX = 90 * 86_400

assert HISTORY_RETENTION_S_MIN < HISTORY_RETENTION_S < HISTORY_RETENTION_S_MAX
assert UPKEEP_COMMITS_MAX <= RETENTION_CHUNK_COMMITS, "a full step is seen as full"

# -- storage care: verifying, measuring, compacting, backing up -----------------------------------------------------
LONG_LOOK_GROWTH_BYTES_MAX = 1024 * MIB  # of a file, beside a look that lasts; or as much as its data, if that is more
VERIFY_STEP_ITEMS = 256  # looked at before whoever verifies may rest
VERIFY_DIFFERENCES_MAX = 1_000  # told one by one; more are counted
VERIFY_COMMITS_REMEMBERED = 64  # whose documents a walk keeps in memory
BACKUP_PIECE_BYTES = 256 * KIB  # of text that is packed or unpacked at once
BACKUP_CHUNK_BYTES = 48 * KIB  # of a bundle, in one line
BACKUP_LINE_BYTES_MAX = 16 * MIB  # a head with a schema, or a document however it is escaped
RESTORE_BATCH_BYTES = 2 * MIB  # of documents that share a sync
RESTORE_TABLE_NUMBER_MAX = 2**30
RESTORE_UPLOAD_BYTES_MAX = 1024 * 1024 * MIB
RESTORES_MAX = 4  # of one process at once
COMPACTION_FREE_PERCENT = 50  # of a file that hold nothing: then it is compacted by itself
COMPACTION_FREE_BYTES_MIN = 32 * MIB  # likewise
COMPACTION_INTERVAL_SECONDS = 600  # between attempts to compact by itself
COMPACTION_DISK_SPARE_BYTES = 64 * MIB  # that the disk must have beside the copy
COMPACTION_PIECE_BYTES = 1 * MIB  # copied before the copy rests
COMPACTION_PACE_PERCENT = 50  # of the time for copying, the rest of it for others
COMPACTION_JOURNAL_BYTES_MAX = 4 * 1024 * MIB  # committed while a copy is made; with more the attempt ends
COMPACTION_REST_BYTES = 256 * KIB  # of the journal, left for the switch
COMPACTION_ROUNDS_MAX = 30  # of catching up with what is committed meanwhile

assert SCHEMA_JSON_BYTES_MAX + TABLES_MAX * 100 < BACKUP_LINE_BYTES_MAX > 6 * DOCUMENT_BYTES_MAX

# -- supervisor and workers --------------------------------------------------------------------------------------
WORKERS_MAX = 64
WORKER_START_SECONDS_MAX = 120  # from its start to its word that it is ready; then it is killed
WORKER_STARTS_FAILED_MAX = 5  # one after another, before any start ever succeeded; then the server gives up
WORKER_STEADY_SECONDS = 10  # a worker that lived so long is restarted without a pause
WORKER_RESTART_DELAY_SECONDS_FIRST = 0.1  # doubled for each further death of an unsteady worker
WORKER_RESTART_DELAY_SECONDS_MAX = 5
WORKER_STOP_SECONDS_MAX = HTTP_SHUTDOWN_SECONDS_MAX + 5  # from being told to stop; then it is killed
CHANNEL_MESSAGE_BYTES_MAX = 64 * KIB
CHANNEL_DESCRIPTORS_MAX = 128  # the kernel's own bound is 253
HANDOVER_INLINE_BYTES_MAX = 16 * KIB  # of what was read, in the message itself; more lies in a memory file
HANDOVER_SECONDS_MAX = 60  # with nothing else to wait for; then the connection is closed
HANDOVER_RETRY_SECONDS = 0.005  # while answers leave or the door is full
HANDOVER_BYTES_MAX = 1 * MIB  # a head at its bound and one read beyond it
OWNERS_REMEMBERED_MAX = 4_096
CRASH_THREADS_MAX = 1_024  # that run guests at once
CRASH_MODULES_MAX = 4_096  # versions that a worker loaded and that the crash page can name
CRASH_REPORT_BYTES_MAX = 64 * KIB
QUARANTINE_CRASHES_MAX = 3  # of one module within the window
QUARANTINE_WINDOW_SECONDS = 600
QUARANTINE_LIFT_SECONDS_MAX = 10  # until the supervisor has lifted one, written that down and said so
QUARANTINED_MODULES_MAX = 256  # that the supervisor tells a new worker

assert WORKERS_MAX + 5 <= CHANNEL_DESCRIPTORS_MAX, "a worker's first message brings the doors of all"
assert HANDOVER_INLINE_BYTES_MAX + 2 <= CHANNEL_MESSAGE_BYTES_MAX
assert 2 * HTTP_HEAD_BYTES_MAX < HANDOVER_BYTES_MAX
assert QUARANTINED_MODULES_MAX * 136 <= CHANNEL_MESSAGE_BYTES_MAX - 16 * KIB, "told in one message, beside the options"
assert WORKER_RESTART_DELAY_SECONDS_FIRST < WORKER_RESTART_DELAY_SECONDS_MAX < WORKER_STEADY_SECONDS

# -- a host of several deployments -------------------------------------------------------------------------------
DEPLOYMENTS_MAX = 10_000
DEPLOYMENT_NAME_CHARS_MAX = 63  # a label of a host name
DEPLOYMENTS_OPEN_MAX = 128
DEPLOYMENT_OPEN_FILES = 8  # of one that is open: lock, storage (3), machine code, and an upload; some to spare
OPEN_FILES_ASSUMED = 1_048_576  # where the machine names no bound
DEPLOYMENTS_OPENING_MAX = 4  # at once; the rest waits its turn
DEPLOYMENT_OPENING_CALLS_MAX = 2_000  # calls that wait while their deployment opens
DEPLOYMENT_IDLE_SECONDS = 300  # without a call, then it is closed
DEPLOYMENT_SWEEP_SECONDS = 5
DEPLOYMENT_REOPEN_SECONDS = 1  # after a failure to open, before the next attempt
ACTIVATIONS_MAX = 2  # bundles that a host checks and compiles at once; the rest waits its turn
REGISTRY_ATTEMPTS_MAX = 100  # to write a change, while other processes of the host write theirs
KEYS_PER_DEPLOYMENT_MAX = 100
KEY_LABEL_CHARS_MAX = 80
KEY_EXPIRY_MS_MAX = 2**53
HOST_BODY_BYTES_MAX = 64 * KIB  # of a request that operates a host or a deployment

# what a deployment may use unless its operator set something else; memory is GUEST_MEMORY_BYTES_MAX
QUOTA_CALLS_AT_ONCE = 5_000  # running and waiting
QUOTA_REQUESTS_PER_MINUTE = 1_200_000
QUOTA_CPU_MS_PER_MINUTE = 120_000  # two cores' worth
QUOTA_ACTIONS_AT_ONCE = 500
QUOTA_STORAGE_BYTES = 8 * 1024 * MIB
QUOTA_EGRESS_REQUESTS_PER_MINUTE = 60_000
QUOTA_EGRESS_BYTES_PER_MINUTE = 4 * 1024 * MIB
METRICS_PEER_SECONDS_MAX = 2  # for what another worker counts; it is left out then
METRICS_PAGE_BYTES_MAX = 4 * MIB  # of one worker
METRICS_DEPLOYMENTS_MAX = 100  # with a label of their own; the others are one
QUOTA_MEMORY_BYTES_MIN = 16 * MIB  # an app's image takes some of it
QUOTA_MAX = 2**48
USAGE_SAVE_SECONDS = DEPLOYMENT_SWEEP_SECONDS  # a crash forgets at most the usage since, and what was being saved

assert QUOTA_ACTIONS_AT_ONCE < ACTIONS_RUNNING_MAX, "one deployment leaves places to the others"
assert QUOTA_MEMORY_BYTES_MIN < GUEST_MEMORY_BYTES_MAX
assert DEPLOYMENTS_OPENING_MAX < DEPLOYMENTS_OPEN_MAX < DEPLOYMENTS_MAX
assert DEPLOYMENTS_OPEN_MAX * STORAGE_MAP_BYTES_INITIAL < STORAGE_ADDRESS_SPACE_BYTES_MAX
assert WORKER_STOP_SECONDS_MAX < STORAGE_LOCK_SECONDS_MAX, "a worker that retires is gone before its successor gives up"

# -- egress: what functions fetch --------------------------------------------------------------------------------
EGRESS_URL_CHARS_MAX = 16 * KIB
EGRESS_METHOD_CHARS_MAX = 32
EGRESS_REDIRECTS_MAX = 5
EGRESS_REQUEST_HEADERS_MAX = 128
EGRESS_REQUEST_HEAD_BYTES_MAX = 64 * KIB  # names and values of the headers together
EGRESS_REQUEST_BODY_BYTES_MAX = 64 * MIB
EGRESS_RESPONSE_HEADERS_MAX = 256
EGRESS_RESPONSE_HEADER_BYTES_MAX = 16 * KIB  # of one header
EGRESS_RESPONSE_HEAD_BYTES_MAX = 64 * KIB  # interim answers included
EGRESS_RESPONSE_WIRE_BYTES_MAX = 128 * MIB  # as it arrives: heads, framing, and bodies before they are decompressed
EGRESS_RESPONSE_BYTES_MAX = 128 * MIB  # of a body as the function reads it
EGRESS_FRAMING_BYTES_MAX = 1 * MIB  # of a response: heads and chunk framing, which cost most to parse
EGRESS_READ_BYTES_MAX = 1 * MIB  # of one read
EGRESS_BUFFER_BYTES = 32 * KIB  # of a body: twice as much is held before the peer is made to wait
EGRESS_PULL_BYTES = 16 * KIB  # taken from the buffer in one turn of the loop: each may be a chunk of its own
EGRESS_PIECE_BYTES = 64 * KIB  # of a request's body, for one write
EGRESS_GZIP_MEMBERS_MAX = 4_096  # of one body; each costs some microseconds, however small it is
EGRESS_SMALL_BODY_BYTES = 16 * KIB  # a body that came whole with its head and is no larger needs no connection
EGRESS_CONNECTIONS_MAX = 100  # of one deployment, in use and idle
EGRESS_FETCHES_WAITING_MAX = 1_000  # of one deployment, for a connection
EGRESS_WAIT_SECONDS_MAX = 30  # for a connection
EGRESS_LOOKUP_SECONDS_MAX = 5
EGRESS_LOOKUP_THREADS = 8  # of one process
EGRESS_LOOKUPS_MAX = 4  # of one deployment at once; more wait
EGRESS_ADDRESSES_MAX = 16  # of one name
EGRESS_CONNECT_SECONDS_MAX = 10  # name, connection and TLS together
EGRESS_ANSWER_SECONDS_MAX = 120  # until a head: from the start, and again from each piece of the body that was sent
EGRESS_SILENCE_SECONDS_MAX = 60  # between bytes of a body while the function waits for them
EGRESS_TOTAL_SECONDS_MAX = 300  # from the start to the end of the body, redirects included
EGRESS_IDLE_SECONDS_MAX = 10  # an idle connection is kept for the next fetch
EGRESS_CHECK_SECONDS_MAX = 30  # an address that was checked longer ago is checked again, over a new connection
EGRESS_URL_CACHE_ENTRIES_MAX = 256  # parsed addresses that a process remembers

assert EGRESS_RESPONSE_HEADER_BYTES_MAX < EGRESS_RESPONSE_HEAD_BYTES_MAX < EGRESS_RESPONSE_WIRE_BYTES_MAX
assert EGRESS_SMALL_BODY_BYTES <= EGRESS_BUFFER_BYTES < EGRESS_READ_BYTES_MAX <= HOSTCALL_RESULT_BYTES_MAX
assert EGRESS_LOOKUPS_MAX < EGRESS_LOOKUP_THREADS, "one deployment's slow lookups leave threads to the others"
assert EGRESS_LOOKUP_SECONDS_MAX < EGRESS_CONNECT_SECONDS_MAX < EGRESS_ANSWER_SECONDS_MAX < EGRESS_TOTAL_SECONDS_MAX
assert EGRESS_IDLE_SECONDS_MAX < EGRESS_CHECK_SECONDS_MAX

# -- identity ----------------------------------------------------------------------------------------------------
AUTH_PROVIDERS_MAX = 64
AUTH_FIELD_CHARS_MAX = 64 * KIB  # of one field of a provider; a JWKS may be in it, as a data: URI
AUTH_TOKEN_BYTES_MAX = 16 * KIB
AUTH_CLAIMS_NESTING_MAX = 16
AUTH_KEYS_BYTES_MAX = 256 * KIB  # of a provider's discovery document, and of its JWKS
AUTH_KEYS_MAX = 100  # of one provider
AUTH_RSA_BITS_MIN = 2048
AUTH_RSA_BITS_MAX = 8192
AUTH_FETCH_SECONDS_MAX = 10  # for a provider's discovery document, and for its JWKS
AUTH_KEYS_FRESH_SECONDS = 900  # keys are used without asking again, where the provider says nothing of it
AUTH_KEYS_FRESH_SECONDS_MIN = 60  # the same, whatever the provider says
AUTH_KEYS_FRESH_SECONDS_MAX = 24 * 3600
AUTH_KEYS_STALE_SECONDS_MAX = 3600  # they are used on while the provider does not answer
AUTH_KEYS_AGAIN_SECONDS_MIN = 10  # between two fetches from one provider, whatever tokens come
AUTH_TOKENS_WAITING_MAX = 1_000  # of one deployment, for keys
AUTH_CLOCK_SKEW_SECONDS = 5
AUTH_VERIFIED_BYTES_MAX = 4 * MIB  # of tokens of one deployment that need not be verified again

assert AUTH_KEYS_AGAIN_SECONDS_MIN < AUTH_KEYS_FRESH_SECONDS_MIN <= AUTH_KEYS_FRESH_SECONDS
assert AUTH_TOKEN_BYTES_MAX < HTTP_HEAD_BYTES_MAX

# -- import and export -------------------------------------------------------------------------------------------
IMPORT_PIECE_BYTES = 64 * KIB  # of a file, read at once
IMPORT_DOCUMENT_TEXT_BYTES_MAX = (
    8 * MIB
)  # of a line or an element: a document of the largest size, however it is escaped
IMPORT_LARGE_TEXT_BYTES = 16 * KIB  # a document of more text is parsed and judged beside the loop thread
IMPORT_STEP_US = 1_000  # after which a step ends with the document at hand
IMPORT_CSV_COLUMNS_MAX = VALUE_OBJECT_FIELDS_MAX
IMPORT_UPLOAD_BYTES_MAX = 16 * 1024 * MIB  # of a file
IMPORT_PART_BYTES_MAX = 64 * MIB  # of one part of an upload
IMPORT_PARTS_MAX = 10_000
IMPORT_FINISH_BYTES_MAX = 1 * MIB  # of the request that names all parts
IMPORT_UPLOADS_MAX = 4  # of one deployment that are open at once; the oldest goes
TRANSFER_IDLE_SECONDS = 600  # without use, after which files of imports and exports make room for others
IMPORTS_REMEMBERED = 16  # of one deployment: what became of them
IMPORT_ARCHIVE_ENTRIES_MAX = 4 * TABLES_MAX
IMPORT_ARCHIVE_DIRECTORY_BYTES_MAX = 16 * MIB
IMPORT_ARCHIVE_NAME_CHARS_MAX = 512
IMPORT_ARCHIVE_UNPACKED_BYTES_MAX = 256 * 1024 * MIB
IMPORT_ARCHIVE_RATIO_MAX = 400  # of unpacked to packed bytes, of entries over 1 MiB
IMPORT_TABLE_NUMBER_MAX = 2**30  # that an archive may give a table: as many are left for those that come
EXPORT_STEP_ITEMS = 64  # documents of one step
EXPORT_PIECE_BYTES = 256 * KIB  # of text that is compressed at once, beside the loop thread

assert DOCUMENT_BYTES_MAX * 6 <= IMPORT_DOCUMENT_TEXT_BYTES_MAX < VALUE_JSON_BYTES_MAX, "an escape has six bytes"

# -- scheduled functions -----------------------------------------------------------------------------------------
SCHEDULED_ARGS_BYTES_MAX = 4 * MIB  # of one scheduled function
SCHEDULED_DELAY_SECONDS_MAX = 5 * 365 * 86_400  # how far away a function can be scheduled
SCHEDULED_ERROR_CHARS_MAX = 8 * KIB  # of the error that a failed one keeps
SCHEDULED_KEPT_SECONDS = 7 * 86_400  # what became of one, after its end
SCHEDULED_FORGET_STEP = 50  # documents of ended ones that one step removes
SCHEDULED_RECOVER_STEP = 50  # lost actions that one step marks
SCHEDULED_MUTATIONS_AT_ONCE = 64  # of one deployment
SCHEDULED_ACTIONS_AT_ONCE = 32  # of one deployment
SCHEDULED_LOOK_KEYS = 64  # pending ones that are looked up at once
SCHEDULED_RETRY_MS_MIN = 100  # until one that the host could not run is tried again; doubled each time
SCHEDULED_RETRY_MS_MAX = 60_000
SCHEDULED_RESTING_MAX = 1_000  # of one deployment that wait to be tried again; more let all of them wait
SCHEDULED_OPEN_AGAIN_SECONDS = 5  # after a deployment could not be opened for what it has scheduled
SCHEDULED_SUCCESSOR_SECONDS = 60  # a process that takes another one's place leaves to it what is due meanwhile
SCHEDULED_WAIT_SECONDS_MAX = 3_600  # of one timer: then the clock is looked at again, which may have been set
CRONS_MAX = 1_000  # of one deployment
CRON_NAME_CHARS_MAX = 256
CRON_ARGS_BYTES_MAX = 1 * MIB  # of all crons of a deployment
CRON_EXPRESSION_CHARS_MAX = 256
CRON_INTERVAL_SECONDS_MAX = 366 * 86_400
CRON_SKIPPED_COUNTED_MAX = 1_000  # runs of a cron expression that were left out, counted one by one
