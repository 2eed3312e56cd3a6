// All flows: a bucketed index from hashes to slots, 64-byte records with both keys, free slots, and a timer wheel.
//
//     hash -> bucket of 10 tags and 10 values (one line) -> slot * 2 + direction -> record (one line) and flow state (one line)
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

enum { ENTRIES = 10 };
struct bucket {
  uint16_t tags[ENTRIES]; // 0: empty
  uint32_t values[ENTRIES];
  uint16_t away, guests; // entries that stand in their second bucket; which of these here do
} __attribute__((aligned(64)));

struct timer { uint32_t next, previous; };

#define TIMER_SHIFT 7 // positions are 128 ms
#define WHEEL 8192u
#define UNARMED 0xffffffffu

struct flows {
  struct bucket *buckets;
  uint64_t bucket_count;
  struct record *records;
  uint32_t *free_slots, capacity, free_count, hand, seed;
  struct timer *timers;
  uint32_t *wheel;
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

static inline struct bucket *first_bucket(const struct flows *f, uint64_t hash) {
  return &f->buckets[(uint32_t)hash * f->bucket_count >> 32];
}

// The two buckets of an entry add up to a number that its tag gives, modulo their count.
static inline struct bucket *other_bucket(const struct flows *f, const struct bucket *bucket, uint16_t tag) {
  uint64_t sum = (uint32_t)(tag * 0x5bd1e995u) * f->bucket_count >> 32, number = (uint64_t)(bucket - f->buckets);
  return &f->buckets[sum >= number ? sum - number : sum + f->bucket_count - number];
}

static inline struct key *key_of(const struct flows *f, uint32_t value) {
  struct record *r = &f->records[value >> 1];
  return value & 1 ? &r->reverse : &r->forward;
}

// Bits of the entries whose tags equal `tag`.
HOT uint32_t matches(const struct bucket *b, uint16_t tag) {
#if defined(__x86_64__)
  __m128i wanted = _mm_set1_epi16((short)tag);
  __m128i first = _mm_cmpeq_epi16(*(const __m128i *)b->tags, wanted);
  __m128i last = _mm_cmpeq_epi16(_mm_cvtsi32_si128((int)load32((const uint8_t *)(b->tags + 8))), wanted);
  return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(first, last)) & 0x3ff;
#else
  uint32_t bits = 0;
  for (int i = 0; i < ENTRIES; i++) bits |= (uint32_t)(b->tags[i] == tag) << i;
  return bits;
#endif
}

// The value of an entry with this tag whose key is `key`, or, without a key, of the first one.
HOT int64_t find_in(const struct flows *f, const struct bucket *b, uint16_t tag, const struct key *key) {
  for (uint32_t hits = matches(b, tag); hits; hits &= hits - 1) {
    uint32_t value = b->values[__builtin_ctz(hits)];
    if (key == NULL || same_key(*key_of(f, value), *key)) return value;
  }
  return NO_SLOT;
}

HOT int64_t find(const struct flows *f, uint64_t hash, const struct key *key) {
  uint16_t tag = tag_of(hash);
  struct bucket *first = first_bucket(f, hash);
  int64_t value = find_in(f, first, tag, key);
  return value >= 0 || first->away == 0 ? value : find_in(f, other_bucket(f, first, tag), tag, key);
}

struct entry {
  uint16_t tag;
  uint32_t value;
  bool is_guest;
};

static inline void write_entry(struct bucket *b, int i, struct entry e) {
  b->tags[i] = e.tag;
  b->values[i] = e.value;
  b->guests = (uint16_t)(e.is_guest ? b->guests | 1 << i : b->guests & ~(1 << i));
}

static inline bool place(struct bucket *b, struct entry e) {
  uint32_t free = matches(b, 0);
  if (free == 0) return false;
  write_entry(b, __builtin_ctz(free), e);
  return true;
}

// Writes an entry over another, which is on its way to its other bucket then: as a guest, or back home.
static struct bucket *exchange(const struct flows *f, struct bucket *b, int i, struct entry *e) {
  struct entry old = {b->tags[i], b->values[i], b->guests >> i & 1};
  write_entry(b, i, *e);
  struct bucket *other = other_bucket(f, b, old.tag);
  if (old.is_guest) other->away--;
  else b->away++;
  old.is_guest = !old.is_guest;
  *e = old;
  return other;
}

