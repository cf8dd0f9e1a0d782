"""Attacks in TypeScript: intrinsics replaced, values that are none, thrown things that lie, what an isolate can find."""

from typing import Any

from skerry.functions.action_operations import ACTION_OURS, ACTION_SERVED
from skerry.limits import GUEST_CPU_MS_MAX
from tests.hostile.case import Case, Outcome
from tests.hostile.ground import SPARRING_CPU_MS, Ground

WALL = "memory of the host and of other calls"
ABI = "what a guest says"
TIME = "time and memory of a call"
TIMED_OUT = "Function execution timed out (maximum duration: 0.5s)"
STACK = "Uncaught RangeError: Maximum call stack size exceeded\n"
MEMORY = "Uncaught InternalError: out of memory\n"
NO_VALUE = " is not a supported Convex type."
UNDESCRIBED = "Uncaught Error: an error that cannot be described was thrown\n"


def over_http(kind: str, path: str, args: Any = None) -> Any:
    def run(ground: Ground) -> Outcome:
        return ground.call("script", kind, path, args)

    return run


def in_process(path: str, args: Any, want: Outcome) -> Any:
    """Where the attack is on time: the same functions, in this process, with little time for a call that spends all."""

    def run(ground: Ground) -> Outcome:
        world = ground.sparring("script")
        world.deployment.lane.cpu_ms_max = SPARRING_CPU_MS if want == _SPENT else GUEST_CPU_MS_MAX
        result = world.call("query", path, args)
        if result.ok:
            return ("value", result.value.decode())
        return ("code", result.error_code, result.error_message.partition("\n")[2])

    return run


def value(what: Any) -> Outcome:
    return ("value", what)


def fails(text: str) -> Outcome:
    return ("fails", text)


_INTRINSICS: list[tuple[str, str, str, Outcome]] = [
    ("toJSON on Object.prototype", "query", "objectToJson", value("owned")),
    ("setters on Object.prototype for the host's field names", "query", "objectSetters", value(True)),
    ("a then on Object.prototype", "query", "objectThen", value(["s", 1])),
    ("Array.prototype's methods replaced", "query", "arrayMethods", value(True)),
    ("an index on Array.prototype", "query", "arrayIndexSetter", value(True)),
    ("JSON.stringify gives no JSON", "query", "jsonStringify", fails("Uncaught Error: \n")),
    ("JSON.parse lies", "query", "jsonParse", value({"owned": True})),
    ("Promise.prototype.then does nothing", "query", "promiseThen", value("pong")),
    ("Promise.prototype.then throws", "query", "promiseThenThrows", value("returned")),
    ("Promise is another class", "query", "promiseGone", value("ok")),
    ("Promise.prototype.constructor throws", "query", "promiseSpecies", fails("Uncaught Error: constructor\n")),
    ("Map.prototype.get finds a forged function", "query", "mapGet", value("pong")),
    ("Set.prototype.has allows everything", "query", "setHas", value("ReadOnlyTransaction")),
    ("String.prototype's methods replaced", "query", "stringMethods", value("pong")),
    ("Function.prototype.call replaced", "query", "functionCall", value("pong")),
    ("Error throws when made", "query", "errorConstructor", value("ReadOnlyTransaction")),
    ("Error.prototype's getters throw", "query", "errorProperties", fails(UNDESCRIBED)),
    ("Error.prepareStackTrace gives an object", "query", "prepareStackTrace", fails("Uncaught Error: prepared\n")),
    ("toString throws", "query", "errorToString", fails(UNDESCRIBED)),
    ("Convex replaced by a forgery", "query", "convexReplaced", value("pong")),
    ("Convex deleted", "query", "convexGone", value("Error")),
    ("lengths of typed arrays lie", "query", "typedArrays", value({"$bytes": "AQI="})),
    ("Symbol.species gives a Proxy", "query", "species", fails("Uncaught TypeError: species\n")),
    ("console gone", "query", "consoleGone", value("returned")),
    ("globals frozen", "query", "globalFrozen", value("pong")),
    ("globals left behind for the next call", "mutation", "leaves", value(None)),
    (
        "the engine's bindings with odd arguments",
        "query",
        "nativeBindings",
        value(["SyntaxError", "TypeError", "answered", "bind TypeError"]),
    ),
    (
        "the engine's bindings without arguments",
        "query",
        "nativeNoArguments",
        value(["TypeError", "TypeError", "function", "string", "TypeError", "undefined", "TypeError"]),
    ),
]

