// Datagrams put together from fragments (rte_ip_frag) and cut into fragments again.
#pragma clang attribute push(__attribute__((target("ssse3,sse4.1,sse4.2"))), apply_to = function)
#include "CDPDK.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <rte_byteorder.h>
#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_ip_frag.h>
#include <rte_mbuf.h>

enum { IPV6_FRAGMENT = 44, FRAGMENT_HEADER = 8, TCP = 6 };

struct fragments {
  struct rte_ip_frag_tbl *table;
  struct rte_ip_frag_death_row discarded;
  struct rte_mempool *wholes;
};

// Where the IP header begins, behind at most two VLAN tags; 0 when there is none.
static uint16_t network_offset(const uint8_t *bytes, uint32_t length, int *is_ipv6) {
  uint16_t offset = 12;
  for (int tags = 0; tags <= 2 && offset + 2u <= length; tags++, offset += 4) {
    uint16_t type = (uint16_t)(bytes[offset] << 8 | bytes[offset + 1]);
    if (type == 0x8100 || type == 0x88a8 || type == 0x9100) continue;
    *is_ipv6 = type == 0x86dd;
    uint32_t header = type == 0x0800 ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr) + FRAGMENT_HEADER;
    return (type == 0x0800 || type == 0x86dd) && offset + 2u + header <= length ? offset + 2 : 0;
  }
  return 0;
}

void *nfv_fragments_create(uint32_t datagrams, uint32_t milliseconds, void *wholes) {
  struct fragments *f = calloc(1, sizeof *f);
  if (f == NULL) return NULL;
  f->wholes = wholes;
  f->table = rte_ip_frag_table_create((datagrams + 15) / 16, 16, datagrams, rte_get_tsc_hz() / 1000 * milliseconds, rte_socket_id());
  if (f->table != NULL) return f;
  free(f);
  return NULL;
}

void nfv_fragments_free(void *fragments) {
  struct fragments *f = fragments;
  rte_ip_frag_free_death_row(&f->discarded, 0);
  rte_ip_frag_table_destroy(f->table);
  free(f);
}

// Copies a packet into one buffer of the large ones, without the `gap` bytes at `at`; frees it either way.
static struct rte_mbuf *flatten(struct rte_mempool *pool, struct rte_mbuf *packet, uint32_t at, uint32_t gap) {
  struct rte_mbuf *whole = rte_pktmbuf_alloc(pool);
  uint32_t length = packet->pkt_len - gap;
  if (whole != NULL && length <= rte_pktmbuf_tailroom(whole)) {
    uint8_t *to = (uint8_t *)rte_pktmbuf_append(whole, (uint16_t)length);
    uint32_t position = 0;
    for (struct rte_mbuf *m = packet; m != NULL; m = m->next) {
      const uint8_t *from = rte_pktmbuf_mtod(m, const uint8_t *);
      for (uint32_t done = 0, run; done < m->data_len; done += run, position += run) {
        run = m->data_len - done;
        if (position < at) {
          if (run > at - position) run = at - position;
          memcpy(to + position, from + done, run);
        } else if (position < at + gap) {
          if (run > at + gap - position) run = at + gap - position;
        } else {
          memcpy(to + position - gap, from + done, run);
        }
      }
    }
  } else if (whole != NULL) {
    rte_pktmbuf_free(whole);
    whole = NULL;
  }
  rte_pktmbuf_free(packet);
  return whole;
}

int nfv_flatten(void *wholes, void *mbuf, struct nfv_packet *packet) {
  struct rte_mbuf *whole = flatten(wholes, mbuf, 0, 0);
  if (whole == NULL) return -1;
  *packet = (struct nfv_packet){rte_pktmbuf_mtod(whole, void *), whole, whole->data_len, 1};
  return 0;
}

