/* The hot arena: where everything that an ordinary call touches lies together, in the first part of memory.
 *
 * What a call costs besides its own work is the pages it touches: the host has to wipe them afterwards, and a page beyond those
 * it wipes in place (POOL_MEMORY_RESIDENT_BYTES) costs a page fault first. So memory is laid out like this:
 *
 *   C stack | static data | hot arena: engine and prelude, nursery, app, spare | everything else, grown
 *
 * While an image is made, phases say what belongs into the arena: what runs makes objects there (`hot.open`); what is compiled
 * goes elsewhere, with its many temporaries, except for atoms and for the functions that are called often: all of the app's
 * (`hot.functions`), and those of the prelude that begin with the directive "use hot". Calls have the nursery, which is
 * contiguous and zero; a call that needs more goes on in the spare, and then outside the arena, as an app does that is large.
 *
 * A block is a header of the engine's (which also holds its reference count) and its bytes. Sizes are rounded up to a class;
 * a free block waits in its class's list, the last one freed is used first. Blocks are never split or joined.
 * Outside the arena works the engine's own allocator over libc's, untouched; the class in a block's header tells whose it is.
 *
 * Included in the middle of quickjs.c (engine_build.py says where), just before the first use of what it replaces.
 */
#include "hot_memory.h"

#define NURSERY_BYTES (96 * 1024)
#define SPARE_BYTES_MIN (256 * 1024)
#define HOT_BLOCK_BYTES_MAX (128 * 1024)
#define SPARE_BLOCK_BYTES_MIN 4096 /* blocks from here on leave what is left of the nursery to smaller ones */

/* Classes: every multiple of 8 up to 512 bytes, then four to each doubling. A header holds HOT_CLASS + class. */
#define HOT_EXACT_BYTES_MAX 512
#define HOT_EXACT_CLASSES (HOT_EXACT_BYTES_MAX / 8 + 1)
#define HOT_CLASSES (HOT_EXACT_CLASSES + 4 * 8)
#define HOT_CLASS 0x80
#define UPSTREAM_LARGE 0xff

_Static_assert(HOT_CLASS + HOT_CLASSES < UPSTREAM_LARGE, "a class fits the header beside the engine's own");
_Static_assert(JS_ARENA_BLOCK_SIZE_COUNT <= HOT_CLASS, "the engine's own classes lie below ours");

typedef struct HotBlock {
    JSMallocBlockHeader header;
    struct HotBlock *next_free; /* in place of the bytes */
} HotBlock;


static struct {
    bool open;      /* whether allocations go here */
    bool functions; /* whether the functions of the script being compiled go here */
    uint8_t *next, *end;
    uint8_t *spare, *spare_end; /* what comes after `end` */
    uint8_t *nursery;           /* kept for calls while an image is made */
    HotBlock *free[HOT_CLASSES];
} hot;

static inline bool is_hot(const JSMallocBlockHeader *block)
{
    return block->block_size_idx >= HOT_CLASS && block->block_size_idx != UPSTREAM_LARGE;
}

static inline JSMallocBlockHeader *header_of(const void *bytes)
{
    return (JSMallocBlockHeader *)((uint8_t *)(uintptr_t)bytes - sizeof(JSMallocBlockHeader));
}

static inline uint32_t hot_class_of(uint32_t block_bytes)
{
    if (likely(block_bytes <= HOT_EXACT_BYTES_MAX))
        return (block_bytes + 7) / 8;
    uint32_t exponent = 31 - (uint32_t)clz32(block_bytes - 1); /* block_bytes is above 2^exponent, at most twice that */
    return HOT_EXACT_CLASSES + (exponent - 9) * 4 + ((block_bytes - 1 - (1u << exponent)) >> (exponent - 2));
}

static inline uint32_t hot_block_bytes(uint32_t class)
{
    if (likely(class < HOT_EXACT_CLASSES))
        return class * 8;
    uint32_t exponent = 9 + (class - HOT_EXACT_CLASSES) / 4, quarter = (class - HOT_EXACT_CLASSES) % 4;
    return (1u << exponent) + ((quarter + 1) << (exponent - 2));
}

