// External endpoints and who has them: the allocation rules of Sources/FunctionCatalog/NATPool.swift and NATMappings.swift
// (one share, TCP and UDP), so that both loops hand out the same ports in the same order.
//
// A mapping serves all flows of a client's address and port (RFC 4787 REQ-1) and is counted; the client's port is kept if
// it is free, else one of the same parity is taken, else any (REQ-3, REQ-4); a client stays on one address (REQ-2).
#pragma once
#include "memory.h"
#include "packet.h"

struct mapping {
  uint64_t client; // address | port | protocol | VLAN
  uint32_t flows, next;
  uint16_t address, port; // position in the pool; host order
};

struct nat {
  uint32_t *addresses, address_count; // host order
  uint32_t first_port, port_count, positions, lane_words;
  uint64_t *ports;   // per lane: bits of free ports, then a summary of which words are not zero, then of which summaries
  uint32_t summary_words;
  uint16_t *cursors; // per lane
  struct mapping *mappings; // from 1
  uint32_t *buckets, bucket_mask, first_free;
  uint64_t exhausted;
};

struct nat_flow {
  uint32_t client, external; // network order, as the ports
  uint16_t client_port, external_port;
  uint32_t mapping; // 0: not translating yet
};

static inline uint32_t lane_of(uint32_t address, uint32_t protocol, uint32_t port) {
  return (address * 2 + (protocol == PROTOCOL_UDP)) * 2 + (port & 1);
}
static inline uint32_t position_of(const struct nat *n, uint32_t port) { return port / 2 - n->first_port / 2; }

static void give_port(struct nat *n, uint32_t lane, uint32_t position) {
  uint64_t *w = n->ports + (uint64_t)lane * n->lane_words;
  uint32_t words = n->lane_words - n->summary_words - 1;
  w[position >> 6] |= 1ull << (position & 63);
  w[words + (position >> 12)] |= 1ull << (position >> 6 & 63);
  w[words + n->summary_words] |= 1ull << (position >> 12);
}

static bool take_port(struct nat *n, uint32_t lane, uint32_t position) {
  uint64_t *w = n->ports + (uint64_t)lane * n->lane_words;
  uint32_t words = n->lane_words - n->summary_words - 1;
  if (!(w[position >> 6] >> (position & 63) & 1)) return false;
  w[position >> 6] &= ~(1ull << (position & 63));
  if (w[position >> 6]) return true;
  w[words + (position >> 12)] &= ~(1ull << (position >> 6 & 63));
  if (w[words + (position >> 12)]) return true;
  w[words + n->summary_words] &= ~(1ull << (position >> 12));
  return true;
}

// The first free position from `start` on, -1 when there is none.
static int64_t free_from(const struct nat *n, uint32_t lane, uint32_t start) {
  if (start >= n->positions) return -1;
  const uint64_t *w = n->ports + (uint64_t)lane * n->lane_words;
  uint32_t words = n->lane_words - n->summary_words - 1, word = start >> 6;
  uint64_t bits = w[word] & ~0ull << (start & 63);
  if (!bits) {
    if (++word >= words) return -1;
    uint32_t row = word >> 6;
    uint64_t summary = w[words + row] & ~0ull << (word & 63);
    if (!summary) {
      if (++row >= n->summary_words) return -1;
      uint64_t top = w[words + n->summary_words] & ~0ull << row;
      if (!top) return -1;
      row = (uint32_t)__builtin_ctzll(top);
      summary = w[words + row];
    }
    word = row << 6 | (uint32_t)__builtin_ctzll(summary);
    bits = w[word];
  }
  return word << 6 | (uint32_t)__builtin_ctzll(bits);
}

static bool take_endpoint(struct nat *n, uint32_t client, uint32_t wanted, uint8_t protocol, struct mapping *m) {
  uint32_t home = (uint32_t)((uint64_t)(client * 0x9e3779b9u) * n->address_count >> 32);
  for (uint32_t step = 0; step < n->address_count; step++) {
    m->address = (uint16_t)((home + step) % n->address_count);
    m->port = (uint16_t)wanted;
    bool is_ours = wanted >= n->first_port && wanted < n->first_port + n->port_count;
    if (is_ours && take_port(n, lane_of(m->address, protocol, wanted), position_of(n, wanted))) return true;
    for (uint32_t parity = wanted; parity < wanted + 2; parity++) {
      uint32_t lane = lane_of(m->address, protocol, parity);
      int64_t position = free_from(n, lane, n->cursors[lane]);
      if (position < 0) position = free_from(n, lane, 0);
      if (position < 0) continue;
      take_port(n, lane, (uint32_t)position);
      n->cursors[lane] = (uint16_t)(position + 1);
      m->port = (uint16_t)(((uint32_t)position + n->first_port / 2) * 2 + (parity & 1));
      return true;
    }
  }
  return false;
}

static inline uint32_t *mapping_bucket(const struct nat *n, uint64_t client) {
  __uint128_t product = (__uint128_t)(client ^ 0x9e3779b97f4a7c15ull) * 0xe7037ed1a0b428dbull;
  return &n->buckets[((uint64_t)(product >> 64) ^ (uint64_t)product) & n->bucket_mask];
}

