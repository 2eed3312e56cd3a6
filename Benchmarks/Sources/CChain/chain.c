// The loop: receive, parse all, look up all, chain, transmit; timers in between. See include/CChain.h for what it is for.
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("sse4.2"))), apply_to = function)
#endif
#include "include/CChain.h"
#include "connection.h"
#include "flow_table.h"
#include "nat.h"

struct balance {
  uint32_t virtual, backend; // network order, as the ports
  uint16_t virtual_port, backend_port, number; // from 1; 0: not balanced yet
};

// What the functions know of a flow: one line.
struct flow {
  struct connection connection;
  struct nat_flow nat;
  struct balance balance;
  uint16_t client_bucket; // where the client's half-open connections are counted
} __attribute__((aligned(64)));

struct cchain {
  struct flows flows;
  struct flow *states;
  struct nat nat;
  struct cchain_settings settings;
  uint32_t *loads; // flows of every backend
  uint64_t allowed, denied;
  uint32_t *half_open, half_open_count; // connections begun and not completed, by client and in all
  struct cchain_counters counters;
  uint64_t next_timers; // milliseconds
  // Packets of this burst whose flows are to be known by the keys of their answers.
  struct packet *learning[CCHAIN_BURST];
  uint32_t learning_count;
  uint32_t (*burst)(struct cchain *, struct cchain_replay *, uint64_t);
  uint8_t client_mac[6], server_mac[6];
};

// MARK: Functions

__attribute__((noinline)) static enum drop_reason admit(struct cchain *c, const struct packet *p) {
  if (p->protocol == PROTOCOL_TCP) {
    enum kind kind = kind_of(p->flags);
    if (kind == MALFORMED) return INVALID_TCP_FLAGS;
    if (kind != SYN || p->direction == REVERSE) return NOT_CONNECTION_START;
  }
  uint32_t source = host32((uint32_t)p->key.addresses), destination = host32((uint32_t)(p->key.addresses >> 32));
  uint16_t port = host16((uint16_t)(p->key.transport >> 16));
  for (uint32_t i = 0; i < c->settings.rule_count; i++) {
    const struct cchain_rule *r = &c->settings.rules[i];
    if ((r->protocol == 0 || r->protocol == p->protocol) && (source & r->from_mask) == r->from &&
        (destination & r->to_mask) == r->to && port >= r->first_port && port <= r->last_port) {
      if (!r->allows) break;
      c->allowed++;
      return PASS;
    }
  }
  c->denied++;
  return DENIED_BY_RULE;
}

static void count_half_open(struct cchain *c, uint16_t bucket, uint32_t change) {
  c->half_open[bucket] += change;
  c->half_open_count += change;
}

// A packet that may change the state of its connection.
__attribute__((noinline)) static enum drop_reason judge(struct cchain *c, struct flow *f, const struct packet *p) {
  if (f->connection.state == NONE) {
    enum drop_reason reason = admit(c, p);
    if (reason != PASS) return reason;
    __uint128_t product = (__uint128_t)(host32((uint32_t)p->key.addresses) ^ 0x9e3779b97f4a7c15ull) * 0xe7037ed1a0b428dbull;
    f->client_bucket = (uint16_t)((uint64_t)(product >> 64) ^ (uint64_t)product);
    if (p->protocol != PROTOCOL_TCP) f->connection.state = ESTABLISHED;
  }
  if (p->protocol != PROTOCOL_TCP) return PASS;
  struct segment s = segment_of(p);
  bool before = is_half_open(&f->connection);
  enum drop_reason reason = change(&f->connection, &s, p);
  bool after = is_half_open(&f->connection);
  if (before != after) count_half_open(c, f->client_bucket, after ? 1 : -1u); // no limit is set
  return reason;
}

static inline enum drop_reason firewall(struct cchain *c, struct flow *f, const struct packet *p) {
  if (__builtin_expect(f->connection.state == ESTABLISHED && p->protocol == PROTOCOL_TCP && kind_of(p->flags) == ACK, 1)) {
    struct segment s = segment_of(p);
    learn(&f->connection, &s, p->direction);
    return PASS;
  }
  return judge(c, f, p);
}