/* Unused bytes of the arena, or NULL: the rest of the present part, or the spare. */
static no_inline uint8_t *hot_go_on(uint32_t block_bytes)
{
    uint8_t *bytes = hot.spare;
    if ((size_t)(hot.spare_end - hot.spare) < block_bytes)
        return NULL;
    hot.spare += block_bytes;
    if (block_bytes < SPARE_BLOCK_BYTES_MIN) {
        hot.next = hot.spare;
        hot.end = hot.spare = hot.spare_end;
    }
    return bytes;
}

static inline void *hot_take(uint32_t class)
{
    HotBlock *block = hot.free[class];
    if (block) {
        hot.free[class] = block->next_free;
        return block->header.user_data;
    }
    uint32_t block_bytes = hot_block_bytes(class);
    uint8_t *bytes = hot.next;
    if (likely((size_t)(hot.end - bytes) >= block_bytes))
        hot.next += block_bytes;
    else if (!(bytes = hot_go_on(block_bytes)))
        return NULL;
    block = (HotBlock *)bytes;
    block->header.u.block_idx = 0;
    block->header.block_size_idx = HOT_CLASS + class;
    return block->header.user_data;
}

static inline void *hot_malloc(JSRuntime *rt, size_t size)
{
    if (likely(hot.open && size <= HOT_BLOCK_BYTES_MAX - sizeof(JSMallocBlockHeader))) {
        void *bytes = hot_take(hot_class_of((uint32_t)(size < 8 ? 8 : size) + sizeof(JSMallocBlockHeader)));
        if (likely(bytes != NULL))
            return bytes;
    }
    return js_arena_malloc(rt, size);
}

static inline void *hot_calloc(JSRuntime *rt, size_t count, size_t size)
{
    if (unlikely(!hot.open || count * size > HOT_BLOCK_BYTES_MAX - sizeof(JSMallocBlockHeader)))
        return js_arena_calloc(rt, count, size);
    void *bytes = hot_malloc(rt, count * size);
    return bytes ? memset(bytes, 0, count * size) : NULL;
}

static inline void hot_free(JSRuntime *rt, void *bytes)
{
    JSMallocBlockHeader *header = header_of(bytes);
    if (unlikely(!is_hot(header))) {
        js_arena_free(rt, bytes);
        return;
    }
    HotBlock *block = (HotBlock *)header, **list = &hot.free[header->block_size_idx - HOT_CLASS];
    block->next_free = *list;
    *list = block;
}

static inline size_t hot_usable_size(JSRuntime *rt, const void *bytes)
{
    if (!bytes)
        return 0;
    const JSMallocBlockHeader *header = header_of(bytes);
    if (unlikely(!is_hot(header)))
        return js_arena_usable_size(rt, bytes);
    return hot_block_bytes(header->block_size_idx - HOT_CLASS) - sizeof(JSMallocBlockHeader);
}

/* Makes the arena's last block larger where it lies: what grows step by step is usually that. */
static bool hot_extend(JSMallocBlockHeader *header, size_t size)
{
    uint32_t old_bytes = hot_block_bytes(header->block_size_idx - HOT_CLASS);
    if ((uint8_t *)header + old_bytes != hot.next || !hot.open || size > HOT_BLOCK_BYTES_MAX - sizeof(*header))
        return false;
    uint32_t class = hot_class_of((uint32_t)size + sizeof(*header));
    if ((size_t)(hot.end - (uint8_t *)header) < hot_block_bytes(class))
        return false;
    hot.next = (uint8_t *)header + hot_block_bytes(class);
    header->block_size_idx = HOT_CLASS + class;
    return true;
}

static void *hot_realloc(JSRuntime *rt, void *bytes, size_t size)
{
    JSMallocBlockHeader *header = header_of(bytes);
    if (!is_hot(header))
        return js_arena_realloc(rt, bytes, size);
    size_t usable = hot_usable_size(rt, bytes);
    if (size <= usable || hot_extend(header, size))
        return bytes;
    void *moved = hot_malloc(rt, size);
    if (!moved)
        return NULL;
    JSMallocBlockHeader *moved_header = header_of(moved);
    moved_header->gc_obj_type = header->gc_obj_type;
    moved_header->mark = header->mark;
    moved_header->ref_count = header->ref_count;
    memcpy(moved, bytes, usable);
    hot_free(rt, bytes);
    return moved;
}

static void hot_begin_build(void)
{
    hot.next = hot_memory;
    hot.end = hot.spare = hot.spare_end = hot_memory + HOT_BYTES - SPARE_BYTES_MIN;
    hot.open = true;
}