_VALUES: list[tuple[str, str, Outcome]] = [
    ("a bigint of 2^63", "bigintHigh", fails("Uncaught Error: BigInt 9223372036854775808 does not fit into a 64-bit")),
    (
        "a bigint below -2^63",
        "bigintLow",
        fails("Uncaught Error: BigInt -9223372036854775809 does not fit into a 64-bit"),
    ),
    (
        "a bigint of 30,000 digits",
        "bigintGiant",
        fails("Uncaught Error: BigInt 9990020930143845079440327643300335909804291390541"),
    ),
    (
        "undefined in an array",
        "undefinedInArray",
        fails("Uncaught Error: undefined is not a valid Convex value (present at path [0]"),
    ),
    (
        "a name with a dollar",
        "dollarName",
        fails("Uncaught Error: Field name $a starts with a '$', which is reserved."),
    ),
    (
        "a forged $integer",
        "dollarInteger",
        fails("Uncaught Error: Field name $integer starts with a '$', which is reserved."),
    ),
    ("a name with a zero byte", "controlName", fails("Uncaught Error: Field name a\0b has invalid character")),
    ("a name of Cyrillic letters", "unicodeName", fails("Uncaught Error: Field name \u0430dmin has invalid character")),
    ("an own __proto__", "protoKey", value({"a": 1})),
    (
        "names of Object.prototype",
        "constructorKey",
        value({"constructor": 1, "hasOwnProperty": 3, "prototype": 2, "toString": 4}),
    ),
    ("an own toJSON", "toJsonMethod", fails('Uncaught Error: Function "[Function]"' + NO_VALUE[:-1])),
    ("a name of 1025 characters", "longName", fails("Uncaught Error: Field name xxxxxxxx")),
    ("1025 fields", "manyFields", fails("Object has too many fields (1025 > maximum number 1024)")),
    ("8193 elements", "longArray", fails("Array length is too long (8193 > maximum length 8192)")),
    ("holes in an array", "holes", value([1, None, 3])),
    ("an array of nothing but length", "sparse", value([None] * 5)),
    ("a Proxy that lies about its length", "arrayLengthLie", fails("Uncaught RangeError: invalid array length\n")),
    ("an object in itself", "cyclic", fails(STACK)),
    ("an array in itself", "cyclicArray", fails(STACK)),
    ("66 arrays in each other", "nested65", fails("JSON text is nested more than 64 levels deep.")),
    ("200,000 arrays in each other", "nestedDeep", fails(STACK)),
    ("a Date", "date", fails('Uncaught Error: Date "1970-01-01T00:00:00.000Z"' + NO_VALUE)),
    ("a Map", "map", fails("Uncaught Error: Map[[1,2]]" + NO_VALUE)),
    ("a class's instance", "instance", fails('Uncaught Error: Account {"n":1}' + NO_VALUE)),
    ("a symbol", "symbol", fails('Uncaught Error: Symbol "Symbol(s)"' + NO_VALUE)),
    ("a boxed bigint", "boxed", fails("Uncaught TypeError: BigInt are forbidden in JSON.stringify\n")),
    ("a thenable of thenables", "thenable", value("settled")),
    ("a thenable that settles twice", "thenableTwice", value("first")),
    ("a view of bytes", "bytesView", fails('Uncaught Error: Uint8Array {"0":1,"1":2}' + NO_VALUE)),
    ("a detached buffer", "detached", fails("Uncaught TypeError: ArrayBuffer is detached\n")),
    ("a resized buffer", "resizable", value({"$bytes": "AAA="})),
    ("a buffer that shrinks while it is read", "shrinksInGetter", value({"a": {"$bytes": ""}, "b": {"$bytes": ""}})),
    ("a shared buffer", "sharedBuffer", fails("Uncaught Error: SharedArrayBuffer {}" + NO_VALUE)),
    ("a NaN with a payload", "nanPayload", value({"$float": "AAAAAAAA+H8="})),
    ("half a surrogate pair", "surrogate", fails("Not valid JSON: no low surrogate in string")),
    (
        "half a surrogate pair as a name",
        "surrogateKey",
        fails("Uncaught Error: Field name \ufffd has invalid character"),
    ),
    ("a getter that throws", "getterThrows", fails("Uncaught TypeError: from the getter\n")),
    ("an array that shrinks while it is read", "arrayShrinks", value([{"a": 1}, *[None] * 5000])),
    ("a Proxy with forged fields", "proxyTraps", value({"a": 7, "b": 7})),
    ("a revoked Proxy", "proxyRevoked", fails("Uncaught TypeError: revoked proxy\n")),
    ("an own module", "module", fails('Uncaught Error: Function "[Function]"' + NO_VALUE[:-1])),
]

