/* Running jobs until a call is done, failed or pending; packed results; the error object.
 *
 * A call fails when its own promise rejects, when a promise was rejected that nobody handled by the time its own
 * settled, and when it waits for something that no open ticket can bring.
 */
static uint64_t packed_result(int status, const char *bytes, size_t length)
{
    count_steps();
    return (uint64_t)status << 60 | (uint64_t)(length & 0x0fffffff) << 32 | (uint32_t)(uintptr_t)bytes;
}

static uint64_t failed_with_text(const char *json)
{
    return packed_result(STATUS_FAILED, json, strlen(json));
}

/* The result with a JS string as payload; the string is kept, as the instance ends or enters anew after it. */
static uint64_t packed_string(JSContext *ctx, int status, JSValueConst text)
{
    size_t length;
    const char *bytes = JS_ToCStringLen(ctx, &length, text);
    if (!bytes)
        return failed_with_text("{\"name\":\"Error\",\"message\":\"Out of memory while returning a result\"}");
    if (length > 0x0fffffff)
        return failed_with_text("{\"name\":\"RangeError\",\"message\":\"The result is too large\"}");
    return packed_result(status, bytes, length);
}

static void copy_text_property(JSContext *ctx, JSValueConst from, JSValueConst to, const char *name)
{
    JSValue field = JS_GetPropertyStr(ctx, from, name);
    if (JS_IsString(field))
        JS_SetPropertyStr(ctx, to, name, js_dup(field));
    else if (JS_IsException(field))
        JS_FreeValue(ctx, JS_GetException(ctx));
    JS_FreeValue(ctx, field);
}

/* The error object without the prelude's help: for failures before it runs, and failures of its formatter. */
static uint64_t failed_plainly(JSContext *ctx, JSValueConst reason)
{
    JSValue error = JS_NewObject(ctx);
    if (JS_IsObject(reason)) {
        copy_text_property(ctx, reason, error, "name");
        copy_text_property(ctx, reason, error, "message");
        copy_text_property(ctx, reason, error, "stack");
    }
    if (!JS_HasProperty(ctx, error, JS_ATOM_message)) {
        JSValue text = JS_ToString(ctx, reason);
        if (JS_IsException(text)) {
            JS_FreeValue(ctx, JS_GetException(ctx));
            text = JS_NewString(ctx, "Uncaught value that has no text");
        }
        JS_SetPropertyStr(ctx, error, "message", text);
    }
    JSValue json = JS_JSONStringify(ctx, error, JS_UNDEFINED, JS_UNDEFINED);
    if (!JS_IsString(json))
        return failed_with_text("{\"name\":\"Error\",\"message\":\"An error that cannot be described\"}");
    return packed_string(ctx, STATUS_FAILED, json);
}

static uint64_t failed_with_budget(JSContext *ctx);

static uint64_t failed_with(JSContext *ctx, JSValueConst reason)
{
    if (budget.spent)
        return failed_with_budget(ctx);
    if (JS_IsFunction(ctx, engine.formatter)) {
        JSValue json = JS_Call(ctx, engine.formatter, JS_UNDEFINED, 1, &reason);
        if (JS_IsString(json))
            return packed_string(ctx, STATUS_FAILED, json);
        if (JS_IsException(json))
            JS_FreeValue(ctx, JS_GetException(ctx));
    }
    return failed_plainly(ctx, reason);
}

static uint64_t failed_with_exception(JSContext *ctx)
{
    return failed_with(ctx, JS_GetException(ctx));
}

static uint64_t failed_with_message(JSContext *ctx, const char *message)
{
    JSValue text = JS_NewString(ctx, message);
    JSValue error = JS_CallConstructor(ctx, ctx->error_ctor, 1, vc(&text));
    return failed_with(ctx, JS_IsException(error) ? JS_GetException(ctx) : error);
}

static uint64_t done_with(JSContext *ctx, JSValueConst value)
{
    if (budget.spent)
        return failed_with_budget(ctx);
    if (!JS_IsString(value))
        return failed_with_message(ctx, "The prelude returned something that is not a JSON text");
    return packed_string(ctx, STATUS_DONE, value);
}

static void track_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason, bool is_handled, void *opaque)
{
    if (!is_handled) {
        if (reserve((void **)&engine.rejections, &engine.rejection_capacity, engine.rejection_count, sizeof(JSValue)))
            engine.rejections[engine.rejection_count++] = js_dup(promise);
        return;
    }
    for (size_t i = 0; i < engine.rejection_count; i++) {
        if (JS_VALUE_GET_PTR(engine.rejections[i]) != JS_VALUE_GET_PTR(promise))
            continue;
        JS_FreeValue(ctx, engine.rejections[i]);
        memmove(&engine.rejections[i], &engine.rejections[i + 1], (--engine.rejection_count - i) * sizeof(JSValue));
        return;
    }
}

/* The reason of the first rejection that nobody handled; the others are forgotten. */
static JSValue take_unhandled_reason(JSContext *ctx)
{
    JSValue reason = JS_PromiseResult(ctx, engine.rejections[0]);
    for (size_t i = 0; i < engine.rejection_count; i++)
        JS_FreeValue(ctx, engine.rejections[i]);
    engine.rejection_count = 0;
    return reason;
}

/* Runs every job; false when one of them could not run (memory spent, or the call's budget). */
static bool drain_jobs(void)
{
    JSContext *ctx;
    int ran;
    do
        ran = JS_ExecutePendingJob(engine.rt, &ctx);
    while (ran > 0 && !budget.spent);
    return ran == 0;
}

/* The end of a call or of a module whose budget is spent, whatever its promises say: what formats the error gets another one. */
static uint64_t failed_with_budget(JSContext *ctx)
{
    JSValue error = budget.error;
    begin_budget(FORMAT_LOTS_MAX);
    ctx->interrupt_counter = JS_INTERRUPT_COUNTER_INIT;
    return failed_plainly(ctx, error);
}

/* The result of the call whose value or promise is `engine.promise`, after its jobs have run. */
static uint64_t settle(JSContext *ctx)
{
    if (!drain_jobs())
        return failed_with_exception(ctx);
    bool is_promise = JS_IsPromise(engine.promise);
    JSPromiseStateEnum state = is_promise ? JS_PromiseState(ctx, engine.promise) : JS_PROMISE_FULFILLED;
    if (state == JS_PROMISE_REJECTED)
        return failed_with(ctx, JS_PromiseResult(ctx, engine.promise));
    if (state == JS_PROMISE_PENDING) {
        if (engine.ticket_count)
            return packed_result(STATUS_PENDING, NULL, 0);
        return failed_with_message(ctx, "The function waits for a promise that nothing can settle");
    }
    if (engine.rejection_count)
        return failed_with(ctx, take_unhandled_reason(ctx));
    return done_with(ctx, is_promise ? JS_PromiseResult(ctx, engine.promise) : js_dup(engine.promise));
}
