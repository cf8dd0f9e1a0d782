#include "hot_memory.h"

_Alignas(HOT_PAGE_BYTES) uint8_t hot_memory[HOT_BYTES];