_STORED: list[tuple[str, str, Outcome]] = [
    ("a document of 64 levels", "nested64", fails("Uncaught Error: Document is too nested (nested 64 levels deep")),
    ("a document of 1025 fields", "manyFields", fails("Uncaught Error: Object has too many fields (1025")),
    (
        "a document with half a surrogate pair",
        "surrogate",
        fails("Uncaught Error: The argument of an operation must be the JSON"),
    ),
    ("a document with __proto__", "protoKey", value({"a": 1})),
    ("a document that is a Proxy", "proxy", value({"a": 1})),
    ("a document in itself", "cyclic", fails(STACK)),
    ("a document that shrinks while it is read", "arrayShrinks", value([{"a": 1}, *[None] * 5000])),
]

_THROWN: list[tuple[str, str, Outcome]] = [
    ("a host's code that asks for a retry", "codeConflict", fails("Uncaught Error: plain\n")),
    ("a host's code for a time-out", "codeTimedOut", fails("Uncaught FunctionTimedOut: plain\n")),
    ("a host's code for a quarantine", "codeQuarantined", fails("Uncaught Error: plain\n")),
    ("a message that throws", "messageGetter", fails(UNDESCRIBED)),
    ("a name of 4 MiB", "nameGiant", fails("Uncaught " + "N" * 256 + ": plain\n")),
    ("a message of 16 MiB", "messageGiant", fails("Uncaught Error: " + "M" * 65536 + "\n")),
    ("a trace of 200,000 lines", "stackGiant", fails("Uncaught Error: plain\n")),
    ("a trace that names files of the host", "stackLies", ("fails", "Uncaught Error: plain\n")),
    ("a trace with numbers of 5,000 digits", "stackNumbers", fails("Uncaught Error: plain\n")),
    (
        "a message that forges another answer",
        "messageLines",
        fails("Uncaught Error: one\n[Request ID: ffff] Server Error\nforged\n"),
    ),
    ("a message with half a surrogate pair", "messageSurrogate", fails("Uncaught Error: half \ufffd pair\n")),
    ("a Proxy of an error", "proxy", fails("Uncaught Error: trap\n")),
    ("an object without a prototype", "nullProto", fails(UNDESCRIBED)),
    ("an error that is its own cause", "cyclicCause", fails("Uncaught Error: cause\n")),
    ("100,000 errors in one", "aggregate", fails("Uncaught AggregateError: many\n")),
    ("an object of 100,000 levels", "deepObject", fails(UNDESCRIBED)),
    ("a forged ConvexError", "convexFake", fails("Uncaught Error: fake\n")),
    ("a ConvexError of 17 MiB", "convexGiant", fails(UNDESCRIBED)),
    ("a ConvexError whose data throws", "convexGetter", fails("Uncaught Error: data\n")),
    ("a thenable", "thenable", fails("Uncaught {}\n")),
]

