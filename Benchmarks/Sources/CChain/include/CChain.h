// The yardstick: firewall -> NAT -> load balancer as a C programmer would write it by hand, to be measured beside the
// worker that ships, on the same frames, in the same run.
//
// It does what the worker does for IPv4 TCP and UDP: parses with every length checked, verifies both checksums over the
// whole packet, finds flows of both directions in the same kind of table (cache-line buckets of ten tagged entries, two
// per key), keeps the same 64-byte records, tracks TCP connections with states, windows and resets (RFC 9293, 5961, 7323),
// counts those that are half open by client, asks the rules once per flow, allocates NAT ports by the same rules (RFC 4787), balances by load, rewrites with
// incremental checksums (RFC 1624), keeps lazy idle timers on a wheel, evicts when full, and counts packets, bytes, flows
// and drops by reason. Batches go through the same stages with the same prefetches. What leaves is the same, byte for byte:
// the benchmark compares.
//
// What it does not do, and the worker does: IPv6, ICMP, chains other than these, flows that move to other runtimes, a hash
// that strangers cannot aim at (a CRC is linear), leaps of time, a control thread that reads the counters.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define CCHAIN_BURST 32

// Memory in the place of a NIC: prepared frames, given out as copies again and again. Both loops receive from it.
struct cchain_replay {
  uint8_t *frames;
  uint64_t count;      // prepared frames
  uint64_t next;       // the one that arrives next
  uint64_t remaining;  // to arrive before the port falls silent
  uint32_t length;     // bytes of every frame
  uint32_t stride;     // bytes from frame to frame, whole cache lines
  uint8_t *buffers;    // where copies are put
  uint64_t transmitted;
  uint8_t *captured;   // if not NULL: transmitted frames are copied to here, one after the other
};

// As far apart as mbufs are, so that a burst does not crowd into two sets of the cache.
#define CCHAIN_BUFFER_STRIDE 2304

struct cchain_rule {
  bool allows;
  uint8_t protocol; // 0: any
  uint32_t from, from_mask, to, to_mask;
  uint16_t first_port, last_port; // destination
};

struct cchain_backend {
  uint32_t address;
  uint16_t port, weight;
};

struct cchain_service {
  uint32_t address;
  uint16_t port;
  uint8_t protocol;
  uint32_t first_backend, backend_count;
};

// Numbers in host order; the arrays are copied.
struct cchain_settings {
  bool firewall, nat, balancer;
  uint64_t capacity;
  uint32_t timeouts[3]; // milliseconds: TCP transitory, TCP established, UDP
  uint64_t client_mac, server_mac;
  const struct cchain_rule *rules;
  uint32_t rule_count;
  const uint32_t *pool;
  uint32_t pool_count, mappings;
  uint16_t first_port, last_port;
  const struct cchain_service *services;
  uint32_t service_count;
  const struct cchain_backend *backends;
  uint32_t backend_count;
};

struct cchain_counters {
  uint64_t received, received_bytes, forwarded, forwarded_bytes, dropped;
  uint64_t flows_created, flows_expired, flows_evicted, flows_refused, active_flows;
  uint64_t drops[32]; // by reason
};

struct cchain;
struct cchain *cchain_make(const struct cchain_settings *settings, uint64_t now_nanoseconds);
void cchain_free(struct cchain *chain);
// Receives a burst, processes and transmits it, looks at the timers when it is time; returns the frames received.
uint32_t cchain_pass(struct cchain *chain, struct cchain_replay *port, uint64_t now_nanoseconds);
struct cchain_counters cchain_read(const struct cchain *chain);

// Receiving and transmitting alone.
uint32_t cchain_bounce(struct cchain_replay *port);
