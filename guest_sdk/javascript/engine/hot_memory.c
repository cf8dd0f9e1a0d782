#include "hot_memory.h"
#include "stack.h"

_Alignas(HOT_PAGE_BYTES) uint8_t hot_memory[HOT_BYTES];
_Alignas(HOT_PAGE_BYTES) uint8_t deep_stack[STACK_DEEP_MARGIN + STACK_DEEP_BYTES];