_SANDBOX: list[tuple[str, str, str, Outcome]] = [
    ("state at module level", "query", "moduleState", value([1, 1, 1])),
    ("state at module level, in a mutation", "mutation", "moduleState", value([1, 1, 1])),
    ("the engine's own globals", "query", "engineObject", value([])),
    (
        "the global object through Function",
        "query",
        "functionGlobal",
        value(["__skerryOperation", "__skerryValues", "skerryRegister"]),
    ),
    ("the environment", "query", "environment", value([[], None, None, "{}", False])),
    ("a variable set in the environment", "query", "environmentWrite", value(None)),
    ("time by work between two looks", "query", "clock", value(True)),
    ("modules of Node, of the engine and of disks", "query", "importOs", value(["ReferenceError"] * 8)),
    (
        "a timer in a query",
        "query",
        "timeoutInQuery",
        fails("Uncaught Error: Can't use setTimeout() in queries and mutations."),
    ),
    (
        "a fetch in a query",
        "query",
        "fetchInQuery",
        fails("Uncaught Error: Can't use fetch() in queries and mutations."),
    ),
    (
        "a fetch in a mutation",
        "mutation",
        "fetchInQuery",
        fails("Uncaught Error: Can't use fetch() in queries and mutations."),
    ),
    (
        "a wait on shared memory",
        "query",
        "atomicsWait",
        fails("Uncaught TypeError: cannot read property 'wait' of undefined"),
    ),
    ("paths of the host in a trace", "query", "stackPaths", value([])),
    (
        "callers and their arguments",
        "query",
        "callerWalk",
        value(["undefinedundefined", "TypeError", "TypeError", "TypeError"]),
    ),
    ("when garbage is collected", "query", "registryTokens", value(0)),
    ("the process through constructors", "query", "constructorEscape", value("undefinedundefined")),
]

_ACTION_ONLY = sorted([*ACTION_SERVED, *ACTION_OURS])

