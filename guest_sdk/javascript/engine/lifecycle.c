/* Boot, eval, freeze: exports that exist only while an image is built, and are dropped from it.
 *
 *   skerry_boot()        makes the runtime, the context and the native object
 *   skerry_eval(length)  evaluates a parked script: u32 length of its name, the name, the source (UTF-8); SCRIPT_SELDOM in
 *                        the length says that most of its functions are seldom called (see arena.c)
 *   skerry_freeze()      runs what is left to run and makes the memory ready to be kept as an image
 */
static uint32_t read_u32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

EXPORT("skerry_boot") int32_t skerry_boot(void)
{
    engine.kind = CALL_IMPORT;
    engine.request_id = "";
    engine.promise = engine.invoker = engine.describer = engine.formatter = JS_UNDEFINED;
    hot_begin_build();
    engine.rt = JS_NewRuntime2(&backing_functions, NULL);
    if (!engine.rt)
        return 1;
    begin_on_small_stack();
    JS_SetInterruptHandler(engine.rt, count_lot, NULL);
    begin_budget(IMPORT_LOTS_MAX);
    JS_SetHostPromiseRejectionTracker(engine.rt, track_rejection, NULL);
    engine.ctx = JS_NewContext(engine.rt);
    if (!engine.ctx || !seed_generator(engine.ctx))
        return 1;
    engine.ctx->hash_seed = (uint32_t)draw(); /* before the first Map: bucket order is not guessable from outside */
    add_native_object(engine.ctx);
    return 0;
}

#define ATOMS_SPARE 1024
#define SHAPES_SPARE 256
#define TABLE_GROWTH 4

static bool grow_atom_array(JSRuntime *rt)
{
    if (rt->atom_size - rt->atom_count >= ATOMS_SPARE)
        return true;
    uint32_t size = rt->atom_size + TABLE_GROWTH * ATOMS_SPARE;
    JSAtomStruct **grown = js_malloc_rt(rt, sizeof(*grown) * size);
    if (!grown)
        return false;
    memcpy(grown, rt->atom_array, sizeof(*grown) * rt->atom_size);
    for (uint32_t i = rt->atom_size; i < size; i++)
        grown[i] = atom_set_free(i + 1 < size ? i + 1 : rt->atom_free_index);
    rt->atom_free_index = rt->atom_size;
    rt->atom_size = size;
    js_free_rt(rt, rt->atom_array);
    rt->atom_array = grown;
    return true;
}

/* Makes the tables of atoms and shapes so large that no ordinary call has to copy them, and so sparse that a look-up meets
 * little but what it looks for. */
static bool grow_tables(JSRuntime *rt)
{
    int atoms = rt->atom_hash_size, shape_bits = rt->shape_hash_bits;
    if (atoms < rt->atom_count + ATOMS_SPARE)
        while (atoms < rt->atom_count + TABLE_GROWTH * ATOMS_SPARE)
            atoms *= 2;
    if ((1 << shape_bits) < 2 * (rt->shape_hash_count + SHAPES_SPARE))
        while ((1 << shape_bits) < 2 * (rt->shape_hash_count + TABLE_GROWTH * SHAPES_SPARE))
            shape_bits++;
    return (atoms == rt->atom_hash_size || JS_ResizeAtomHash(rt, atoms) == 0) &&
           (shape_bits == rt->shape_hash_bits || resize_shape_hash(rt, shape_bits) == 0) && grow_atom_array(rt);
}

/* New objects are linked behind the last of the engine's list, which is written to: so that had better be one in the arena. */
static void end_object_list_in_arena(JSContext *ctx)
{
    struct list_head *link = &JS_VALUE_GET_OBJ(ctx->global_obj)->header.link;
    list_del(link);
    list_add_tail(link, &ctx->rt->gc_obj_list);
}

#define SCRIPT_SELDOM 0x80000000u

/* Compiles the script outside the arena, except for what calls touch, and runs it. */
static JSValue evaluate(JSContext *ctx, const char *source, size_t length, const char *name, bool seldom)
{
    hot.open = false;
    hot.functions = !seldom;
    JSValue script = JS_Eval(ctx, source, length, name, JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_COMPILE_ONLY);
    hot.open = true;
    return JS_IsException(script) ? script : JS_EvalFunction(ctx, script);
}

EXPORT("skerry_eval") uint64_t skerry_eval(uint32_t length)
{
    JSContext *ctx = engine.ctx;
    begin_on_small_stack();
    hot.open = false;
    char *script = take_parked(ctx, length);
    hot.open = true;
    if (!script)
        return failed_with_exception(ctx);
    uint32_t name_length = length >= 4 ? read_u32((uint8_t *)script) & ~SCRIPT_SELDOM : 0;
    if (length < 4 || name_length > length - 4)
        return failed_with_message(ctx, "The script is cut short");
    bool seldom = read_u32((uint8_t *)script) & SCRIPT_SELDOM;
    char *source = script + 4 + name_length, *name = js_strndup(ctx, script + 4, name_length);
    if (!name)
        return failed_with_exception(ctx);
    JSValue value = evaluate(ctx, source, length - 4 - name_length, name, seldom);
    js_free(ctx, name);
    js_free(ctx, script);
    if (JS_IsException(value))
        return failed_with_exception(ctx);
    JS_FreeValue(ctx, engine.promise);
    engine.promise = JS_IsString(value) || JS_IsPromise(value) ? value : JS_NewString(ctx, "null");
    uint64_t settled = settle(ctx);
    if (seldom && settled >> 60 == STATUS_DONE) {
        if (!grow_tables(engine.rt))
            return failed_with_exception(ctx);
        hot_keep_nursery();
    }
    return settled;
}

/* The stacks of a snapshot are garbage from deeper calls: zero what lies below this frame, and all of the deep one. */
static no_inline void clear_dead_stack(void)
{
    volatile uint8_t *below = (volatile uint8_t *)__builtin_frame_address(0) - 64;
    for (volatile uint8_t *byte = (volatile uint8_t *)8; byte < below; byte++)
        *byte = 0;
    memset(deep_stack, 0, sizeof(deep_stack));
}

EXPORT("skerry_freeze") uint64_t skerry_freeze(void)
{
    JSContext *ctx = engine.ctx;
    begin_on_small_stack();
    if (!drain_jobs())
        return failed_with_exception(ctx);
    if (engine.rejection_count)
        return failed_with(ctx, take_unhandled_reason(ctx));
    begin_budget(CALL_LOTS_MAX);
    JS_FreeValue(ctx, engine.promise);
    engine.promise = JS_UNDEFINED;
    js_free_rt(engine.rt, engine.tickets);
    js_free_rt(engine.rt, engine.rejections);
    engine.tickets = NULL;
    engine.rejections = NULL;
    engine.ticket_count = engine.ticket_capacity = engine.rejection_capacity = 0;
    JS_RunGC(engine.rt);
    if (!grow_tables(engine.rt))
        return failed_with_exception(ctx);
    end_object_list_in_arena(ctx);
    hot_begin_calls(engine.rt);
    JS_SetGCThreshold(engine.rt, engine.rt->malloc_state.malloc_size + GC_HEADROOM_BYTES);
    memset(&generator, 0, sizeof(generator));
    memset(&frozen_clock, 0, sizeof(frozen_clock));
    memset(inline_answer, 0, sizeof(inline_answer));
    clear_dead_stack();
    begin_counting_steps();
    return packed_result(STATUS_DONE, "null", 4);
}
