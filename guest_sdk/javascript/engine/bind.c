/* What the build binds into the `convex` package (toolchain/bind_natives.mjs): conversions, and operations that answer at once.
 *
 * Each binding is made with the package's own function, which serves whatever the native one does not.
 */
static JSValue text_to_convex(JSContext *ctx, const char *bytes, size_t length, JSValueConst json_to_convex)
{
    JSValue value;
    int read = value_of_text(ctx, bytes, length, true, &value);
    if (read != UNKNOWN)
        return read == OK ? value : JS_EXCEPTION;
    JSValue parsed = JS_ParseJSON(ctx, bytes, length, "<input>");
    if (JS_IsException(parsed))
        return parsed;
    value = JS_Call(ctx, json_to_convex, JS_UNDEFINED, 1, vc(&parsed));
    JS_FreeValue(ctx, parsed);
    return value;
}

static JSValue string_to_convex(JSContext *ctx, JSValueConst string, JSValueConst json_to_convex)
{
    size_t length;
    const char *text = JS_ToCStringLen(ctx, &length, string);
    if (!text)
        return JS_EXCEPTION;
    JSValue value = text_to_convex(ctx, text, length, json_to_convex);
    JS_FreeCString(ctx, text);
    return value;
}

static JSValue convex_to_text(JSContext *ctx, JSValueConst value, JSValueConst convex_to_json)
{
    Text text;
    text_begin(&text, ctx, true);
    int put = text_of_value(&text, value);
    JSValue string = put == OK ? string_of_text(&text) : JS_EXCEPTION;
    text_end(&text);
    if (put != UNKNOWN)
        return string;
    JSValue json = JS_Call(ctx, convex_to_json, JS_UNDEFINED, 1, &value);
    if (JS_IsException(json))
        return json;
    string = JS_JSONStringify(ctx, json, JS_UNDEFINED, JS_UNDEFINED);
    JS_FreeValue(ctx, json);
    return string;
}

static JSValue js_convert(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int conversion, JSValueConst *data)
{
    JSValue value;
    if (conversion == TO_CONVEX_TEXT)
        return string_to_convex(ctx, argv[0], data[0]);
    if (conversion == TO_JSON_TEXT)
        return convex_to_text(ctx, argv[0], data[0]);
    if (conversion == TO_CONVEX)
        value = from_json(ctx, argv[0]);
    else if (conversion == OPTIONAL_TO_JSON && JS_IsUndefined(argv[0]))
        value = tagged(ctx, TAG_UNDEFINED, JS_NULL);
    else
        value = json_of(ctx, argv[0], conversion == PATCH_TO_JSON);
    return JS_IsUninitialized(value) ? JS_Call(ctx, data[0], JS_UNDEFINED, argc, argv) : value;
}

/* bindValues({jsonToConvex, convexToJson, patchValueToJson, convexOrUndefinedToJson}: the package's own functions) returns
 * native ones under the same names, and jsonTextToConvex(text) and convexToJsonText(value): from and to JSON text. */
static JSValue js_bind_values(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
{
    JSValue bound = JS_NewObject(ctx);
    for (int tag = 0; tag < TAGS; tag++)
        if (tag_atoms[tag] == JS_ATOM_NULL)
            tag_atoms[tag] = JS_NewAtom(ctx, TAG_NAMES[tag]);
    for (int i = 0; i < CONVERSIONS; i++) {
        int own = i == TO_CONVEX_TEXT ? TO_CONVEX : i == TO_JSON_TEXT ? TO_JSON : i;
        JSValue original = JS_GetPropertyStr(ctx, argv[0], CONVERSION_NAMES[own]);
        if (!JS_IsFunction(ctx, original)) {
            JS_FreeValue(ctx, bound);
            return JS_IsException(original) ? original : JS_ThrowTypeError(ctx, "%s is missing", CONVERSION_NAMES[i]);
        }
        JS_SetPropertyStr(ctx, bound, CONVERSION_NAMES[i], JS_NewCFunctionData(ctx, js_convert, 1, i, 1, vc(&original)));
        JS_FreeValue(ctx, original);
    }
    return bound;
}

/* -- operations ----------------------------------------------------------------------------------------------------- */

enum { ANSWERS_JSON, ANSWERS_CONVEX };

static JSValue fulfill_later(JSContext *ctx, int argc, JSValueConst *argv)
{
    fulfill_or_reject_promise(ctx, argv[0], argv[1], false);
    return JS_UNDEFINED;
}

static JSValue resolve_later(JSContext *ctx, int argc, JSValueConst *argv)
{
    return JS_Call(ctx, argv[0], JS_UNDEFINED, 1, &argv[1]);
}

/* Whether resolving a promise with plain data fulfills it, without anything that could be noticed. */
static bool has_no_then(JSContext *ctx)
{
    return !find_own_property1(JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT]), JS_ATOM_then) &&
           !find_own_property1(JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_ARRAY]), JS_ATOM_then);
}