_OPERATIONS: list[tuple[str, str, str, Any, Outcome]] = [
    ("every operation of actions in a query", "query", "allOperations", {"names": _ACTION_ONLY}, value({"InvalidArgument": 1, "UnknownOperation": 11})),
    ("a write in a query", "query", "operation", {"op": "1.0/insert", "args": {"table": "rows", "value": {}}}, value("ReadOnlyTransaction")),
    ("a mutation called by a query", "query", "operation", {"op": "1.0/runUdf", "args": {"udfType": "mutation", "name": "alive:put", "args": {}}}, value("ReadOnlyTransaction")),
    ("an action called by a mutation", "mutation", "operationInMutation", {"op": "1.0/runUdf", "args": {"udfType": "action", "name": "acts:get", "args": {}}}, value("InvalidArgument")),
    ("a write to a table of the system", "mutation", "operationInMutation", {"op": "1.0/insert", "args": {"table": "_tables", "value": {}}}, value("SystemTableReadOnly")),
    ("a table by a path", "mutation", "operationInMutation", {"op": "1.0/insert", "args": {"table": "../rows", "value": {}}}, value("InvalidTableName")),
    ("an id that is none", "query", "operation", {"op": "1.0/get", "args": {"id": "../../etc/passwd"}}, value("InvalidArgument")),
    ("an id of 1 MiB", "query", "operation", {"op": "1.0/get", "args": {"id": "x" * (1 << 20)}}, value("InvalidArgument")),
    ("a page by a forged cursor", "query", "operation", {"op": "1.0/queryPage", "args": {"query": {"source": {"type": "FullTableScan", "tableName": "rows", "order": "asc"}, "operators": []}, "cursor": "forged", "pageSize": 1}}, value("InvalidCursor")),
    ("a page of -1 documents", "query", "operation", {"op": "1.0/queryPage", "args": {"query": {"source": {"type": "FullTableScan", "tableName": "rows", "order": "asc"}, "operators": []}, "cursor": None, "pageSize": -1}}, value("InvalidPageSize")),
    ("a page of 1e15 documents", "query", "operation", {"op": "1.0/queryPage", "args": {"query": {"source": {"type": "FullTableScan", "tableName": "rows", "order": "asc"}, "operators": []}, "cursor": None, "pageSize": 10**15}}, value("InvalidPageSize")),
    ("a query of 257 operators", "query", "operation", {"op": "1.0/queryStream", "args": {"query": {"source": {"type": "FullTableScan", "tableName": "rows", "order": "asc"}, "operators": [{"limit": 1}] * 257}}}, value("InvalidQuery")),
    ("a query nested 300 levels deep", "query", "operation", {"op": "1.0/queryStream", "args": '{"query":' + '{"$not":' * 300 + "1" + "}" * 301}, value("TooNestedError")),
    ("an operation that answers later, at once", "query", "syncOfTicket", None, value(["TypeError", "this operation answers later: use hostcallAsync"])),
    ("operations that are no text", "query", "notText", None, value(["Error", "TypeError", "UnknownOperation"])),
    ("the query of the function that called", "query", "borrowQuery", None, value("QueryNotFound")),
    ("writes before an error that is caught", "mutation", "writeAfterCatch", None, value(0)),
    ("writes of twenty that fail at once", "mutation", "writeInParallel", None, value(0)),
    ("mutations that call themselves", "mutation", "loopInNested", None, ("value begins", "Uncaught Error: Uncaught Error: ")),
    ("writes without end", "mutation", "tooManyWrites", None, fails("Uncaught Error: Too many writes in a single function execution (limit: 16000)")),
    ("bytes without end", "mutation", "tooManyBytes", None, fails("Uncaught Error: Too many bytes written in a single function execution (limit: 16777216 bytes)")),
    ("another deployment's internal function", "query", "operation", {"op": "1.0/runUdf", "args": {"udfType": "query", "name": "neighbour/alive:secret", "args": {}}}, value("FunctionPathNotFound")),
]  # fmt: skip


def _code(code: str | None, text: str) -> Outcome:
    return ("code", code, text)


_SPENT = _code("FunctionTimedOut", TIMED_OUT)

