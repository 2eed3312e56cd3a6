// The program's own allocation functions stand before glibc's, count, and pass the call on. Exact, unlike mallinfo2: a block
// that comes from a thread's cache and goes back to it counts, too.
#include "CMeasuring.h"
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_STOP_INSTRUMENTATION
#endif

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static _Atomic uint64_t calls, bytes;

static void count(size_t size) {
  atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&bytes, size, memory_order_relaxed);
}

struct measuring_allocations measuring_read_allocations(void) {
  return (struct measuring_allocations){atomic_load_explicit(&calls, memory_order_relaxed),
                                        atomic_load_explicit(&bytes, memory_order_relaxed)};
}

__attribute__((noinline)) void measuring_section(void (*body)(void *), void *context) {
  CALLGRIND_START_INSTRUMENTATION;
  body(context);
  CALLGRIND_STOP_INSTRUMENTATION;
}

void *malloc(size_t size) {
  count(size);
  return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
  count(number * size);
  return __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size) {
  count(size);
  return __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) return EINVAL;
  count(size);
  void *result = __libc_memalign(alignment, size);
  if (result == NULL) return ENOMEM;
  *memory = result;
  return 0;
}
