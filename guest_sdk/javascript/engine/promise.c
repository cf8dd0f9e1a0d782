/* Promises without the pair of resolving functions that they are usually made with: for the engine's async functions, which settle
 * their promise once and themselves (engine_build.py says where), and for answers (bind.c).
 */
static JSValue new_pending_promise(JSContext *ctx)
{
    JSValue promise = JS_NewObjectClass(ctx, JS_CLASS_PROMISE);
    JSPromiseData *data = JS_IsException(promise) ? NULL : js_mallocz(ctx, sizeof(*data));
    if (!data) {
        JS_FreeValue(ctx, promise);
        return JS_EXCEPTION;
    }
    data->promise_state = JS_PROMISE_PENDING;
    for (int i = 0; i < 2; i++)
        init_list_head(&data->promise_reactions[i]);
    data->promise_result = JS_UNDEFINED;
    JS_SetOpaqueInternal(promise, data);
    return promise;
}

/* What calling the promise's resolving function (or the rejecting one) does, the first time. */
static JSValue settle_promise(JSContext *ctx, JSValueConst promise, JSValueConst value, bool is_reject)
{
    JSValue then = JS_UNDEFINED;
    bool failed = false;
    if (!is_reject && JS_IsObject(value)) {
        if (JS_VALUE_GET_PTR(value) == JS_VALUE_GET_PTR(promise))
            then = JS_ThrowTypeError(ctx, "promise self resolution");
        else
            then = JS_GetProperty(ctx, value, JS_ATOM_then);
        failed = JS_IsException(then);
    }
    if (failed) {
        JSValue error = JS_GetException(ctx);
        fulfill_or_reject_promise(ctx, promise, error, true);
        JS_FreeValue(ctx, error);
    } else if (JS_IsFunction(ctx, then)) {
        JSValueConst given[3] = {promise, value, then};
        JS_EnqueueJob(ctx, js_promise_resolve_thenable_job, 3, given);
    } else {
        fulfill_or_reject_promise(ctx, promise, value, is_reject);
    }
    JS_FreeValue(ctx, then);
    return JS_UNDEFINED;
}
