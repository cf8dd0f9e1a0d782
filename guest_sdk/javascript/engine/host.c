/* Hostcalls: arguments out, answers in, tickets.
 *
 * An answer that fits the static buffer is written there by the host; a longer one is taken into memory of its own length.
 * Either is valid until the next hostcall and ends with a zero byte that is not counted, as the JSON parser wants it.
 */
__attribute__((import_module("skerry"), import_name("hostcall"))) extern uint64_t import_hostcall(
    const void *op, size_t op_length, const void *arg, size_t arg_length, const void *raw, size_t raw_length, void *out,
    size_t out_capacity);
__attribute__((import_module("skerry"), import_name("take"))) extern size_t import_take(void *buffer, size_t capacity);

#define ANSWER_BYTES_INLINE (16 * 1024)

enum { ANSWERED, REFUSED, TICKET };

typedef struct {
    int status;
    uint32_t length; /* or the ticket's number */
    const char *bytes;
    char *owned;
} Answer;

static char inline_answer[ANSWER_BYTES_INLINE + 1];

/* Takes what is parked into memory of its own, one zero byte longer; NULL (and an exception) when memory is spent. */
static char *take_parked(JSContext *ctx, size_t length)
{
    char *buffer = js_malloc(ctx, length + 1);
    if (!buffer)
        return NULL;
    import_take(buffer, length);
    buffer[length] = 0;
    return buffer;
}

static bool hostcall(JSContext *ctx, const char *op, size_t op_length, const char *arg, size_t arg_length, const void *raw,
                     size_t raw_length, Answer *answer)
{
    uint64_t packed = import_hostcall(op, op_length, arg, arg_length, raw, raw_length, inline_answer, ANSWER_BYTES_INLINE);
    answer->status = (int)(packed >> 60);
    answer->length = (uint32_t)packed;
    answer->owned = NULL;
    answer->bytes = inline_answer;
    if (answer->status == TICKET)
        return true;
    if (answer->length <= ANSWER_BYTES_INLINE)
        inline_answer[answer->length] = 0;
    else if (!(answer->bytes = answer->owned = take_parked(ctx, answer->length)))
        return false;
    return true;
}

/* An Error with the host's message, code and (encoded) data, made from an error object in JSON. */
static JSValue error_of_answer(JSContext *ctx, const char *bytes, size_t length)
{
    static const char *const COPIED[] = {"code", "data"};
    JSValue given = JS_ParseJSON(ctx, bytes, length, "<hostcall>");
    if (JS_IsException(given))
        return JS_EXCEPTION;
    JSValue message = JS_GetPropertyStr(ctx, given, "message");
    if (JS_IsException(message))
        return JS_EXCEPTION;
    JSValue error = JS_CallConstructor(ctx, ctx->error_ctor, 1, vc(&message));
    JS_FreeValue(ctx, message);
    if (!JS_IsException(error)) {
        for (size_t i = 0; i < countof(COPIED); i++) {
            JSValue field = JS_GetPropertyStr(ctx, given, COPIED[i]);
            if (!JS_IsUndefined(field) && !JS_IsException(field))
                JS_DefinePropertyValueStr(ctx, error, COPIED[i], field, JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
        }
    }
    JS_FreeValue(ctx, given);
    return error;
}

/* The value of an answered hostcall (text or bytes), or a pending exception for a refused one. */
static JSValue value_of_answer(JSContext *ctx, int status, const char *bytes, size_t length, bool raw_result)
{
    if (status == ANSWERED)
        return raw_result ? JS_NewUint8ArrayCopy(ctx, (const uint8_t *)bytes, length) : JS_NewStringLen(ctx, bytes, length);
    JSValue error = error_of_answer(ctx, bytes, length);
    return JS_IsException(error) ? error : JS_Throw(ctx, error);
}

typedef struct {
    const char *op, *arg;
    size_t op_length, arg_length, raw_length;
    const uint8_t *raw;
} HostcallArguments;

static void free_arguments(JSContext *ctx, HostcallArguments *given)
{
    if (given->op)
        JS_FreeCString(ctx, given->op);
    if (given->arg)
        JS_FreeCString(ctx, given->arg);
}

/* (op: string, arg: string, raw?: Uint8Array); the raw bytes are read last, as text conversion may run no guest code. */
static bool read_arguments(JSContext *ctx, int argc, JSValueConst *argv, HostcallArguments *given)
{
    memset(given, 0, sizeof(*given));
    if (argc < 2 || !JS_IsString(argv[0]) || !JS_IsString(argv[1])) {
        JS_ThrowTypeError(ctx, "a hostcall takes an operation name and a JSON text");
        return false;
    }
    given->op = JS_ToCStringLen(ctx, &given->op_length, argv[0]);
    given->arg = given->op ? JS_ToCStringLen(ctx, &given->arg_length, argv[1]) : NULL;
    if (given->arg && argc > 2 && !JS_IsUndefined(argv[2]) && !JS_IsNull(argv[2])) {
        given->raw = JS_GetUint8Array(ctx, &given->raw_length, argv[2]);
        if (!given->raw && JS_HasException(ctx)) {
            free_arguments(ctx, given);
            return false;
        }
    }
    if (!given->arg)
        free_arguments(ctx, given);
    return given->arg != NULL;
}

static JSValue js_hostcall(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int raw_result)
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
    JSValue value = value_of_answer(ctx, answer.status, answer.bytes, answer.length, raw_result);
    js_free(ctx, answer.owned);
    return value;
}

/* A promise for the ticket, settled by `resume`. */
static JSValue open_ticket(JSContext *ctx, uint32_t number, bool raw_result)
{
    if (!reserve((void **)&engine.tickets, &engine.ticket_capacity, engine.ticket_count, sizeof(Ticket)))
        return JS_ThrowOutOfMemory(ctx);
    Ticket *ticket = &engine.tickets[engine.ticket_count];
    JSValue promise = JS_NewPromiseCapability(ctx, ticket->settle);
    if (JS_IsException(promise))
        return promise;
    ticket->number = number;
    ticket->raw_result = raw_result;
    engine.ticket_count++;
    return promise;
}

static JSValue js_hostcall_async(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int raw_result)
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
        return open_ticket(ctx, answer.length, raw_result);
    JSValue value = value_of_answer(ctx, answer.status, answer.bytes, answer.length, raw_result);
    js_free(ctx, answer.owned);
    bool refused = JS_IsException(value);
    if (refused)
        value = JS_GetException(ctx);
    JSValue promise = JS_NewSettledPromise(ctx, refused, value);
    JS_FreeValue(ctx, value);
    return promise;
}

/* Settles the ticket's promise with a completion; false when no such ticket is open. */
static bool complete_ticket(JSContext *ctx, uint32_t number, int status, const char *bytes, size_t length)
{
    for (size_t i = 0; i < engine.ticket_count; i++) {
        Ticket ticket = engine.tickets[i];
        if (ticket.number != number)
            continue;
        memmove(&engine.tickets[i], &engine.tickets[i + 1], (--engine.ticket_count - i) * sizeof(Ticket));
        JSValue value = value_of_answer(ctx, status, bytes, length, ticket.raw_result);
        bool refused = JS_IsException(value);
        if (refused)
            value = JS_GetException(ctx);
        JSValue done = JS_Call(ctx, ticket.settle[refused], JS_UNDEFINED, 1, vc(&value));
        JS_FreeValue(ctx, done);
        JS_FreeValue(ctx, value);
        JS_FreeValue(ctx, ticket.settle[0]);
        JS_FreeValue(ctx, ticket.settle[1]);
        return true;
    }
    return false;
}
