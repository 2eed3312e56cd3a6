// All flows: a bucketed index from hashes to slots, 64-byte records with both keys, free slots, and a timer wheel.
//
//     hash -> bucket of 8 tags and 8 values (one line) -> slot * 2 + direction -> record (one line) and flow state (one line)
#pragma once
#include "memory.h"
#include "packet.h"

enum { NO_SLOT = -1 };
enum phase { OPENING, OPEN, ENDING, CONNECTIONLESS };
enum timeout_class { TCP_TRANSITORY, TCP_ESTABLISHED, UDP };

struct record {
  struct key forward, reverse;
  uint32_t last_seen; // milliseconds
  uint8_t timeout_class, phase;
  bool used, knows_reverse, has_forwarded;
} __attribute__((aligned(64)));

struct bucket {
  uint16_t tags[8]; // 0: empty
  uint32_t values[8];
} __attribute__((aligned(64)));

#define TIMER_SHIFT 7 // positions are 128 ms
#define WHEEL 8192u
#define UNARMED 0xffffffffu

struct flows {
  struct bucket *buckets;
  uint64_t mask;
  struct record *records;
  uint32_t *free_slots, capacity, free_count, hand, seed;
  uint32_t *timer_next, *timer_previous, *wheel;
  uint64_t position;
  uint32_t timeouts[3];
};

// MARK: Index

#if defined(__x86_64__)
#include <nmmintrin.h>
static inline uint64_t hash_key(struct key k, uint32_t seed) {
  return (uint32_t)_mm_crc32_u64(_mm_crc32_u64(seed, k.addresses), k.transport) * 0x9e3779b97f4a7c15ull;
}
#else
static inline uint64_t hash_key(struct key k, uint32_t seed) {
  __uint128_t a = (__uint128_t)(k.addresses ^ seed) * 0x9e3779b97f4a7c15ull;
  __uint128_t b = (__uint128_t)((uint64_t)(a >> 64) ^ (uint64_t)a ^ k.transport) * 0x8ebc6af09c88c6e3ull;
  return (uint64_t)(b >> 64) ^ (uint64_t)b;
}
#endif

static inline uint16_t tag_of(uint64_t hash) {
  uint16_t tag = (uint16_t)(hash >> 48);
  return tag ? tag : 1;
}

static inline uint64_t other_bucket(const struct flows *f, uint64_t bucket, uint16_t tag) {
  return (bucket ^ tag * 0x5bd1e995ull) & f->mask;
}

static inline struct key *key_of(const struct flows *f, uint32_t value) {
  struct record *r = &f->records[value >> 1];
  return value & 1 ? &r->reverse : &r->forward;
}

// Bits 16 * i + 15 of the lanes that equal the tag.
static inline uint64_t matches(const uint16_t *tags, uint16_t tag) {
  uint64_t lanes = load64((const uint8_t *)tags) ^ tag * 0x0001000100010001ull;
  return (lanes - 0x0001000100010001ull) & ~lanes & 0x8000800080008000ull;
}

// The value of an entry with this tag whose key is `key`, or, without a key, of the first one.
HOT int64_t find_in(const struct flows *f, const struct bucket *b, uint16_t tag, const struct key *key) {
  for (int half = 0; half < 2; half++) {
    for (uint64_t hits = matches(b->tags + 4 * half, tag); hits; hits &= hits - 1) {
      uint32_t value = b->values[4 * half + __builtin_ctzll(hits) / 16];
      if (key == NULL || same_key(*key_of(f, value), *key)) return value;
    }
  }
  return NO_SLOT;
}

HOT int64_t find(const struct flows *f, uint64_t hash, const struct key *key) {
  uint16_t tag = tag_of(hash);
  uint64_t first = hash & f->mask;
  int64_t value = find_in(f, &f->buckets[first], tag, key);
  return value >= 0 ? value : find_in(f, &f->buckets[other_bucket(f, first, tag)], tag, key);
}

static inline bool place(struct bucket *b, uint16_t tag, uint32_t value) {
  for (int i = 0; i < 8; i++) {
    if (b->tags[i] == 0) {
      b->tags[i] = tag;
      b->values[i] = value;
      return true;
    }
  }
  return false;
}

static inline void exchange(struct bucket *b, int entry, uint16_t *tag, uint32_t *value) {
  uint16_t old_tag = b->tags[entry];
  uint32_t old_value = b->values[entry];
  b->tags[entry] = *tag;
  b->values[entry] = *value;
  *tag = old_tag;
  *value = old_value;
}

static bool insert(struct flows *f, uint64_t hash, uint32_t value) {
  uint16_t tag = tag_of(hash);
  uint64_t first = hash & f->mask, bucket = first;
  if (place(&f->buckets[first], tag, value) || place(&f->buckets[other_bucket(f, first, tag)], tag, value)) return true;
  struct { uint64_t bucket; int entry; } path[64];
  for (int step = 0; step < 64; step++) {
    int entry = (step + (int)(hash >> 32)) & 7;
    path[step].bucket = bucket;
    path[step].entry = entry;
    exchange(&f->buckets[bucket], entry, &tag, &value);
    bucket = other_bucket(f, bucket, tag);
    if (place(&f->buckets[bucket], tag, value)) return true;
  }
  for (int step = 63; step >= 0; step--) exchange(&f->buckets[path[step].bucket], path[step].entry, &tag, &value);
  return false;
}