static inline uint64_t client_of(uint32_t address, uint16_t port, uint8_t protocol, uint64_t vlan) {
  return host32(address) | (uint64_t)port << 32 | (uint64_t)(protocol == PROTOCOL_UDP) << 48 | vlan << 50;
}

static inline void foresee_port(const struct nat *n, uint32_t client, uint32_t port, uint8_t protocol) {
  uint32_t home = (uint32_t)((uint64_t)(client * 0x9e3779b9u) * n->address_count >> 32);
  if (port < n->first_port || port >= n->first_port + n->port_count) return;
  __builtin_prefetch(&n->ports[(uint64_t)lane_of(home, protocol, port) * n->lane_words + (position_of(n, port) >> 6)], 1, 3);
}

// Asks for what making a mapping for this packet's client will read.
static inline void foresee_open(const struct nat *n, const struct packet *p) {
  uint32_t address = (uint32_t)p->key.addresses;
  uint16_t port = (uint16_t)p->key.transport;
  __builtin_prefetch(mapping_bucket(n, client_of(address, port, p->protocol, p->key.transport >> 40)), 1, 3);
  foresee_port(n, host32(address), host16(port), p->protocol);
}

// The same for giving one back.
static inline void foresee_close(const struct nat *n, const struct nat_flow *f, const struct key *key) {
  if (f->mapping == 0) return;
  __builtin_prefetch(&n->mappings[f->mapping], 1, 3);
  uint8_t protocol = (uint8_t)(key->transport >> 32);
  __builtin_prefetch(mapping_bucket(n, client_of(f->client, f->client_port, protocol, key->transport >> 40)), 1, 3);
  foresee_port(n, host32(f->client), host16(f->external_port), protocol);
}

// The first packet of a flow finds its client's mapping or makes one.
__attribute__((noinline)) static enum drop_reason nat_open(struct nat *n, struct nat_flow *f, const struct packet *p) {
  uint32_t address = (uint32_t)p->key.addresses;
  uint16_t port = (uint16_t)p->key.transport;
  uint64_t client = client_of(address, port, p->protocol, p->key.transport >> 40);
  uint32_t *bucket = mapping_bucket(n, client), index = *bucket;
  while (index != 0 && n->mappings[index].client != client) index = n->mappings[index].next;
  if (index == 0) {
    struct mapping m = {.client = client};
    if (n->first_free == 0 || !take_endpoint(n, host32(address), host16(port), p->protocol, &m)) {
      n->exhausted++;
      return POOL_EXHAUSTED;
    }
    index = n->first_free;
    n->first_free = n->mappings[index].next;
    __builtin_prefetch(&n->mappings[n->first_free], 1, 3); // the next new one's
    m.next = *bucket;
    n->mappings[index] = m;
    *bucket = index;
  }
  struct mapping *m = &n->mappings[index];
  m->flows++;
  *f = (struct nat_flow){.client = address, .client_port = port, .mapping = index,
                         .external = host32(n->addresses[m->address]), .external_port = host16(m->port)};
  return PASS;
}

static void nat_close(struct nat *n, struct nat_flow *f) {
  if (f->mapping == 0) return;
  struct mapping *m = &n->mappings[f->mapping];
  if (--m->flows == 0) {
    give_port(n, lane_of(m->address, m->client >> 48 & 1 ? PROTOCOL_UDP : PROTOCOL_TCP, m->port), position_of(n, m->port));
    uint32_t *link = mapping_bucket(n, m->client);
    while (*link != f->mapping) link = &n->mappings[*link].next;
    *link = m->next;
    m->next = n->first_free;
    n->first_free = f->mapping;
  }
  f->mapping = 0;
}

static struct nat make_nat(const uint32_t *pool, uint32_t count, uint32_t first, uint32_t last, uint32_t mappings) {
  struct nat n = {.address_count = count, .first_port = first, .port_count = last - first + 1, .first_free = 1};
  n.addresses = reserve(count * 4);
  memcpy(n.addresses, pool, count * 4);
  n.positions = n.port_count / 2 + 1;
  uint32_t words = (n.positions + 63) / 64;
  n.summary_words = (words + 63) / 64;
  n.lane_words = words + n.summary_words + 1;
  n.ports = reserve(count * 4ull * n.lane_words * 8);
  n.cursors = reserve(count * 4 * 2);
  for (uint32_t address = 0; address < count; address++)
    for (uint32_t port = first; port <= last; port++) {
      give_port(&n, lane_of(address, PROTOCOL_TCP, port), position_of(&n, port));
      give_port(&n, lane_of(address, PROTOCOL_UDP, port), position_of(&n, port));
    }
  n.mappings = reserve((mappings + 1ull) * sizeof(struct mapping));
  for (uint32_t i = 1; i < mappings; i++) n.mappings[i].next = i + 1;
  uint32_t buckets = 64;
  while (buckets < mappings) buckets *= 2;
  n.bucket_mask = buckets - 1;
  n.buckets = reserve(buckets * 4ull);
  return n;
}
