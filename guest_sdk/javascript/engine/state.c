/* The one engine of this module, and what the call in progress leaves in it.
 *
 * Everything is zero in a fresh image except `rt`, `ctx` and the three functions of the prelude.
 */
#include <wasi/api.h>

#define EXPORT(name) __attribute__((export_name(name), used))

/* Garbage that a call may leave before the cycle collector runs: most calls end first, and then it never does. */
#define GC_HEADROOM_BYTES (24 * 1024 * 1024)

enum { CALL_QUERY, CALL_MUTATION, CALL_ACTION, CALL_HTTP_ACTION, CALL_IMPORT, CALL_KINDS };
enum { STATUS_DONE, STATUS_FAILED, STATUS_PENDING };

typedef struct {
    uint32_t number;
    bool raw_result;
    JSValue settle[2]; /* resolve, reject */
} Ticket;

static struct {
    JSRuntime *rt;
    JSContext *ctx;
    JSValue invoker, describer, formatter;

    int kind;
    const char *request_id;
    size_t request_id_length;
    JSValue promise; /* of the call in progress */

    Ticket *tickets;
    size_t ticket_count, ticket_capacity;

    JSValue *rejections; /* promises rejected and not handled so far */
    size_t rejection_count, rejection_capacity;
} engine;

static const char *const CALL_KIND_NAMES[CALL_KINDS] = {"query", "mutation", "action", "httpAction", "import"};

/* Makes room for one more element; false when memory is spent. */
static bool reserve(void **items, size_t *capacity, size_t count, size_t item_bytes)
{
    if (count < *capacity)
        return true;
    size_t grown = *capacity ? *capacity * 2 : 16;
    void *moved = js_realloc_rt(engine.rt, *items, grown * item_bytes);
    if (!moved)
        return false;
    *items = moved;
    *capacity = grown;
    return true;
}

/* Each export begins on the small stack. */
static void begin_on_small_stack(void)
{
    engine.rt->stack_limit = STACK_SMALL_LIMIT;
}