static inline enum drop_reason translate(struct cchain *c, struct flow *f, struct packet *p) {
  if (f->nat.mapping == 0) {
    enum drop_reason reason = nat_open(&c->nat, &f->nat, p);
    if (reason != PASS) return reason;
  }
  if (p->direction == FORWARD) rewrite(p, 0, f->nat.external, f->nat.external_port);
  else rewrite(p, 1, f->nat.client, f->nat.client_port);
  return PASS;
}

__attribute__((noinline)) static enum drop_reason choose(struct cchain *c, struct balance *b, const struct packet *p) {
  uint32_t destination = host32((uint32_t)(p->key.addresses >> 32));
  uint16_t port = host16((uint16_t)(p->key.transport >> 16));
  for (uint32_t i = 0; i < c->settings.service_count; i++) {
    const struct cchain_service *s = &c->settings.services[i];
    if (s->address != destination || s->port != port || s->protocol != p->protocol) continue;
    uint32_t best = UINT32_MAX;
    uint64_t best_load = 0, best_weight = 0;
    for (uint32_t n = s->first_backend; n < s->first_backend + s->backend_count; n++) {
      uint64_t load = c->loads[n] + 1, weight = c->settings.backends[n].weight;
      if (weight == 0 || (best != UINT32_MAX && load * best_weight >= best_load * weight)) continue;
      best = n;
      best_load = load;
      best_weight = weight;
    }
    if (best == UINT32_MAX) return NO_BACKEND;
    const struct cchain_backend *chosen = &c->settings.backends[best];
    *b = (struct balance){.virtual = host32(s->address), .virtual_port = host16(s->port), .number = (uint16_t)(best + 1),
                          .backend = host32(chosen->address), .backend_port = host16(chosen->port)};
    c->loads[best]++;
    return PASS;
  }
  return NO_SERVICE;
}

static inline enum drop_reason balance(struct cchain *c, struct flow *f, struct packet *p) {
  if (f->balance.number == 0) {
    enum drop_reason reason = choose(c, &f->balance, p);
    if (reason != PASS) return reason;
  }
  if (p->direction == FORWARD) rewrite(p, 1, f->balance.backend, f->balance.backend_port);
  else rewrite(p, 0, f->balance.virtual, f->balance.virtual_port);
  return PASS;
}

// MARK: Flows

static void end(struct cchain *c, uint32_t slot) {
  struct flow *f = &c->states[slot];
  if (is_half_open(&f->connection)) count_half_open(c, f->client_bucket, -1u);
  nat_close(&c->nat, &f->nat);
  if (f->balance.number) c->loads[f->balance.number - 1]--;
  f->balance.number = 0;
  remove_flow(&c->flows, slot);
}

static bool learn_reverse(struct cchain *c, uint32_t slot, struct key key, uint64_t hash) {
  if (find(&c->flows, hash, &key) >= 0 || !insert(&c->flows, hash, slot << 1 | 1)) return false;
  c->flows.records[slot].reverse = key;
  c->flows.records[slot].knows_reverse = true;
  return true;
}

// The packet has passed the chain: asks for where the key of its answers belongs, and leaves the rest for later.
static inline void learn_later(struct cchain *c, uint32_t slot, struct packet *p) {
  p->candidate = slot;
  p->hash = hash_key(reversed(p->key), c->flows.seed); // its own has served its purpose
  __builtin_prefetch(first_bucket(&c->flows, p->hash), 1, 3);
  c->learning[c->learning_count++] = p;
}

static void learn_now(struct cchain *c) {
  for (uint32_t i = 0; i < c->learning_count; i++) {
    struct packet *p = c->learning[i];
    const struct record *r = &c->flows.records[p->candidate];
    if (!r->used || r->knows_reverse || learn_reverse(c, p->candidate, reversed(p->key), p->hash)) continue;
    p->reason = KEY_TAKEN;
    end(c, p->candidate);
  }
  c->learning_count = 0;
}

