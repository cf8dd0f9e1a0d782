/* describe, invoke, resume: the exports of the guest ABI (guest_sdk/ABI.md). */
#define REQUEST_HEADER_BYTES 16
#define COMPLETION_HEADER_BYTES 12

EXPORT("skerry_abi_version") int32_t skerry_abi_version(void)
{
    return 1;
}

EXPORT("describe") uint64_t describe(void)
{
    JSContext *ctx = engine.ctx;
    begin_on_small_stack();
    if (!JS_IsFunction(ctx, engine.describer))
        return failed_with_message(ctx, "The prelude set no describer");
    engine.promise = JS_Call(ctx, engine.describer, JS_UNDEFINED, 0, NULL);
    return JS_IsException(engine.promise) ? failed_with_exception(ctx) : settle(ctx);
}

/* Takes what is parked: into the static buffer where it fits, which no hostcall has used yet in this entry. */
static const char *take_entry(JSContext *ctx, uint32_t length)
{
    static char small[ANSWER_BYTES_INLINE];
    if (length > sizeof(small))
        return take_parked(ctx, length);
    import_take(small, length);
    return small;
}

EXPORT("invoke") uint64_t invoke(uint32_t length)
{
    JSContext *ctx = engine.ctx;
    begin_on_small_stack();
    begin_budget(CALL_LOTS_MAX);
    begin_counting_steps();
    const char *request = take_entry(ctx, length);
    if (!request)
        return failed_with_exception(ctx);
    if (length < REQUEST_HEADER_BYTES)
        return failed_with_message(ctx, "The request is cut short");
    uint32_t header[4];
    memcpy(header, request, sizeof(header));
    if (header[0] >= CALL_IMPORT || (uint64_t)header[1] + header[2] + header[3] + REQUEST_HEADER_BYTES != length)
        return failed_with_message(ctx, "The request is malformed");
    const char *name = request + REQUEST_HEADER_BYTES;
    engine.kind = (int)header[0];
    if (engine.kind == CALL_ACTION || engine.kind == CALL_HTTP_ACTION)
        begin_budget(ACTION_LOTS_MAX);
    engine.request_id = name + header[1];
    engine.request_id_length = header[2];
    if (!JS_IsFunction(ctx, engine.invoker))
        return failed_with_message(ctx, "The prelude set no invoker");
    JSValue given[4] = {
        JS_NewString(ctx, CALL_KIND_NAMES[engine.kind]),
        JS_NewStringLen(ctx, name, header[1]),
        JS_NewStringLen(ctx, engine.request_id, header[2]),
        JS_NewStringLen(ctx, engine.request_id + header[2], header[3]),
    };
    for (size_t i = 0; i < countof(given); i++)
        if (JS_IsException(given[i]))
            return failed_with_exception(ctx);
    engine.promise = JS_Call(ctx, engine.invoker, JS_UNDEFINED, countof(given), vc(given));
    return JS_IsException(engine.promise) ? failed_with_exception(ctx) : settle(ctx);
}

EXPORT("resume") uint64_t resume(uint32_t length)
{
    JSContext *ctx = engine.ctx;
    begin_on_small_stack();
    const char *parked = take_parked(ctx, length);
    if (!parked)
        return failed_with_exception(ctx);
    const uint8_t *bytes = (const uint8_t *)parked;
    uint32_t count = length >= 4 ? read_u32(bytes) : 0;
    if (length < 4 || count > (length - 4) / COMPLETION_HEADER_BYTES)
        return failed_with_message(ctx, "The completions are cut short");
    uint32_t offset = 4 + count * COMPLETION_HEADER_BYTES;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *header = bytes + 4 + i * COMPLETION_HEADER_BYTES;
        uint32_t ticket = read_u32(header), status = read_u32(header + 4), size = read_u32(header + 8);
        if (size > length - offset)
            return failed_with_message(ctx, "The completions are cut short");
        char *answer = js_strndup(ctx, parked + offset, size); /* the parser wants a zero after the text */
        if (!answer)
            return failed_with_exception(ctx);
        bool known = complete_ticket(ctx, ticket, status ? REFUSED : ANSWERED, answer, size);
        js_free(ctx, answer);
        if (!known)
            return failed_with_message(ctx, "A completion came for a ticket that is not open");
        if (!drain_jobs())
            return failed_with_exception(ctx);
        offset += size;
    }
    return settle(ctx);
}
