// A packet of a burst: where its headers are, its flow's key, what became of it.
//
// Addresses and ports stay in network order throughout: a key is compared, hashed and rewritten, never calculated with.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// What runs for every packet is one piece of code.
#define HOT static inline __attribute__((always_inline))

enum direction { FORWARD, REVERSE };
enum { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };
enum { FLAG_FIN = 1, FLAG_SYN = 2, FLAG_RST = 4, FLAG_ACK = 16 };

enum drop_reason {
  PASS, TRUNCATED, UNKNOWN_ETHERTYPE, NOT_FOR_US, UNKNOWN_SOURCE, MALFORMED_IPV4, BAD_IPV4_CHECKSUM, FRAGMENT,
  MALFORMED_TRANSPORT, BAD_TRANSPORT_CHECKSUM, UNSUPPORTED, NO_FLOW, NOT_CONNECTION_START, TABLE_FULL, KEY_TAKEN,
  DENIED_BY_RULE, INVALID_TCP_STATE, INVALID_TCP_FLAGS, RESET_OUT_OF_WINDOW, POOL_EXHAUSTED, NO_SERVICE, NO_BACKEND,
};

// source address | destination address, and source port | destination port | protocol | VLAN.
struct key { uint64_t addresses, transport; };

struct packet {
  uint8_t *bytes;
  struct key key;
  uint64_t hash;
  uint32_t candidate; // slot and direction that the table suggests
  uint32_t length;
  uint16_t network, transport, payload, end;
  uint8_t protocol, flags, direction, reason;
  bool client_side;
};

static inline uint16_t load16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void store16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void store32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline uint16_t host16(uint16_t v) { return __builtin_bswap16(v); }
static inline uint32_t host32(uint32_t v) { return __builtin_bswap32(v); }

static inline bool same_key(struct key a, struct key b) {
  return ((a.addresses ^ b.addresses) | (a.transport ^ b.transport)) == 0;
}

static inline struct key reversed(struct key k) {
  uint32_t ports = (uint32_t)k.transport;
  return (struct key){k.addresses >> 32 | k.addresses << 32,
                      (k.transport & ~0xffffffffull) | (ports >> 16 | ports << 16)};
}

// MARK: Checksums (RFC 1071), in memory order


HOT uint64_t sum(const uint8_t *p, uint32_t count, uint64_t total) {
  for (; count >= 8; count -= 8, p += 8) {
    uint64_t next;
    total = __builtin_add_overflow(total, load64(p), &next) + next;
  }
  uint64_t tail = 0;
  if (count & 4) { tail += load32(p); p += 4; }
  if (count & 2) { tail += load16(p); p += 2; }
  if (count & 1) tail += *p;
  uint64_t next;
  return __builtin_add_overflow(total, tail, &next) + next;
}

HOT uint16_t fold(uint64_t total) {
  total = (total & 0xffffffff) + (total >> 32);
  total = (total & 0xffff) + (total >> 16);
  total = (total & 0xffff) + (total >> 16);
  return (uint16_t)((total & 0xffff) + (total >> 16));
}

// RFC 1624 eqn. 3; `removed` is the sum of the complements of the old words, `added` the sum of the new ones: few enough
// that two carries are all.
HOT uint16_t update(uint16_t checksum, uint32_t removed, uint32_t added) {
  uint32_t total = (uint16_t)~checksum + removed + added;
  total = (total & 0xffff) + (total >> 16);
  return (uint16_t)~(total + (total >> 16));
}

// MARK: Parsing