// A new flow for the packet, or NO_SLOT with the reason in it.
static int64_t open_flow(struct cchain *c, struct packet *p, uint64_t now) {
  bool is_start = (p->flags & (FLAG_SYN | FLAG_ACK | FLAG_RST | FLAG_FIN)) == FLAG_SYN;
  p->reason = !p->client_side ? NO_FLOW : p->protocol == PROTOCOL_TCP && !is_start ? NOT_CONNECTION_START : PASS;
  if (p->reason != PASS) return NO_SLOT;
  enum phase phase = p->protocol == PROTOCOL_TCP ? OPENING : CONNECTIONLESS;
  uint8_t class = p->protocol == PROTOCOL_TCP ? TCP_TRANSITORY : UDP;
  int64_t slot = create(&c->flows, p->key, p->hash, phase, class, now);
  if (slot < 0) {
    learn_now(c); // a slot must not change hands meanwhile
    int64_t evicted = victim(&c->flows, TCP_TRANSITORY);
    if (evicted >= 0) {
      c->counters.flows_evicted++;
      end(c, (uint32_t)evicted);
      slot = create(&c->flows, p->key, p->hash, phase, class, now);
    }
  }
  if (slot < 0) {
    c->counters.flows_refused++;
    p->reason = TABLE_FULL;
    return NO_SLOT;
  }
  c->counters.flows_created++;
  c->states[slot] = (struct flow){0};
  return slot;
}

// How far the conversation has come (RFC 5382 REQ-5), for idle timeouts only.
HOT void follow(struct cchain *c, uint32_t slot, const struct packet *p, uint64_t now) {
  struct record *r = &c->flows.records[slot];
  if (r->phase == CONNECTIONLESS) return;
  uint8_t phase = r->phase;
  if (p->flags & (FLAG_FIN | FLAG_RST)) phase = ENDING;
  else if (p->flags & FLAG_SYN && phase == ENDING && p->direction == FORWARD) phase = OPENING;
  else if (phase == OPENING && p->direction == REVERSE && p->flags & FLAG_ACK) phase = OPEN;
  if (phase == r->phase) return;
  r->phase = phase;
  set_timeout_class(&c->flows, slot, phase == OPEN ? TCP_ESTABLISHED : TCP_TRANSITORY, now);
}

// MARK: One packet, when everything it needs has been asked for

HOT enum drop_reason run(
    struct cchain *c, struct flow *f, struct packet *p, bool has_firewall, bool has_nat, bool has_balancer) {
  enum drop_reason reason = PASS;
  if (p->direction == FORWARD) {
    if (has_firewall) reason = firewall(c, f, p);
    if (has_nat && reason == PASS) reason = translate(c, f, p);
    if (has_balancer && reason == PASS) reason = balance(c, f, p);
  } else {
    if (has_balancer) reason = balance(c, f, p);
    if (has_nat && reason == PASS) reason = translate(c, f, p);
    if (has_firewall && reason == PASS) reason = firewall(c, f, p);
  }
  return reason;
}

HOT void process(
    struct cchain *c, struct packet *p, uint64_t now, bool has_firewall, bool has_nat, bool has_balancer) {
  struct flows *flows = &c->flows;
  int64_t value = p->candidate;
  if (p->candidate == UINT32_MAX || !same_key(*key_of(flows, p->candidate), p->key)) {
    value = find(flows, p->hash, &p->key);
    if (value < 0 && !p->client_side && c->learning_count) { // an answer to a packet of this burst
      learn_now(c);
      value = find(flows, p->hash, &p->key);
    }
    if (value < 0) {
      value = open_flow(c, p, now);
      if (value < 0) return;
      value <<= 1;
    }
  }
  uint32_t slot = (uint32_t)value >> 1;
  struct record *r = &flows->records[slot];
  p->direction = value & 1;
  if (p->client_side != (p->direction == FORWARD)) {
    p->reason = NO_FLOW;
    return;
  }
  r->last_seen = (uint32_t)now;
  p->reason = run(c, &c->states[slot], p, has_firewall, has_nat, has_balancer);
  if (p->reason != PASS) {
    if (!r->has_forwarded) end(c, slot);
    return;
  }
  follow(c, slot, p, now);
  r->has_forwarded = true;
  if (!r->knows_reverse && p->direction == FORWARD) learn_later(c, slot, p);
}

// MARK: The burst

HOT uint32_t receive(struct cchain_replay *port, uint8_t **buffers) {
  uint32_t count = port->remaining < CCHAIN_BURST ? (uint32_t)port->remaining : CCHAIN_BURST;
  for (uint32_t i = 0; i < count; i++) {
    buffers[i] = port->buffers + i * CCHAIN_BUFFER_STRIDE + 128;
    memcpy(buffers[i], port->frames + port->next * port->stride, port->stride);
    if (++port->next == port->count) port->next = 0;
  }
  port->remaining -= count;
  return count;
}

