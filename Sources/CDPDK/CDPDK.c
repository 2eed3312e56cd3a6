#define _GNU_SOURCE
#pragma clang attribute push(__attribute__((target("ssse3,sse4.1,sse4.2"))), apply_to = function)
#include "CDPDK.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>

int nfv_eal_start(int argc, char **argv) {
  int used = rte_eal_init(argc, argv);
  // It is the process's: whoever asks for it again has the one there is.
  if (used < 0 && rte_errno == EALREADY) return 0;
  return used < 0 ? -rte_errno : 0;
}

void nfv_eal_stop(void) { rte_eal_cleanup(); }

void *nfv_pool_create(const char *name, uint32_t count, uint32_t cache, uint16_t data_room) {
  return rte_pktmbuf_pool_create(name, count, cache, 0, data_room + RTE_PKTMBUF_HEADROOM, rte_socket_id());
}

int nfv_port_attach(const char *devargs) {
  struct rte_dev_iterator iterator;
  // A virtio-user server waits in accept() until its peer connects: a request to end must get through.
  siginterrupt(SIGTERM, 1);
  siginterrupt(SIGINT, 1);
  int result = rte_dev_probe(devargs);
  siginterrupt(SIGTERM, 0);
  siginterrupt(SIGINT, 0);
  if (result < 0) return result;
  uint16_t port, found = RTE_MAX_ETHPORTS;
  RTE_ETH_FOREACH_MATCHING_DEV(port, devargs, &iterator) {
    found = port;
    rte_eth_iterator_cleanup(&iterator);
    break;
  }
  return found == RTE_MAX_ETHPORTS ? -ENODEV : found;
}

// Of each af_packet port its socket, or -1, and the frames for which the kernel found no room in the socket's ring.
static int packet_sockets[RTE_MAX_ETHPORTS];
static uint64_t packet_drops[RTE_MAX_ETHPORTS];

// DPDK's af_packet driver does not ask the kernel what it dropped, and tells nobody its socket: it is the one of
// this process that is bound to the port's interface (packet(7)). -1 for other drivers.
static int find_packet_socket(uint16_t port) {
  struct rte_eth_dev_info info;
  if (rte_eth_dev_info_get(port, &info) != 0 || strcmp(info.driver_name, "net_af_packet") != 0) return -1;
  for (int file = 3; file < 1024; file++) {
    struct sockaddr_ll address;
    socklen_t length = sizeof address;
    memset(&address, 0, sizeof address);
    if (getsockname(file, (struct sockaddr *)&address, &length) == 0 && address.sll_family == AF_PACKET &&
        (unsigned)address.sll_ifindex == info.if_index)
      return file;
  }
  return -1;
}

int nfv_port_start(uint16_t port, void *pool, uint16_t rx_descriptors, uint16_t tx_descriptors) {
  struct rte_eth_conf conf;
  memset(&conf, 0, sizeof conf);
  int result = rte_eth_dev_configure(port, 1, 1, &conf);
  if (result < 0) return result;
  if ((result = rte_eth_dev_adjust_nb_rx_tx_desc(port, &rx_descriptors, &tx_descriptors)) < 0) return result;
  int socket = rte_eth_dev_socket_id(port);
  if ((result = rte_eth_rx_queue_setup(port, 0, rx_descriptors, socket, NULL, pool)) < 0) return result;
  if ((result = rte_eth_tx_queue_setup(port, 0, tx_descriptors, socket, NULL)) < 0) return result;
  if ((result = rte_eth_dev_start(port)) < 0) return result;
  rte_eth_promiscuous_enable(port); // not every device can; those that cannot pass everything
  packet_sockets[port] = find_packet_socket(port);
  packet_drops[port] = 0;
  return 0;
}

void nfv_port_address(uint16_t port, uint8_t address[6]) {
  struct rte_ether_addr value;
  memset(&value, 0, sizeof value);
  rte_eth_macaddr_get(port, &value);
  memcpy(address, value.addr_bytes, 6);
}

uint16_t nfv_port_mtu(uint16_t port) {
  uint16_t mtu = RTE_ETHER_MTU;
  rte_eth_dev_get_mtu(port, &mtu);
  return mtu;
}

void nfv_port_close(uint16_t port) {
  packet_sockets[port] = -1;
  rte_eth_dev_stop(port);
  rte_eth_dev_close(port);
}

