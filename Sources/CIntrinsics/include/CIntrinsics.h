// The instructions, and the system call, that Swift has no name for. Header-only where they are to inline into Swift code.
#pragma once
#include <stddef.h>
#include <stdint.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// Asks for the cache line at `address`; never faults.
static inline void nfv_prefetch(const void *address) { __builtin_prefetch(address, 1, 3); }

// Which of the ten 16-bit tags at the beginning of `line` equal `tag`: bit i for the i-th. `line` is aligned to 16 bytes.
static inline uint32_t nfv_equal_tags(const void *line, uint16_t tag) {
#if defined(__SSE2__)
  __m128i wanted = _mm_set1_epi16((short)tag);
  __m128i first = _mm_cmpeq_epi16(*(const __m128i *)line, wanted);
  __m128i last = _mm_cmpeq_epi16(_mm_cvtsi32_si128(((const int32_t *)line)[4]), wanted);
  return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(first, last)) & 0x3ff;
#else
  uint32_t bits = 0;
  for (uint32_t i = 0; i < 10; i++) bits |= (uint32_t)(((const uint16_t *)line)[i] == tag) << i;
  return bits;
#endif
}

// The processor's cycle counter: constant rate on every machine DPDK supports.
static inline uint64_t nfv_cycles(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t value;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#endif
}

// Tells the core that this is a polling loop.
static inline void nfv_relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

#if defined(__x86_64__)
#include <emmintrin.h>
#endif
#include <string.h>

// Which of the `count` 32-bit words at `a` and at `b` differ, as bits; `count` is at most 32. Both may be read up to a whole
// number of 16 bytes.
static inline uint32_t nfv_differing_words(const void *a, const void *b, size_t count) {
  uint32_t differing = 0;
#if defined(__x86_64__)
  for (size_t word = 0; word < count; word += 4) {
    __m128i equal = _mm_cmpeq_epi32(
      _mm_loadu_si128((const __m128i *)((const char *)a + 4 * word)), _mm_loadu_si128((const __m128i *)((const char *)b + 4 * word)));
    differing |= (uint32_t)(_mm_movemask_ps(_mm_castsi128_ps(equal)) ^ 15) << word;
  }
  return count < 32 ? differing & ((1u << count) - 1) : differing;
#else
  for (size_t word = 0; word < count; word++) {
    uint32_t x, y;
    memcpy(&x, (const char *)a + 4 * word, 4);
    memcpy(&y, (const char *)b + 4 * word, 4);
    differing |= (uint32_t)(x != y) << word;
  }
  return differing;
#endif
}

// CRC-32C (Castagnoli) continued over `count` bytes; begin with all ones and invert the end. One call per frame.
uint32_t nfv_crc32c(uint32_t crc, const void *bytes, size_t count);
// The same over the eight bytes of `word`, lowest first.
uint32_t nfv_crc32c_word(uint32_t crc, uint64_t word);

// A descriptor that becomes readable when the process ends, child or not (pidfd_open(2), Linux 5.3); -1 with `errno`.
int nfv_pidfd_open(int pid);

// A file in memory alone, closed on exec (memfd_create(2)); -1 with `errno`.
int nfv_memfd_create(const char *name);
