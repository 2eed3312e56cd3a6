// Zeroed memory, on huge pages where it is large enough: what the worker's MemorySource gives in this benchmark.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const size_t huge_page = 2 << 20;

static inline void *reserve(size_t bytes) {
  size_t alignment = bytes < huge_page ? 64 : huge_page;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  void *memory = aligned_alloc(alignment, bytes ? bytes : alignment);
  if (memory == NULL) abort();
  if (alignment == huge_page) madvise(memory, bytes, MADV_HUGEPAGE);
  memset(memory, 0, bytes ? bytes : alignment);
  return memory;
}