void nfv_port_read_counters(uint16_t port, struct nfv_port_counters *counters) {
  struct rte_eth_stats stats;
  memset(counters, 0, sizeof *counters);
  if (rte_eth_stats_get(port, &stats) != 0) return;
  if (packet_sockets[port] >= 0) {
    struct tpacket_stats since; // what the kernel counted since it was asked last
    socklen_t length = sizeof since;
    if (getsockopt(packet_sockets[port], SOL_PACKET, PACKET_STATISTICS, &since, &length) == 0)
      packet_drops[port] += since.tp_drops;
  }
  counters->missed = stats.imissed + stats.rx_nombuf + (packet_sockets[port] >= 0 ? packet_drops[port] : 0);
  counters->rx_errors = stats.ierrors;
  counters->tx_errors = stats.oerrors;
}

uint16_t nfv_receive(uint16_t port, struct nfv_packet *packets, uint16_t count) {
  struct rte_mbuf *mbufs[64];
  if (count > 64) count = 64;
  uint16_t received = rte_eth_rx_burst(port, 0, mbufs, count);
  for (uint16_t i = 0; i < received; i++) {
    struct rte_mbuf *m = mbufs[i];
    void *data = rte_pktmbuf_mtod(m, void *);
    __builtin_prefetch(data, 1, 3);
    packets[i] = (struct nfv_packet){data, m, m->data_len, m->nb_segs};
  }
  return received;
}

uint16_t nfv_transmit(uint16_t port, void **mbufs, uint16_t count) {
  return rte_eth_tx_burst(port, 0, (struct rte_mbuf **)mbufs, count);
}

void nfv_release(void **mbufs, uint16_t count) { rte_pktmbuf_free_bulk((struct rte_mbuf **)mbufs, count); }

void nfv_resize(void *mbuf, const void *data, uint16_t length) {
  struct rte_mbuf *m = mbuf;
  m->data_off = (uint16_t)((const char *)data - (const char *)m->buf_addr);
  m->data_len = length;
  m->pkt_len = length;
}

int nfv_make(void *pool, uint16_t length, struct nfv_packet *packet) {
  struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
  if (m == NULL) return -1;
  char *data = rte_pktmbuf_append(m, length);
  if (data == NULL) {
    rte_pktmbuf_free(m);
    return -1;
  }
  memset(data, 0, length);
  *packet = (struct nfv_packet){data, m, length, 1};
  return 0;
}

int nfv_make_burst(void *pool, const uint16_t *lengths, struct nfv_packet *packets, uint16_t count) {
  struct rte_mbuf *mbufs[64];
  if (count > 64 || rte_pktmbuf_alloc_bulk(pool, mbufs, count) != 0) return -1;
  for (uint16_t i = 0; i < count; i++) {
    char *data = rte_pktmbuf_append(mbufs[i], lengths[i]);
    if (data == NULL) {
      rte_pktmbuf_free_bulk(mbufs, count);
      return -1;
    }
    packets[i] = (struct nfv_packet){data, mbufs[i], lengths[i], 1};
  }
  return 0;
}

void *nfv_reserve(uint64_t bytes, uint32_t alignment) { return rte_zmalloc(NULL, bytes, alignment); }

void *nfv_reserve_ordinary(uint64_t bytes) {
  const uint64_t large = 2u << 20;
  if (bytes > UINT64_MAX / 2) return NULL;
  uint64_t size = (bytes + large - 1) & ~(large - 1);
  uint8_t *memory = mmap(NULL, size + large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return NULL;
  uint64_t before = (large - (uintptr_t)memory % large) % large;
  if (before > 0) munmap(memory, before);
  munmap(memory + before + size, large - before);
  // Neither has to succeed: without them the pages are small, and come when they are first touched.
  madvise(memory + before, size, MADV_HUGEPAGE);
  madvise(memory + before, size, MADV_POPULATE_WRITE);
  return memory + before;
}

int nfv_bind_thread(uint32_t processor) {
  cpu_set_t set;
  if (processor >= CPU_SETSIZE) return EINVAL;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  return pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

void nfv_set_timer_slack(uint64_t nanoseconds) { prctl(PR_SET_TIMERSLACK, (unsigned long)nanoseconds, 0, 0, 0); }
#pragma clang attribute pop