HOT enum drop_reason parse_transport(struct packet *p, uint64_t vlan) {
  const uint8_t *ip = p->bytes + p->network, *t = p->bytes + p->transport;
  uint32_t available = p->end - p->transport, covered = available;
  switch (p->protocol) {
  case PROTOCOL_TCP: {
    if (available < 20) return MALFORMED_TRANSPORT;
    uint32_t header = (t[12] >> 4) * 4;
    if (header < 20 || header > available) return MALFORMED_TRANSPORT;
    p->flags = t[13] & 0x3f;
    p->payload = (uint16_t)(p->transport + header);
    break;
  }
  case PROTOCOL_UDP:
    if (available < 8) return MALFORMED_TRANSPORT;
    covered = host16(load16(t + 4));
    if (covered < 8 || covered > available) return MALFORMED_TRANSPORT;
    p->end = (uint16_t)(p->transport + covered);
    p->payload = (uint16_t)(p->transport + 8);
    if (load16(t + 6) == 0) covered = 0; // none (RFC 768)
    break;
  default: return UNSUPPORTED;
  }
  p->key = (struct key){load64(ip + 12), load32(t) | (uint64_t)p->protocol << 32 | vlan << 40};
  if (covered == 0) return PASS;
  uint64_t pseudo = (uint64_t)host16(p->protocol) + host16((uint16_t)covered);
  uint64_t next;
  pseudo = __builtin_add_overflow(pseudo, p->key.addresses, &next) + next;
  return fold(sum(t, covered, pseudo)) == 0xffff ? PASS : BAD_TRANSPORT_CHECKSUM;
}

HOT enum drop_reason parse(struct packet *p) {
  if (p->length < 14) return TRUNCATED;
  uint16_t type = load16(p->bytes + 12);
  uint32_t offset = 14;
  uint64_t vlan = 0;
  for (int tags = 0; type == host16(0x8100) || type == host16(0x88a8) || type == host16(0x9100); tags++) {
    if (tags == 2) return UNKNOWN_ETHERTYPE;
    if (p->length < offset + 4) return TRUNCATED;
    vlan = host16(load16(p->bytes + offset)) & 0x0fff;
    type = load16(p->bytes + offset + 2);
    offset += 4;
  }
  if (type != host16(0x0800)) return UNKNOWN_ETHERTYPE;
  const uint8_t *ip = p->bytes + offset;
  uint32_t available = p->length - offset;
  if (available < 20) return TRUNCATED;
  uint32_t header = (ip[0] & 15) * 4, total = host16(load16(ip + 2));
  if (ip[0] >> 4 != 4 || header < 20 || total < header) return MALFORMED_IPV4;
  if (total > available) return TRUNCATED;
  // Nearly all headers have no options: five words, added without carries to be kept.
  uint64_t words = (uint64_t)load32(ip) + load32(ip + 4) + load32(ip + 8) + load32(ip + 12) + load32(ip + 16);
  if (fold(header == 20 ? words : sum(ip, header, 0)) != 0xffff) return BAD_IPV4_CHECKSUM;
  if (load16(ip + 6) & host16(0x3fff)) return FRAGMENT;
  p->protocol = ip[9];
  p->network = (uint16_t)offset;
  p->transport = (uint16_t)(offset + header);
  p->end = (uint16_t)(offset + total);
  return parse_transport(p, vlan);
}

// MARK: Rewriting

static inline uint32_t words(uint32_t v) { return (v >> 16) + (v & 0xffff); }

// Gives the packet another source (side 0) or destination (side 1); the checksums follow.
HOT void rewrite(struct packet *p, int side, uint32_t address, uint16_t port) {
  uint8_t *ip = p->bytes + p->network, *t = p->bytes + p->transport;
  uint32_t old_address = (uint32_t)(p->key.addresses >> 32 * side);
  uint16_t old_port = (uint16_t)(p->key.transport >> 16 * side);
  uint32_t removed = words(~old_address), added = words(address);
  store32(ip + 12 + 4 * side, address);
  store16(ip + 10, update(load16(ip + 10), removed, added));
  removed += (uint16_t)~old_port;
  added += port;
  store16(t + 2 * side, port);
  if (p->protocol == PROTOCOL_TCP) {
    store16(t + 16, update(load16(t + 16), removed, added));
  } else if (load16(t + 6) != 0) {
    uint16_t updated = update(load16(t + 6), removed, added);
    store16(t + 6, updated ? updated : 0xffff);
  }
  p->key.addresses = (p->key.addresses & ~(0xffffffffull << 32 * side)) | (uint64_t)address << 32 * side;
  p->key.transport = (p->key.transport & ~(0xffffull << 16 * side)) | (uint64_t)port << 16 * side;
}
