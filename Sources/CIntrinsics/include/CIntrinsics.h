// The instructions, and the system call, that Swift has no name for. Header-only where they are to inline into Swift code.
#pragma once
#include <stddef.h>
#include <stdint.h>

// Asks for the cache line at `address`; never faults.
static inline void nfv_prefetch(const void *address) { __builtin_prefetch(address, 1, 3); }

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

// A descriptor that becomes readable when the process ends, child or not (pidfd_open(2), Linux 5.3); -1 with `errno`.
int nfv_pidfd_open(int pid);
