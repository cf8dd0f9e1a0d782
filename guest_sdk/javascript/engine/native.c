/* The object that the prelude receives as the global `__skerry`, captures and deletes.
 *
 *   hostcall(op, argJson, raw?) -> string           runs at once; a refusal throws an Error with .code and .data
 *   hostcallBytes(op, argJson, raw?) -> Uint8Array  the same for operations whose result is raw bytes
 *   hostcallJson(op, argJson, raw?) -> value        the same, parsed
 *   hostcallAsync(op, argJson, raw?) -> Promise<string>           also for operations that answer later
 *   hostcallAsyncBytes(op, argJson, raw?) -> Promise<Uint8Array>
 *   contextKind() -> "query" | "mutation" | "action" | "httpAction" | "import";  requestId() -> string
 *   setInvoker(fn(kind, name, requestId, argsJson) -> string | Promise<string>)
 *   setDescriber(fn() -> string | Promise<string>);  setUncaughtFormatter(fn(reason) -> string)
 *   bindValues(originals) -> native value conversions;  bindOperation(own, jsonToConvex?) -> a native `own(op, argument)` (bind.c)
 */
static JSValue js_hostcall_json(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
{
    HostcallArguments given;
    Answer answer;
    if (!read_arguments(ctx, argc, argv, &given))
        return JS_EXCEPTION;
    bool called = hostcall(ctx, given.op, given.op_length, given.arg, given.arg_length, given.raw, given.raw_length, &answer);
    free_arguments(ctx, &given);
    if (!called)
        return JS_EXCEPTION;
    if (answer.status == TICKET)
        return JS_ThrowTypeError(ctx, "this operation answers later: use hostcallAsync");
    JSValue value = answer.status == ANSWERED ? JS_ParseJSON(ctx, answer.bytes, answer.length, "<hostcall>")
                                              : value_of_answer(ctx, answer.status, answer.bytes, answer.length, false);
    js_free(ctx, answer.owned);
    return value;
}

static JSValue js_context_kind(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
{
    return JS_NewString(ctx, CALL_KIND_NAMES[engine.kind]);
}

static JSValue js_request_id(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
{
    return JS_NewStringLen(ctx, engine.request_id, engine.request_id_length);
}

static JSValue js_set_function(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int which)
{
    JSValue *const slots[] = {&engine.invoker, &engine.describer, &engine.formatter};
    if (!JS_IsFunction(ctx, argv[0]))
        return JS_ThrowTypeError(ctx, "a function is needed");
    JS_FreeValue(ctx, *slots[which]);
    *slots[which] = js_dup(argv[0]);
    return JS_UNDEFINED;
}

static const JSCFunctionListEntry NATIVE_FUNCTIONS[] = {
    JS_CFUNC_MAGIC_DEF("hostcall", 3, js_hostcall, false),
    JS_CFUNC_MAGIC_DEF("hostcallBytes", 3, js_hostcall, true),
    JS_CFUNC_DEF("hostcallJson", 3, js_hostcall_json),
    JS_CFUNC_MAGIC_DEF("hostcallAsync", 3, js_hostcall_async, false),
    JS_CFUNC_MAGIC_DEF("hostcallAsyncBytes", 3, js_hostcall_async, true),
    JS_CFUNC_DEF("contextKind", 0, js_context_kind),
    JS_CFUNC_DEF("requestId", 0, js_request_id),
    JS_CFUNC_MAGIC_DEF("setInvoker", 1, js_set_function, 0),
    JS_CFUNC_MAGIC_DEF("setDescriber", 1, js_set_function, 1),
    JS_CFUNC_MAGIC_DEF("setUncaughtFormatter", 1, js_set_function, 2),
    JS_CFUNC_DEF("bindValues", 1, js_bind_values),
    JS_CFUNC_DEF("bindOperation", 2, js_bind_operation),
};

static void add_native_object(JSContext *ctx)
{
    JSValue global = JS_GetGlobalObject(ctx);
    JSValue native = JS_NewObject(ctx);
    JS_SetPropertyFunctionList(ctx, native, NATIVE_FUNCTIONS, countof(NATIVE_FUNCTIONS));
    JS_DefinePropertyValueStr(ctx, global, "__skerry", native, JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
    JSValue math = JS_GetPropertyStr(ctx, global, "Math");
    JS_DefinePropertyValueStr(ctx, math, "random", JS_NewCFunction(ctx, skerry_math_random, "random", 0),
                              JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
    JS_FreeValue(ctx, math);
    JS_FreeValue(ctx, global);
}
