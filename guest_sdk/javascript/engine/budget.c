/* How much a guest may compute: jumps and calls, counted by the engine in lots of 10,000, so that the same code ends at the same
 * place on every machine. The host's own limit on CPU time is behind it, for what is not counted.
 *
 * Modules have one budget for loading, a query or a mutation has one from `invoke` on, over all its entries; an action, whose end need
 * not be the same everywhere, has the host's limit on CPU time alone. A spent budget stays spent: every
 * jump and call from then on ends at once with the same kind of error, which no code can catch, until nothing is left to run.
 *
 * What a call has used so far is kept where the host reads it (guest_sdk/ABI.md, *Exports*): by the lot while it runs, by the
 * step when an entry ends.
 */
#define IMPORT_LOTS_MAX 6000
#define CALL_LOTS_MAX 27000 /* about 4 s of a plain loop on a machine of the year 2025 */

#define ACTION_LOTS_MAX INT_MAX

#define FORMAT_LOTS_MAX 100 /* for making the error's text */

/* Exported under the name by ENGINE_FLAGS: the host reads the first field. */
struct budget {
    uint64_t steps_used;
    int lots_used;
    int lots_left;
    bool spent;
    JSValue error; /* the first one: its stack says where */
} budget __asm__("skerry_steps_used");

static void begin_budget(int lots)
{
    budget.lots_left = lots;
    budget.spent = false;
    budget.error = JS_UNDEFINED;
}

static int count_lot(JSRuntime *rt, void *opaque)
{
    if (!budget.spent) {
        budget.steps_used = (uint64_t)++budget.lots_used * JS_INTERRUPT_COUNTER_INIT;
        if (--budget.lots_left > 0)
            return 0;
    }
    budget.spent = true;
    engine.ctx->interrupt_counter = 1;
    return 1;
}

static void begin_counting_steps(void)
{
    budget.steps_used = 0;
    budget.lots_used = 0;
    engine.ctx->interrupt_counter = JS_INTERRUPT_COUNTER_INIT;
}

/* At the end of an entry: what is used of the lot that has begun counts too. */
static void count_steps(void)
{
    int of_lot = JS_INTERRUPT_COUNTER_INIT - engine.ctx->interrupt_counter;
    budget.steps_used = (uint64_t)budget.lots_used * JS_INTERRUPT_COUNTER_INIT + of_lot;
}

/* Where the engine throws for the handler above. */
static void note_spent_budget(JSContext *ctx)
{
    static const char *const NAMES[] = {"InternalError", "FunctionTimedOut"};
    if (!JS_IsUndefined(budget.error) || !JS_IsObject(ctx->rt->current_exception))
        return;
    budget.error = js_dup(ctx->rt->current_exception);
    bool import = engine.kind == CALL_IMPORT;
    JS_DefinePropertyValueStr(ctx, budget.error, "name", JS_NewString(ctx, NAMES[!import]), JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
    if (!import)
        JS_DefinePropertyValueStr(ctx, budget.error, "message", JS_NewString(ctx, "Function execution timed out (maximum duration: 5s)"),
                                  JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
}