/* A promise for the value that is settled one turn from now, as that of an async function that awaited an answer. */
static JSValue promise_in_one_turn(JSContext *ctx, JSValue value)
{
    JSValue settle[2] = {JS_UNDEFINED, JS_UNDEFINED};
    bool plain = has_no_then(ctx);
    JSValue promise = plain ? new_pending_promise(ctx) : JS_NewPromiseCapability(ctx, settle);
    if (!JS_IsException(promise)) {
        JSValueConst given[2] = {plain ? promise : settle[0], value};
        if (JS_EnqueueJob(ctx, plain ? fulfill_later : resolve_later, 2, given) < 0) {
            JS_FreeValue(ctx, promise);
            promise = JS_EXCEPTION;
        }
    }
    JS_FreeValue(ctx, settle[0]);
    JS_FreeValue(ctx, settle[1]);
    JS_FreeValue(ctx, value);
    return promise;
}

static JSValue promise_of_refusal(JSContext *ctx, const Answer *answer)
{
    JSValue error = error_of_answer(ctx, answer->bytes, answer->length);
    if (JS_IsException(error))
        error = JS_GetException(ctx);
    JSValue promise = JS_NewSettledPromise(ctx, true, error);
    JS_FreeValue(ctx, error);
    return promise;
}

static JSValue value_of_json_answer(JSContext *ctx, const Answer *answer, bool convex, JSValueConst json_to_convex)
{
    JSValue value;
    if (convex)
        return text_to_convex(ctx, answer->bytes, answer->length, json_to_convex);
    int read = value_of_text(ctx, answer->bytes, answer->length, false, &value);
    if (read == UNKNOWN)
        return JS_ParseJSON(ctx, answer->bytes, answer->length, "<input>");
    return read == OK ? value : JS_EXCEPTION;
}

/* Makes the hostcall; false where `argv` is not what this can do, and then nothing has happened. */
static bool ask(JSContext *ctx, JSValueConst *argv, Answer *answer, bool *failed)
{
    Text text;
    if (engine.kind == CALL_IMPORT || JS_VALUE_GET_TAG(argv[0]) != JS_TAG_STRING)
        return false;
    JSString *op = JS_VALUE_GET_STRING(argv[0]);
    for (uint32_t i = 0; i < op->len; i++)
        if (op->is_wide_char || str8(op)[i] >= 0x80)
            return false;
    text_begin(&text, ctx, false);
    int put = text_of_value(&text, argv[1]);
    *failed = put == FAULT || (put == OK && !hostcall(ctx, (const char *)str8(op), op->len, (const char *)text.bytes, text.length,
                                                      NULL, 0, answer));
    text_end(&text);
    return put != UNKNOWN;
}

/* (op, argument) with data (the package's own function, jsonToConvex): a promise for the answer. The package's own does all
 * of it where this cannot, and is given the promise for what was refused or comes later as a third argument. */
static JSValue js_ask(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int answers, JSValueConst *data)
{
    Answer answer;
    bool failed;
    if (!ask(ctx, argv, &answer, &failed))
        return JS_Call(ctx, data[0], JS_UNDEFINED, 2, argv);
    if (failed)
        return JS_EXCEPTION;
    if (answer.status == ANSWERED) {
        JSValue value = value_of_json_answer(ctx, &answer, answers == ANSWERS_CONVEX, data[1]);
        js_free(ctx, answer.owned);
        if (!JS_IsException(value))
            return promise_in_one_turn(ctx, value);
        JSValue error = JS_GetException(ctx), promise = JS_NewSettledPromise(ctx, true, error);
        JS_FreeValue(ctx, error);
        return promise;
    }
    JSValue later = answer.status == TICKET ? open_ticket(ctx, answer.length, false) : promise_of_refusal(ctx, &answer);
    js_free(ctx, answer.owned);
    if (JS_IsException(later))
        return later;
    JSValueConst given[3] = {argv[0], argv[1], later};
    JSValue promise = JS_Call(ctx, data[0], JS_UNDEFINED, 3, given);
    JS_FreeValue(ctx, later);
    return promise;
}

/* bindOperation(own, jsonToConvex or undefined) returns a native function like `own(op, argument)`; see js_ask. */
static JSValue js_bind_operation(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
{
    if (!JS_IsFunction(ctx, argv[0]))
        return JS_ThrowTypeError(ctx, "a function is needed");
    return JS_NewCFunctionData(ctx, js_ask, 2, JS_IsFunction(ctx, argv[1]) ? ANSWERS_CONVEX : ANSWERS_JSON, 2, argv);
}