// A first fragment that has not got its ports, or one that would overwrite them, is an attack (RFC 1858, RFC 3128), and so
// is one that reaches beyond the longest packet.
static int is_tiny_or_long(uint8_t protocol, uint32_t offset, uint32_t length, int more) {
  uint32_t least = protocol == TCP ? 20 : 8;
  if (more && (length == 0 || length % 8 != 0)) return 1;
  if (offset == 0 && more && length < least) return 1;
  if (offset > 0 && offset < least) return 1;
  return offset + length > 65535 - sizeof(struct rte_ipv6_hdr);
}

int nfv_fragments_add(void *fragments, void *mbuf, struct nfv_packet *packet) {
  struct fragments *f = fragments;
  struct rte_mbuf *m = mbuf, *whole = NULL;
  uint8_t *bytes = rte_pktmbuf_mtod(m, uint8_t *);
  int is_ipv6 = 0, is_refused = 1;
  uint16_t network = network_offset(bytes, m->data_len, &is_ipv6);
  uint32_t before = f->discarded.cnt;
  if (network == 0) {
    rte_pktmbuf_free(m);
    return -1;
  }
  m->l2_len = network;
  if (!is_ipv6) {
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(bytes + network);
    uint16_t field = rte_be_to_cpu_16(ip->fragment_offset), total = rte_be_to_cpu_16(ip->total_length);
    uint16_t header = rte_ipv4_hdr_len(ip);
    if (header < sizeof *ip || total <= header || network + total > m->data_len || rte_raw_cksum(ip, header) != 0xffff ||
        is_tiny_or_long(ip->next_proto_id, (field & RTE_IPV4_HDR_OFFSET_MASK) * 8, total - header, field & RTE_IPV4_HDR_MF_FLAG)) {
      rte_pktmbuf_free(m);
      return -1;
    }
    m->l3_len = header;
    whole = rte_ipv4_frag_reassemble_packet(f->table, &f->discarded, m, rte_rdtsc(), ip);
    is_refused = whole != NULL || f->discarded.cnt > before;
    if (whole != NULL && (whole = flatten(f->wholes, whole, 0, 0)) != NULL) {
      ip = rte_pktmbuf_mtod_offset(whole, struct rte_ipv4_hdr *, network);
      // It may be cut again: whoever sent it in pieces expects no less.
      ip->fragment_offset = 0;
      ip->hdr_checksum = 0;
      ip->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, header);
    }
  } else {
    struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(bytes + network);
    struct rte_ipv6_fragment_ext *part = (struct rte_ipv6_fragment_ext *)(ip + 1);
    uint16_t field = rte_be_to_cpu_16(part->frag_data), payload = rte_be_to_cpu_16(ip->payload_len);
    // Only where the fragment header comes first; and no more than the packet has.
    if (ip->proto != IPV6_FRAGMENT || payload <= FRAGMENT_HEADER || network + sizeof *ip + payload > m->data_len ||
        is_tiny_or_long(part->next_header, field & 0xfff8, payload - FRAGMENT_HEADER, field & 1)) {
      rte_pktmbuf_free(m);
      return -1;
    }
    m->l3_len = sizeof *ip + FRAGMENT_HEADER;
    if ((field & 0xfff9) == 0) {
      // All of it in one fragment (RFC 6946).
      uint8_t next = part->next_header;
      whole = flatten(f->wholes, m, network + sizeof *ip, FRAGMENT_HEADER);
      if (whole != NULL) {
        ip = rte_pktmbuf_mtod_offset(whole, struct rte_ipv6_hdr *, network);
        ip->proto = next;
        ip->payload_len = rte_cpu_to_be_16(payload - FRAGMENT_HEADER);
      }
    } else {
      whole = rte_ipv6_frag_reassemble_packet(f->table, &f->discarded, m, rte_rdtsc(), ip, part);
      is_refused = whole != NULL || f->discarded.cnt > before;
      if (whole != NULL) whole = flatten(f->wholes, whole, 0, 0);
    }
  }
  if (f->discarded.cnt > 0) rte_ip_frag_free_death_row(&f->discarded, 0);
  if (whole == NULL) return is_refused ? -1 : 0;
  *packet = (struct nfv_packet){rte_pktmbuf_mtod(whole, void *), whole, whole->data_len, 1};
  return 1;
}

