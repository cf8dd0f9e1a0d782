/* The engine's regular expression compiler and matcher, with frames that count for what they take (see engine.c). */
#include "stack.h"

#include "libregexp.h"

#define lre_check_stack_overflow(opaque, size)              \
    ({                                                      \
        STACK_FRAME(STACK_BYTES_PER_PATTERN);               \
        (lre_check_stack_overflow)(opaque, size);           \
    })
#include "libregexp.c"
