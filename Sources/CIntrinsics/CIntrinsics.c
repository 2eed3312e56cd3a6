#define _GNU_SOURCE
#include "CIntrinsics.h"
#include <sys/syscall.h>
#include <unistd.h>

#include <string.h>

// Every processor that DPDK supports has the instruction; elsewhere a bit at a time will do.
#if defined(__x86_64__)
#define CRC_TARGET __attribute__((target("sse4.2")))
#define CRC_WORD(crc, word) ((uint32_t)__builtin_ia32_crc32di(crc, word))
#define CRC_BYTE(crc, byte) __builtin_ia32_crc32qi(crc, byte)
#elif defined(__aarch64__)
#define CRC_TARGET __attribute__((target("crc")))
#define CRC_WORD(crc, word) __builtin_arm_crc32cd(crc, word)
#define CRC_BYTE(crc, byte) __builtin_arm_crc32cb(crc, byte)
#else
#define CRC_TARGET
static uint32_t crc_byte(uint32_t crc, uint8_t byte) {
  crc ^= byte;
  for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  return crc;
}
static uint32_t crc_word(uint32_t crc, uint64_t word) {
  for (int byte = 0; byte < 8; byte++) crc = crc_byte(crc, (uint8_t)(word >> (8 * byte)));
  return crc;
}
#define CRC_WORD(crc, word) crc_word(crc, word)
#define CRC_BYTE(crc, byte) crc_byte(crc, byte)
#endif

CRC_TARGET uint32_t nfv_crc32c_word(uint32_t crc, uint64_t word) { return CRC_WORD(crc, word); }

CRC_TARGET uint32_t nfv_crc32c(uint32_t crc, const void *bytes, size_t count) {
  const uint8_t *next = bytes;
  for (; count >= 8; count -= 8, next += 8) {
    uint64_t word;
    memcpy(&word, next, 8);
    crc = CRC_WORD(crc, word);
  }
  for (; count > 0; count--, next++) crc = CRC_BYTE(crc, *next);
  return crc;
}

int nfv_pidfd_open(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int nfv_memfd_create(const char *name) { return (int)syscall(SYS_memfd_create, name, 1u /* close on exec */); }
