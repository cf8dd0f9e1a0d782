/* The bound on recursion.
 *
 * The engine measures its depth by the C stack, which WebAssembly keeps in linear memory. The machine's own stack, which traps
 * when it is spent, cannot be looked at from inside. So every function on a recursive path gets a frame in memory at least
 * as large as what it and its helpers take on the machine's stack, and the bound on the one stands for the other. The
 * numbers were found by running every case of tests/bundle/test_engine_stack.py under ever smaller machine stacks: each
 * recursion ends as a RangeError within the 1 MiB that the host gives.
 *
 * The linker puts the C stack below the data (C_STACK_BYTES in engine_build.py), so that running over its end would trap
 * instead of reaching data; the rest above STACK_BYTES_MAX is for functions that do not look.
 */
#ifndef SKERRY_STACK_H
#define SKERRY_STACK_H

#define STACK_BYTES_MAX (512 * 1024)

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
