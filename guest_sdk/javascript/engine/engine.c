/* The JavaScript engine guest: QuickJS-NG plus the guest ABI, as one translation unit.
 *
 * The engine's own source is included rather than linked because value conversion (values.c) and the shape of a snapshot
 * (lifecycle.c) need its object layout. Everything below the include is ours:
 *
 *   arena.c      where the engine's memory comes from (included in the middle of the engine)
 *   json.c       the common cases of JSON text, faster (included there too)
 *   state.c      the one engine of this module and what a call leaves in it
 *   budget.c     how much a guest may compute
 *   clock.c      time: the host's clock, at most once per call
 *   host.c       hostcalls: arguments out, answers in, tickets
 *   random.c     Math.random, seeded by the host at first use in a call
 *   values.c     Convex values to and from their JSON form, without running JavaScript
 *   text.c       JSON text of values and values of JSON text, in one pass
 *   promise.c    promises without resolving functions
 *   bind.c       what the build binds into the `convex` package
 *   native.c     the object the prelude receives as `__skerry`
 *   settle.c     running jobs until a call is done, failed or pending; the error object
 *   lifecycle.c  boot, eval, freeze: the build-time exports
 *   abi.c        describe, invoke, resume: the exports of the ABI
 *
 * Nothing here keeps a pointer that the host gave, and nothing is freed at the end of a call: the instance is thrown away.
 */
#include <limits.h>
#include <stdint.h>
#include <sys/time.h>
#include <time.h>

static int skerry_gettimeofday(struct timeval *now, void *zone);
static int skerry_clock_gettime(clockid_t clock, struct timespec *now);
#define gettimeofday skerry_gettimeofday
#define clock_gettime skerry_clock_gettime

/* Every function of the engine that looks at its depth gets a frame that counts for what it takes (stack.h). The helper that looks
 * on behalf of all Proxy operations is inlined for that reason. */
#include "stack.h"

#include "quickjs.h"
struct JSProxyData;
static void note_spent_budget(JSContext *ctx);
static JSValue new_pending_promise(JSContext *ctx);
static JSValue settle_promise(JSContext *ctx, JSValueConst promise, JSValueConst value, bool is_reject);
static inline __attribute__((always_inline)) uintptr_t js_get_stack_pointer(void);
static inline __attribute__((always_inline)) bool js_check_stack_overflow(JSRuntime *rt, size_t alloca_size);
static inline __attribute__((always_inline)) struct JSProxyData *get_proxy_method(JSContext *ctx, JSValue *method,
                                                                                  JSValueConst object, JSAtom name);
#define __builtin_frame_address(level) ({ volatile char frame[STACK_BYTES_PER_CHECK]; (uintptr_t)frame; })
#include "quickjs.c"
#undef __builtin_frame_address
#undef gettimeofday
#undef clock_gettime
#undef malloc
#undef free
#undef realloc

#include "state.c"
#include "budget.c"
#include "clock.c"
#include "host.c"
#include "random.c"
#include "values.c"
#include "text.c"
#include "promise.c"
#include "bind.c"
#include "native.c"
#include "settle.c"
#include "lifecycle.c"
#include "abi.c"