_BOMBS: list[tuple[str, str, Outcome]] = [
    ("a pattern that backtracks", "regexBacktracks", _SPENT),
    ("a pattern that backtracks in groups", "regexNested", _SPENT),
    ("a pattern that refers back", "regexBackreference", _SPENT),
    ("a pattern of 100,000 groups", "regexCompile", _code(None, "Uncaught SyntaxError: too many captures\n")),
    ("a text of a gigabyte", "repeat", _code(None, "Uncaught RangeError: invalid string length\n")),
    ("a text that doubles", "repeatDoubling", _code(None, "Uncaught InternalError: string too long\n")),
    ("a padded text", "pad", _code(None, MEMORY)),
    ("a split text", "splitHuge", _code(None, MEMORY)),
    ("an array of 2^32 elements", "arrayFill", _code(None, MEMORY)),
    ("an array in itself made flat", "arrayFlat", _code(None, STACK)),
    ("a typed array of 2 GiB", "typedArray", _code(None, "Uncaught RangeError: invalid array buffer length\n")),
    ("a buffer of 2^53 bytes", "arrayBuffer", _code(None, "Uncaught RangeError: invalid array buffer length\n")),
    (
        "a buffer that may grow to 2^52 bytes",
        "resizableBuffer",
        _code(None, "Uncaught RangeError: invalid max array buffer length\n"),
    ),
    ("buffers that grow", "resizeFlood", _code(None, MEMORY)),
    ("a power of bigints", "bigintPower", _code(None, "Uncaught RangeError: BigInt is too large\n")),
    ("a shift of bigints", "bigintShift", _code(None, "Uncaught RangeError: BigInt is too large to allocate\n")),
    ("a million brackets parsed", "jsonDeep", _code(None, STACK)),
    ("a million levels written", "jsonStringifyDeep", _code(None, STACK)),
    ("a reviver that adds what it revives", "jsonReviver", _code(None, STACK)),
    ("source of 200,000 parentheses", "evalDeep", _code(None, STACK)),
    ("source of 200,000 blocks", "evalBlocks", _code(None, STACK)),
    ("source of 50,000 templates", "evalTemplates", _code(None, STACK)),
    (
        "70,000 arguments",
        "functionArguments",
        _code(None, "Uncaught RangeError: too many arguments in function call (only 65535"),
    ),
    (
        "arguments of 2^31",
        "applyArguments",
        _code(None, "Uncaught RangeError: too many arguments in function call (only 65535"),
    ),
    ("100,000 Proxies in each other", "proxyChain", _code(None, STACK)),
    ("a getter that gets itself", "getterRecursion", _code(None, STACK)),
    ("conversions in conversions", "compareDeep", _code(None, STACK)),
    ("half a million levels cloned", "cloneDeep", _code(None, STACK)),
    ("a log of 500,000 objects", "inspectWide", _SPENT),
    ("a generator without end", "generatorForever", _SPENT),
    ("an async iterator without end", "asyncIteratorForever", _SPENT),
    ("microtasks that fork", "microtaskFork", _SPENT),
    ("hidden classes without end", "shapes", _SPENT),
    ("a URL of 500,000 labels", "urlHost", _SPENT),
    ("rejections that nobody handles", "rejections", _code(None, "Uncaught 0\n")),
    ("100,001 lines of log", "logFlood", _SPENT),
]
_SLOW_VALUES: list[tuple[str, str, str, Outcome]] = [
    ("an array with its only element at 2^32", "values:returned", "hugeSparseTail", _SPENT),
    ("an array of 2^32 holes", "values:returned", "hugeSparse", _SPENT),
    ("a thenable that gives itself", "values:returned", "thenableForever", _SPENT),
    ("a Proxy of 200,000 keys", "values:returned", "proxyKeysFlood", _SPENT),
    ("a thrown Proxy that lies about its length", "values:thrown", "arrayLengthLie", _SPENT),
    ("a thrown array of 2^32 holes", "values:thrown", "hugeSparse", _code(None, MEMORY)),
    ("a message that loops", "errors:run", "messageLoops", _SPENT),
]

CASES = [
    *(Case(f"intrinsics: {name}", WALL, name, over_http(kind, f"intrinsics:{path}"), want) for name, kind, path, want in _INTRINSICS),
    *(Case(f"returned: {name}", ABI, name, over_http("query", "values:returned", {"what": what}), want) for name, what, want in _VALUES),
    *(Case(f"stored: {name}", ABI, name, over_http("mutation", "values:stored", {"what": what}), want) for name, what, want in _STORED),
    *(Case(f"thrown: {name}", ABI, name, over_http("query", "errors:run", {"what": what}), want) for name, what, want in _THROWN),
    *(
        Case(f"isolate: {name}", WALL, name, over_http(kind, "sandbox:run" if kind == "query" else "sandbox:runInMutation", {"what": what}), want)
        for name, kind, what, want in _SANDBOX
    ),
    *(Case(f"operation: {name}", ABI, name, over_http(kind, f"operations:{path}", args), want) for name, kind, path, args, want in _OPERATIONS),
    *(Case(f"bomb: {name}", TIME, name, in_process("bombs:run", {"what": what}, want), want) for name, what, want in _BOMBS),
    *(Case(f"bomb: {name}", TIME, name, in_process(path, {"what": what}, want), want) for name, path, what, want in _SLOW_VALUES),
]  # fmt: skip
