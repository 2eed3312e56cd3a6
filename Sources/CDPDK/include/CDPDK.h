// What Swift sees of DPDK: one call per burst, no rte_ type. The .c file includes DPDK; this header must not
// (Swift refuses DPDK's 64-byte aligned types, and the pkg-config flags do not reach importers).
#pragma once
#include <stdint.h>

// One received frame: its bytes and the mbuf they live in.
struct nfv_packet {
  void *data;
  void *mbuf;
  uint32_t length;   // bytes in the first segment
  uint32_t segments; // 1 unless the packet did not fit into one buffer
};

struct nfv_port_counters {
  uint64_t missed;
  uint64_t rx_errors;
  uint64_t tx_errors;
};

// Starts the environment abstraction layer on the calling thread, which becomes the worker. argv[0] is the
// program's name. The array and its strings must stay alive. Returns 0 or a negative errno.
int nfv_eal_start(int argc, char **argv);
void nfv_eal_stop(void);

// A pool of `count` mbufs of `data_room` bytes each; NULL when there is no memory.
void *nfv_pool_create(const char *name, uint32_t count, uint32_t cache, uint16_t data_room);

// Hot-plugs the device of a devargs string ("net_af_packet0,iface=veth0") and returns its port id, or a
// negative errno.
int nfv_port_attach(const char *devargs);
// One queue each way, promiscuous. Returns 0 or a negative errno.
int nfv_port_start(uint16_t port, void *pool, uint16_t rx_descriptors, uint16_t tx_descriptors);
void nfv_port_address(uint16_t port, uint8_t address[6]);
void nfv_port_close(uint16_t port);
void nfv_port_read_counters(uint16_t port, struct nfv_port_counters *counters);

uint16_t nfv_receive(uint16_t port, struct nfv_packet *packets, uint16_t count);
// Takes over the first `n` mbufs, n being the result; the others stay the caller's.
uint16_t nfv_transmit(uint16_t port, void **mbufs, uint16_t count);
void nfv_release(void **mbufs, uint16_t count);
// The packet in a single mbuf begins at `data` now, within the same buffer, and has `length` bytes.
void nfv_resize(void *mbuf, const void *data, uint16_t length);
// A new mbuf of `length` zeroed bytes; -1 when the pool is empty or the length does not fit.
int nfv_make(void *pool, uint16_t length, struct nfv_packet *packet);

// As many new mbufs as there are `lengths` (at most 64), with whatever was in them; all or, with -1, none.
int nfv_make_burst(void *pool, const uint16_t *lengths, struct nfv_packet *packets, uint16_t count);

// Zeroed memory from huge pages (or wherever the EAL has its memory); NULL when there is none.
void *nfv_reserve(uint64_t bytes, uint32_t alignment);

// Zeroed memory of this process alone, transparent huge pages if the kernel gives any; NULL when there is none. Beside
// their speed, the kernel takes them back at once from a process that was killed: it ends, and is seen to, much sooner.
void *nfv_reserve_ordinary(uint64_t bytes);

// Binds the calling thread to one processor. Returns 0 or an errno.
int nfv_bind_thread(uint32_t processor);
// Lets short sleeps of the calling thread be short: the kernel's default slack is 50 us.
void nfv_set_timer_slack(uint64_t nanoseconds);

// One line of an access list. Addresses are words in host order, the first most significant; IPv4 uses one. A mask of
// 0 matches everything.
struct nfv_acl_rule {
  uint8_t protocol, protocol_mask;
  uint8_t direction, direction_mask;
  uint8_t source_length, destination_length; // bits
  uint16_t source_ports[2], destination_ports[2]; // lowest, highest
  uint32_t source[4], destination[4];
  uint32_t number; // what a match yields; not 0
};

struct nfv_acl_key {
  uint8_t protocol, direction;
  uint16_t source_port, destination_port;
  uint32_t source[4], destination[4];
};

// Compiles an ordered list, at least one rule; the environment must have been started. May take a second for ten
// thousand rules. Returns 0 or a negative errno.
int nfv_acl_create(const char *name, int is_ipv6, const struct nfv_acl_rule *rules, uint32_t count, void **list);
// The number of the first rule that matches each of at most 64 keys, or 0. Returns 0 or a negative errno.
int nfv_acl_classify(void *list, int is_ipv6, const struct nfv_acl_key *keys, uint32_t count, uint32_t *numbers);
void nfv_acl_free(void *list);

// Puts fragments together (rte_ip_frag): at most `datagrams` at once, each for at most so long and of at most 8 fragments.
// What comes out is copied into one buffer of the pool `wholes`. NULL when there is no memory.
void *nfv_fragments_create(uint32_t datagrams, uint32_t milliseconds, void *wholes);
void nfv_fragments_free(void *fragments);
// Takes over the mbuf of one fragment. Returns 1 and the whole packet, 0 while more is to come, or -1 when the fragment,
// with those it came to, was refused: tiny, overlapping, contradictory, too many, or too long.
int nfv_fragments_add(void *fragments, void *mbuf, struct nfv_packet *packet);
// Copies a packet of several segments into one buffer of `wholes`; takes it over in any case. -1 when it does not fit.
int nfv_flatten(void *wholes, void *mbuf, struct nfv_packet *packet);
// Cuts a whole IP packet into fragments for a link of this MTU, each in a buffer of `pool`; the packet stays the caller's.
// Returns how many there are, at most `most`, or a negative errno, and none.
int nfv_cut(void *mbuf, uint16_t mtu, uint32_t identification, void *pool, void **pieces, uint16_t most);
// Bytes of an IP packet that the port takes in one frame.
uint16_t nfv_port_mtu(uint16_t port);