static uint8_t *hot_page_after(uint8_t *bytes)
{
    return (uint8_t *)(((uintptr_t)bytes + HOT_PAGE_BYTES - 1) & ~(uintptr_t)(HOT_PAGE_BYTES - 1));
}

/* Keeps the nursery here: before the app's objects, of which there may be any number. */
static void hot_keep_nursery(void)
{
    if (hot.nursery || (size_t)(hot.end - hot.next) < NURSERY_BYTES + HOT_PAGE_BYTES)
        return;
    hot.nursery = hot_page_after(hot.next);
    hot.next = hot.nursery + NURSERY_BYTES;
}

/* Ends the building of an image: what was freed in the arena stays unused, so that calls find their memory in one piece; and
 * so does what is free in the engine's own arenas, so that calls that need more find new pages instead of scattered holes. */
static void hot_begin_calls(JSRuntime *rt)
{
    memset(hot.free, 0, sizeof(hot.free));
    hot.open = true;
    hot.spare = hot_page_after(hot.next);
    hot.spare_end = hot_memory + HOT_BYTES;
    hot.next = hot.nursery ? hot.nursery : hot.spare;
    hot.end = hot.nursery ? hot.nursery + NURSERY_BYTES : hot.spare;
    for (int i = 0; i < JS_ARENA_BLOCK_SIZE_COUNT; i++) {
        struct list_head *head = &rt->arena_state.free_arena_list[i], *link, *next;
        list_for_each_safe(link, next, head)
            init_list_head(link);
        init_list_head(head);
    }
}

/* -- what is made while a script is compiled ------------------------------------------------------------------------ */

static bool begins_with_use_hot(const char *source)
{
    static const char DIRECTIVE[] = "\"use hot\"";
    const char *body = source ? strchr(source, '{') : NULL;
    if (!body)
        return false;
    for (body++; *body == ' ' || *body == '\n'; body++)
        continue;
    return strncmp(body, DIRECTIVE, sizeof(DIRECTIVE) - 1) == 0;
}

static void *hot_function_mallocz(JSContext *ctx, const char *source, size_t size)
{
    bool open = hot.open;
    hot.open = open || hot.functions || begins_with_use_hot(source);
    void *bytes = js_mallocz(ctx, size);
    hot.open = open;
    return bytes;
}

static void *hot_atom_malloc(JSRuntime *rt, size_t size)
{
    bool open = hot.open;
    hot.open = true;
    void *bytes = js_malloc_rt(rt, size);
    hot.open = open;
    return bytes;
}

/* Whether a new atom may be the string itself, where that is, instead of a copy. */
static bool hot_may_adopt(const JSString *text)
{
    return hot.open || is_hot(header_of(text));
}

/* Defines a data property that an object, made just now, cannot have yet: what every function's `length` and `name` are. */
static void add_new_property(JSContext *ctx, JSValueConst object, JSAtom name, JSValue value, int flags)
{
    JSProperty *property = JS_IsException(value) ? NULL : add_property(ctx, JS_VALUE_GET_OBJ(object), name, flags);
    if (property)
        property->u.value = value;
    else
        JS_FreeValue(ctx, value);
}

/* The runtime itself is the first thing the engine asks its backing allocator for. */
static JSRuntime hot_runtime;

static void *backing_calloc(void *opaque, size_t count, size_t size)
{
    if (count == 1 && size == sizeof(JSRuntime) && !hot_runtime.mf.js_calloc)
        return &hot_runtime;
    return calloc(count, size);
}

static void *backing_malloc(void *opaque, size_t size)
{
    return malloc(size);
}

static void backing_free(void *opaque, void *bytes)
{
    if (bytes != &hot_runtime)
        free(bytes);
}

static void *backing_realloc(void *opaque, void *bytes, size_t size)
{
    return realloc(bytes, size);
}

static size_t backing_usable_size(const void *bytes)
{
    return bytes == &hot_runtime ? sizeof(JSRuntime) : js__malloc_usable_size(bytes);
}

static const JSMallocFunctions backing_functions = {
    backing_calloc, backing_malloc, backing_free, backing_realloc, backing_usable_size,
};

#define js_arena_malloc hot_malloc
#define js_arena_calloc hot_calloc
#define js_arena_free hot_free
#define js_arena_realloc hot_realloc
#define js_arena_usable_size hot_usable_size
