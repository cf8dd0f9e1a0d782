/* The memory of the hot arena (arena.c): a unit of its own, linked last, so that it comes after all other static
 * data, and before the deep stack (stack.h). */
#ifndef SKERRY_HOT_MEMORY_H
#define SKERRY_HOT_MEMORY_H

#include <stdint.h>

#define HOT_BYTES (2 * 1024 * 1024)
#define HOT_PAGE_BYTES 4096

extern uint8_t hot_memory[HOT_BYTES];

#endif
