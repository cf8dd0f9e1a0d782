/* The bound on recursion.
 *
 * The engine measures its depth by the C stack, which WebAssembly keeps in linear memory. The machine's own stack, which traps
 * when it is spent, cannot be looked at from inside. So every function on a recursive path gets a frame in memory at least
 * as large as what it and its helpers take on the machine's stack, and the bound on the one stands for the other. The
 * numbers were found by running every case of tests/bundle/test_engine_stack.py under ever smaller machine stacks: each
 * recursion ends as a RangeError within the 1 MiB that the host gives.
 *
 * There are two stacks. A call begins on the small one, which the linker puts below all data (C_STACK_BYTES in engine_build.py),
 * so that running over its end would trap: it lies in the memory that the host wipes after each call. What recurses goes on
 * on the deep one, far from there, when less than STACK_SWITCH_BELOW is left, and comes back when it is done. A call that
 * never goes there pays nothing for its size.
 */
#ifndef SKERRY_STACK_H
#define SKERRY_STACK_H

#include <stdbool.h>
#include <stdint.h>

#define STACK_SMALL_BYTES (80 * 1024)
#define STACK_SMALL_LIMIT (24 * 1024)  /* what is below is for functions that do not look */
#define STACK_SWITCH_BELOW (56 * 1024) /* what is below is for recursions that do not switch */
#define STACK_DEEP_BYTES (2048 * 1024)
#define STACK_DEEP_MARGIN (64 * 1024) /* more of it, for functions that do not look */

extern uint8_t deep_stack[STACK_DEEP_MARGIN + STACK_DEEP_BYTES]; /* hot_memory.c */

__asm__(".globaltype __stack_pointer, i32\n");

static inline __attribute__((always_inline)) uintptr_t stack_pointer(void)
{
    uintptr_t pointer;
    __asm__ volatile("global.get __stack_pointer\nlocal.set %0" : "=r"(pointer));
    return pointer;
}

static inline __attribute__((always_inline)) void set_stack_pointer(uintptr_t pointer)
{
    __asm__ volatile("local.get %0\nglobal.set __stack_pointer" : : "r"(pointer) : "memory");
}

static inline __attribute__((always_inline)) bool is_on_small_stack(void)
{
    return stack_pointer() <= STACK_SMALL_BYTES;
}

/* Whether what recurses and wants that many bytes at once goes on on the deep stack. */
static inline __attribute__((always_inline)) bool is_stack_low(uintptr_t bytes)
{
    return __builtin_expect(stack_pointer() < STACK_SWITCH_BELOW + bytes, 0) && is_on_small_stack();
}

/* Defines `name_deep`, which calls `name` on the deep stack. Neither is inlined: a frame lies on the stack on which it was made. */
#define ON_DEEP_STACK(type, name, runtime, parameters, arguments)                         \
    static __attribute__((noinline)) type name parameters;                                \
    static __attribute__((noinline)) type name##_deep parameters                          \
    {                                                                                     \
        uintptr_t pointer = stack_pointer(), limit = (runtime)->stack_limit;              \
        (runtime)->stack_limit = (uintptr_t)deep_stack + STACK_DEEP_MARGIN;               \
        set_stack_pointer((uintptr_t)deep_stack + STACK_DEEP_MARGIN + STACK_DEEP_BYTES);  \
        type result = name arguments;                                                     \
        set_stack_pointer(pointer);                                                       \
        (runtime)->stack_limit = limit;                                                   \
        return result;                                                                    \
    }

#define STACK_BYTES_PER_CHECK 512
#define STACK_BYTES_PER_PATTERN 1024
#define STACK_BYTES_PER_EXPRESSION 1024
#define STACK_BYTES_PER_CONDITIONAL 1024
#define STACK_BYTES_PER_STATEMENT 1024
#define STACK_BYTES_PER_FUNCTION 2048

/* Makes the enclosing function's frame in memory larger by that much: the address escapes, so the array stays whole. */
#define STACK_FRAME(bytes)   \
    char stack_frame[bytes]; \
    __asm__ volatile("" : : "r"(stack_frame) : "memory")

#endif