static inline void transmit(struct cchain_replay *port, const uint8_t *bytes) {
  port->transmitted++;
  if (port->captured == NULL) return;
  memcpy(port->captured, bytes, port->length);
  port->captured += port->length;
}

static inline void exchange_addresses(uint8_t *bytes) {
  uint8_t own[6];
  memcpy(own, bytes, 6);
  memcpy(bytes, bytes + 6, 6);
  memcpy(bytes + 6, own, 6);
  bytes[5] ^= 3;
  bytes[11] ^= 3;
}

static inline enum drop_reason check_link(const struct cchain *c, struct packet *p) {
  if (p->length < 14) return NOT_FOR_US;
  p->client_side = memcmp(p->bytes, c->client_mac, 6) == 0;
  if (!p->client_side && memcmp(p->bytes, c->server_mac, 6) != 0) return NOT_FOR_US;
  // The sender is a node of the same cluster, in a role that carries packets.
  bool is_peer = memcmp(p->bytes + 6, c->client_mac, 3) == 0 && p->bytes[11] - 1u < 2;
  return is_peer ? PASS : UNKNOWN_SOURCE;
}

HOT uint32_t burst(
    struct cchain *c, struct cchain_replay *port, uint64_t now, bool has_firewall, bool has_nat, bool has_balancer) {
  struct packet packets[CCHAIN_BURST];
  uint8_t *buffers[CCHAIN_BURST];
  struct flows *flows = &c->flows;
  struct cchain_counters *counters = &c->counters;
  uint32_t count = receive(port, buffers), strangers = 0;
  // Eight are parsed, then the eight before them are looked up.
  for (uint32_t some = 0; some < count + 8; some += 8) {
    for (uint32_t i = some; i < some + 8 && i < count; i++) {
      struct packet *p = &packets[i];
      p->bytes = buffers[i];
      p->length = port->length;
      p->reason = check_link(c, p);
      if (p->reason == PASS) p->reason = parse(p);
      if (p->reason != PASS) continue;
      p->hash = hash_key(p->key, flows->seed);
      __builtin_prefetch(first_bucket(flows, p->hash), 1, 3);
    }
    for (uint32_t i = some < 8 ? count : some - 8; i < some && i < count; i++) {
      struct packet *p = &packets[i];
      if (p->reason != PASS) continue;
      int64_t value = find(flows, p->hash, NULL);
      p->candidate = (uint32_t)value;
      if (value < 0) {
        if (has_nat && p->client_side) foresee_open(&c->nat, p);
        int64_t vacancy = foresee_vacancy(flows, strangers++);
        if (vacancy >= 0) __builtin_prefetch(&c->states[vacancy], 1, 3);
        continue;
      }
      __builtin_prefetch(&flows->records[value >> 1], 1, 3);
      __builtin_prefetch(&c->states[value >> 1], 1, 3);
    }
  }
  for (uint32_t i = 0; i < count; i++)
    if (packets[i].reason == PASS) process(c, &packets[i], now, has_firewall, has_nat, has_balancer);
  learn_now(c);
  uint64_t forwarded = 0, forwarded_bytes = 0, received_bytes = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct packet *p = &packets[i];
    received_bytes += p->length;
    if (p->reason != PASS) {
      counters->dropped++;
      counters->drops[p->reason]++;
      continue;
    }
    exchange_addresses(p->bytes);
    transmit(port, p->bytes);
    forwarded++;
    forwarded_bytes += p->length;
  }
  counters->received += count;
  counters->received_bytes += received_bytes;
  counters->forwarded += forwarded;
  counters->forwarded_bytes += forwarded_bytes;
  return count;
}

// One loop per chain, so that no packet pays for a function that is not there.
#define CHAIN(name, firewall, nat, balancer)                                                          \
  static uint32_t name(struct cchain *c, struct cchain_replay *port, uint64_t now) {                   \
    return burst(c, port, now, firewall, nat, balancer);                                               \
  }
CHAIN(burst_firewall, true, false, false)
CHAIN(burst_nat, false, true, false)
CHAIN(burst_balancer, false, false, true)
CHAIN(burst_firewall_nat, true, true, false)
CHAIN(burst_all, true, true, true)

// MARK: Time