__attribute__((noinline)) static bool displace(struct flows *f, struct bucket *b, struct entry e, int chooser) {
  struct { struct bucket *bucket; int entry; } path[64];
  for (int step = 0; step < 64; step++) {
    path[step].bucket = b;
    path[step].entry = (step + chooser) % ENTRIES;
    b = exchange(f, b, path[step].entry, &e);
    if (place(b, e)) return true;
  }
  for (int step = 63; step >= 0; step--) { // backwards: everything stands where it stood
    struct bucket *old = path[step].bucket;
    int i = path[step].entry;
    struct entry replacement = {old->tags[i], old->values[i], old->guests >> i & 1};
    e.is_guest = !e.is_guest;
    if (e.is_guest) other_bucket(f, old, e.tag)->away++;
    else old->away--;
    write_entry(old, i, e);
    e = replacement;
  }
  return false;
}

static bool insert(struct flows *f, uint64_t hash, uint32_t value) {
  struct entry e = {tag_of(hash), value, false};
  struct bucket *first = first_bucket(f, hash);
  if (place(first, e)) return true;
  if (place(other_bucket(f, first, e.tag), (struct entry){e.tag, value, true})) {
    first->away++;
    return true;
  }
  return displace(f, first, e, (int)(hash >> 32 & 7));
}

static inline bool clear(struct flows *f, struct bucket *b, uint16_t tag, uint32_t value) {
  for (uint32_t hits = matches(b, tag); hits; hits &= hits - 1) {
    int i = __builtin_ctz(hits);
    if (b->values[i] != value) continue;
    if (b->guests >> i & 1) other_bucket(f, b, tag)->away--;
    b->tags[i] = 0;
    return true;
  }
  return false;
}

static void erase(struct flows *f, uint64_t hash, uint32_t value) {
  uint16_t tag = tag_of(hash);
  struct bucket *first = first_bucket(f, hash);
  if (!clear(f, first, tag, value)) clear(f, other_bucket(f, first, tag), tag, value);
}

// MARK: Timers: one per slot, in lists on a ring

static void arm(struct flows *f, uint32_t slot, uint64_t milliseconds) {
  uint64_t deadline = milliseconds >> TIMER_SHIFT, furthest = f->position + WHEEL - 2;
  if (deadline < f->position) deadline = f->position;
  if (deadline > furthest) deadline = furthest;
  uint32_t place = deadline & (WHEEL - 1), head = f->wheel[place];
  f->timers[slot] = (struct timer){head, UNARMED - 1 - place};
  if (head != UNARMED) f->timers[head].previous = slot;
  f->wheel[place] = slot;
}

static void cancel(struct flows *f, uint32_t slot) {
  uint32_t before = f->timers[slot].previous, after = f->timers[slot].next;
  if (before == UNARMED) return;
  if (before < f->capacity) f->timers[before].next = after;
  else f->wheel[UNARMED - 1 - before] = after;
  if (after != UNARMED) f->timers[after].previous = before;
  f->timers[slot] = (struct timer){UNARMED, UNARMED};
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

// Asks for what a new flow will need that is made after `ahead` others.
static inline int64_t foresee_vacancy(const struct flows *f, uint32_t ahead) {
  if (ahead >= f->free_count) return NO_SLOT;
  uint32_t slot = f->free_slots[f->free_count - 1 - ahead];
  __builtin_prefetch(&f->records[slot], 1, 3);
  __builtin_prefetch(&f->timers[slot], 1, 3);
  return slot;
}

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
  f.bucket_count = (capacity * 10ull + 31) / 32; // 6.4 of ten entries at most
  if (f.bucket_count < 16) f.bucket_count = 16;
  f.buckets = reserve(f.bucket_count * sizeof(struct bucket));
  f.records = reserve(capacity * sizeof(struct record));
  f.free_slots = reserve(capacity * 4ull);
  f.timers = reserve(capacity * sizeof(struct timer));
  f.wheel = reserve(WHEEL * 4ull);
  memset(f.wheel, 0xff, WHEEL * 4ull);
  memset(f.timers, 0xff, capacity * sizeof(struct timer));
  for (uint32_t i = 0; i < capacity; i++) f.free_slots[i] = capacity - 1 - i;
  memcpy(f.timeouts, timeouts, sizeof f.timeouts);
  return f;
}
