/* How much a guest may compute: loops and calls, counted by the engine in lots of 10,000, so that the same code ends at the same
 * place on every machine. The host's own limit on CPU time is behind it, for what is not counted.
 *
 * Modules have one budget for loading, a query or a mutation has one from `invoke` on, over all its entries; an action, whose end need
 * not be the same everywhere, has the host's limit on CPU time alone. A spent budget stays spent: every
 * loop and call from then on ends at once with the same kind of error, which no code can catch, until nothing is left to run.
 */
#define IMPORT_LOTS_MAX 6000
#define CALL_LOTS_MAX 27000 /* about 4 s of a plain loop on a machine of the year 2025 */

#define ACTION_LOTS_MAX INT_MAX

#define FORMAT_LOTS_MAX 100 /* for making the error's text */

static struct {
    int lots_left;
    bool spent;
    JSValue error; /* the first one: its stack says where */
} budget;

static void begin_budget(int lots)
{
    budget.lots_left = lots;
    budget.spent = false;
    budget.error = JS_UNDEFINED;
}

static int count_lot(JSRuntime *rt, void *opaque)
{
    if (!budget.spent && --budget.lots_left > 0)
        return 0;
    budget.spent = true;
    engine.ctx->interrupt_counter = 1;
    return 1;
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