int nfv_cut(void *mbuf, uint16_t mtu, uint32_t identification, void *pool, void **pieces, uint16_t most) {
  struct rte_mbuf *m = mbuf;
  const uint8_t *bytes = rte_pktmbuf_mtod(m, const uint8_t *);
  int is_ipv6 = 0;
  uint16_t network = network_offset(bytes, m->data_len, &is_ipv6);
  if (network == 0) return -EINVAL;
  const struct rte_ipv4_hdr *v4 = (const struct rte_ipv4_hdr *)(bytes + network);
  const struct rte_ipv6_hdr *v6 = (const struct rte_ipv6_hdr *)(bytes + network);
  uint32_t header = is_ipv6 ? sizeof *v6 : rte_ipv4_hdr_len(v4);
  uint32_t end = is_ipv6 ? sizeof *v6 + rte_be_to_cpu_16(v6->payload_len) : rte_be_to_cpu_16(v4->total_length);
  if (network + end > m->data_len || end <= header) return -EINVAL;
  if (!is_ipv6 && (rte_be_to_cpu_16(v4->fragment_offset) & ~RTE_IPV4_HDR_DF_FLAG) != 0) return -EINVAL;
  uint32_t front = header + (is_ipv6 ? FRAGMENT_HEADER : 0), room = mtu > front ? (mtu - front) & ~7u : 0;
  if (room == 0) return -EMSGSIZE;
  int count = 0;
  for (uint32_t done = header; done < end; count++) {
    uint32_t length = end - done < room ? end - done : room, offset = done - header;
    int more = done + length < end;
    struct rte_mbuf *piece = count < most ? rte_pktmbuf_alloc(pool) : NULL;
    uint8_t *to = piece == NULL ? NULL : (uint8_t *)rte_pktmbuf_append(piece, (uint16_t)(network + front + length));
    if (to == NULL) {
      rte_pktmbuf_free(piece);
      rte_pktmbuf_free_bulk((struct rte_mbuf **)pieces, count);
      return -ENOBUFS;
    }
    memcpy(to, bytes, network + header);
    memcpy(to + network + front, bytes + network + done, length);
    if (is_ipv6) {
      struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(to + network);
      struct rte_ipv6_fragment_ext *part = (struct rte_ipv6_fragment_ext *)(ip + 1);
      ip->payload_len = rte_cpu_to_be_16((uint16_t)(FRAGMENT_HEADER + length));
      ip->proto = IPV6_FRAGMENT;
      *part = (struct rte_ipv6_fragment_ext){.next_header = v6->proto};
      part->frag_data = rte_cpu_to_be_16((uint16_t)(offset | (more ? 1 : 0)));
      part->id = rte_cpu_to_be_32(identification);
    } else {
      struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(to + network);
      ip->total_length = rte_cpu_to_be_16((uint16_t)(header + length));
      ip->fragment_offset = rte_cpu_to_be_16((uint16_t)(offset / 8 | (more ? RTE_IPV4_HDR_MF_FLAG : 0)));
      if (offset > 0) {
        // Options without the copied bit are the first fragment's only (RFC 791 §3.1).
        uint8_t *options = (uint8_t *)(ip + 1);
        for (uint32_t i = 0, size; i < header - sizeof *ip; i += size) {
          if (options[i] == 0) break;
          size = options[i] == 1 || i + 1 >= header - sizeof *ip ? 1 : options[i + 1];
          if (size == 0 || i + size > header - sizeof *ip) break;
          if ((options[i] & 0x80) == 0) memset(options + i, 1, size);
        }
      }
      ip->hdr_checksum = 0;
      ip->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, header);
    }
    pieces[count] = piece;
    done += length;
  }
  return count;
}

#pragma clang attribute pop
