// What Swift cannot count by itself: allocations of the whole process.
#pragma once
#include <stdint.h>

// Calls of malloc, calloc, realloc, posix_memalign, aligned_alloc and memalign so far, by anyone in this process.
uint64_t measuring_allocations(void);