// First which timers are due, then whether their flows are idle, then the end of those that are: memory is asked for meanwhile.
static uint32_t expire(struct cchain *c, uint64_t now) {
  struct flows *f = &c->flows;
  uint64_t target = now >> TIMER_SHIFT;
  uint32_t due[64], fired = 0, idle = 0;
  for (; f->position <= target && fired < 64; ) {
    uint32_t slot = f->wheel[f->position & (WHEEL - 1)];
    if (slot == UNARMED) {
      f->position++;
      continue;
    }
    cancel(f, slot);
    due[fired++] = slot;
    __builtin_prefetch(&f->records[slot], 1, 3);
    __builtin_prefetch(&c->states[slot], 1, 3);
  }
  for (uint32_t i = 0; i < fired; i++) {
    struct record *r = &f->records[due[i]];
    uint32_t unused = (uint32_t)now - r->last_seen, timeout = f->timeouts[r->timeout_class];
    if (unused < timeout) {
      uint64_t deadline = now + timeout - unused, next = (target + 1) << TIMER_SHIFT;
      arm(f, due[i], deadline > next ? deadline : next);
      continue;
    }
    __builtin_prefetch(first_bucket(f, hash_key(r->forward, f->seed)), 1, 3);
    __builtin_prefetch(first_bucket(f, hash_key(r->reverse, f->seed)), 1, 3);
    if (c->settings.nat) foresee_close(&c->nat, &c->states[due[i]].nat, &r->forward);
    due[idle++] = due[i];
  }
  for (uint32_t i = 0; i < idle; i++) end(c, due[i]);
  c->counters.flows_expired += idle;
  return fired;
}

uint32_t cchain_pass(struct cchain *c, struct cchain_replay *port, uint64_t now_nanoseconds) {
  uint64_t now = now_nanoseconds / 1000000;
  uint32_t count = c->burst(c, port, now);
  if (now >= c->next_timers) {
    if (expire(c, now) < 64) c->next_timers = now + 16;
    c->counters.active_flows = c->flows.capacity - c->flows.free_count;
  }
  return count;
}

// MARK: Making

static void *copy(const void *array, size_t bytes) {
  void *memory = reserve(bytes);
  return bytes ? memcpy(memory, array, bytes) : memory;
}

static void write_mac(uint8_t *bytes, uint64_t value) {
  for (int i = 0; i < 6; i++) bytes[i] = (uint8_t)(value >> (40 - 8 * i));
}

struct cchain *cchain_make(const struct cchain_settings *settings, uint64_t now_nanoseconds) {
  struct cchain *c = reserve(sizeof *c);
  struct cchain_settings *s = &c->settings;
  *s = *settings;
  s->rules = copy(s->rules, s->rule_count * sizeof *s->rules);
  s->services = copy(s->services, s->service_count * sizeof *s->services);
  s->backends = copy(s->backends, s->backend_count * sizeof *s->backends);
  c->flows = make_flows((uint32_t)s->capacity, s->timeouts, now_nanoseconds / 1000000);
  c->states = reserve(s->capacity * sizeof *c->states);
  c->loads = reserve((s->backend_count + 1) * sizeof *c->loads);
  c->half_open = reserve(65536 * sizeof *c->half_open);
  if (s->nat) c->nat = make_nat(s->pool, s->pool_count, s->first_port, s->last_port, s->mappings);
  write_mac(c->client_mac, s->client_mac);
  write_mac(c->server_mac, s->server_mac);
  c->burst = s->firewall && s->nat && s->balancer ? burst_all
             : s->firewall && s->nat              ? burst_firewall_nat
             : s->firewall                        ? burst_firewall
             : s->nat                             ? burst_nat
                                                  : burst_balancer;
  return c;
}

void cchain_free(struct cchain *c) {
  struct flows *f = &c->flows;
  void *all[] = {f->buckets, f->records, f->free_slots, f->timers, f->wheel, c->half_open,
                 c->states, c->loads, c->nat.addresses, c->nat.ports, c->nat.cursors, c->nat.mappings, c->nat.buckets,
                 (void *)c->settings.rules, (void *)c->settings.services, (void *)c->settings.backends, c};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

struct cchain_counters cchain_read(const struct cchain *c) { return c->counters; }

uint32_t cchain_bounce(struct cchain_replay *port) {
  uint8_t *buffers[CCHAIN_BURST];
  uint32_t count = receive(port, buffers);
  for (uint32_t i = 0; i < count; i++) transmit(port, buffers[i]);
  return count;
}
#if defined(__x86_64__)
#pragma clang attribute pop
#endif
