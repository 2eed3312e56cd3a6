// The instructions that Swift has no name for. Header-only, so that they inline into Swift code.
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

// CRC-32C (Castagnoli) continued over `count` bytes; begin with all ones and invert the end. One call per frame.
uint32_t nfv_crc32c(uint32_t crc, const void *bytes, size_t count);
// The same over the eight bytes of `word`, lowest first.
uint32_t nfv_crc32c_word(uint32_t crc, uint64_t word);
