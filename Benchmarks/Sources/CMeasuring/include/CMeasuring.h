// What Swift cannot do by itself: count the allocations of the whole process, and mark a section for callgrind.
#pragma once
#include <stdint.h>

struct measuring_allocations {
  uint64_t calls; // of malloc, calloc, realloc, posix_memalign, aligned_alloc and memalign, by anyone in this process
  uint64_t bytes; // asked for; what was given back is not taken off
};

struct measuring_allocations measuring_read_allocations(void);

// Calls `body`. `valgrind --tool=callgrind --instr-atstart=no` counts what happens in here and nothing else, calls included, if
// valgrind's headers were there when this was compiled.
void measuring_section(void (*body)(void *), void *context);