static void erase(struct flows *f, uint64_t hash, uint32_t value) {
  uint16_t tag = tag_of(hash);
  uint64_t bucket = hash & f->mask;
  for (int turn = 0; turn < 2; turn++, bucket = other_bucket(f, bucket, tag)) {
    struct bucket *b = &f->buckets[bucket];
    for (int i = 0; i < 8; i++) {
      if (b->tags[i] == tag && b->values[i] == value) {
        b->tags[i] = 0;
        return;
      }
    }
  }
}

// MARK: Timers: one per slot, in lists on a ring

static void arm(struct flows *f, uint32_t slot, uint64_t milliseconds) {
  uint64_t deadline = milliseconds >> TIMER_SHIFT, furthest = f->position + WHEEL - 2;
  if (deadline < f->position) deadline = f->position;
  if (deadline > furthest) deadline = furthest;
  uint32_t place = deadline & (WHEEL - 1), head = f->wheel[place];
  f->timer_next[slot] = head;
  f->timer_previous[slot] = UNARMED - 1 - place;
  if (head != UNARMED) f->timer_previous[head] = slot;
  f->wheel[place] = slot;
}

static void cancel(struct flows *f, uint32_t slot) {
  uint32_t before = f->timer_previous[slot], after = f->timer_next[slot];
  if (before == UNARMED) return;
  if (before < f->capacity) f->timer_next[before] = after;
  else f->wheel[UNARMED - 1 - before] = after;
  if (after != UNARMED) f->timer_previous[after] = before;
  f->timer_next[slot] = f->timer_previous[slot] = UNARMED;
}

static void set_timeout_class(struct flows *f, uint32_t slot, uint8_t class, uint64_t now) {
  struct record *r = &f->records[slot];
  bool is_shorter = f->timeouts[class] < f->timeouts[r->timeout_class];
  r->timeout_class = class;
  if (!is_shorter) return; // lazily: when the present timer fires
  cancel(f, slot);
  arm(f, slot, now - ((uint32_t)now - r->last_seen) + f->timeouts[class]);
}

// MARK: Flows

static int64_t create(struct flows *f, struct key key, uint64_t hash, enum phase phase, uint8_t class, uint64_t now) {
  if (f->free_count == 0) return NO_SLOT;
  uint32_t slot = f->free_slots[--f->free_count];
  if (!insert(f, hash, slot << 1)) {
    f->free_slots[f->free_count++] = slot;
    return NO_SLOT;
  }
  f->records[slot] =
      (struct record){.forward = key, .last_seen = (uint32_t)now, .timeout_class = class, .phase = phase, .used = true};
  arm(f, slot, now + f->timeouts[class]);
  return slot;
}

static void remove_flow(struct flows *f, uint32_t slot) {
  struct record *r = &f->records[slot];
  erase(f, hash_key(r->forward, f->seed), slot << 1);
  if (r->knows_reverse) erase(f, hash_key(r->reverse, f->seed), slot << 1 | 1);
  cancel(f, slot);
  *r = (struct record){.forward.transport = UINT64_MAX, .reverse.transport = UINT64_MAX};
  f->free_slots[f->free_count++] = slot;
}

// A flow to give up: the next of this class that a hand going round the slots meets, within 256.
static int64_t victim(struct flows *f, uint8_t class) {
  for (int step = 0; step < 256 && (uint32_t)step < f->capacity; step++) {
    uint32_t slot = f->hand;
    f->hand = slot + 1 < f->capacity ? slot + 1 : 0;
    if (f->records[slot].used && f->records[slot].timeout_class == class) return slot;
  }
  return NO_SLOT;
}

static struct flows make_flows(uint32_t capacity, const uint32_t timeouts[3], uint64_t now) {
  struct flows f = {.capacity = capacity, .free_count = capacity, .seed = 42, .position = now >> TIMER_SHIFT};
  uint64_t buckets = 16;
  while (buckets * 6 < capacity * 2ull) buckets *= 2;
  f.mask = buckets - 1;
  f.buckets = reserve(buckets * sizeof(struct bucket));
  f.records = reserve(capacity * sizeof(struct record));
  f.free_slots = reserve(capacity * 4ull);
  f.timer_next = reserve(capacity * 4ull);
  f.timer_previous = reserve(capacity * 4ull);
  f.wheel = reserve(WHEEL * 4ull);
  memset(f.wheel, 0xff, WHEEL * 4ull);
  memset(f.timer_next, 0xff, capacity * 4ull);
  memset(f.timer_previous, 0xff, capacity * 4ull);
  for (uint32_t i = 0; i < capacity; i++) f.free_slots[i] = capacity - 1 - i;
  memcpy(f.timeouts, timeouts, sizeof f.timeouts);
  return f;
}
