// Access lists: DPDK's multi-bit tries behind four calls, with rules and keys in a layout of our own.
#pragma clang attribute push(__attribute__((target("ssse3,sse4.1,sse4.2"))), apply_to = function)
#include "CDPDK.h"
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <rte_acl.h>
#include <rte_errno.h>

// The first field of a rule is one byte; all others are grouped into four bytes each. Protocol, direction, words of
// both addresses, both ports in one group. IPv4 has one word per address and the same layout otherwise.
enum { WORDS_IPV4 = 1, WORDS_IPV6 = 4, FIELDS_MAX = 2 + 2 * WORDS_IPV6 + 2 };
RTE_ACL_RULE_DEF(nfv_acl_native_rule, FIELDS_MAX);

// A key as rte_acl reads it, in network byte order.
struct key_bytes {
  uint8_t protocol;
  uint8_t unused[3];
  uint8_t direction[4];
  uint8_t rest[2 * 16 + 4];
};

static int field_count(int is_ipv6) { return 2 + 2 * (is_ipv6 ? WORDS_IPV6 : WORDS_IPV4) + 2; }

static void define_fields(struct rte_acl_config *config, int is_ipv6) {
  int words = 2 * (is_ipv6 ? WORDS_IPV6 : WORDS_IPV4), n = 0;
  config->num_categories = 1;
  config->num_fields = field_count(is_ipv6);
  config->defs[n] = (struct rte_acl_field_def){RTE_ACL_FIELD_TYPE_BITMASK, 1, n, 0, offsetof(struct key_bytes, protocol)};
  n++;
  config->defs[n] = (struct rte_acl_field_def){RTE_ACL_FIELD_TYPE_BITMASK, 4, n, 1, offsetof(struct key_bytes, direction)};
  n++;
  for (int word = 0; word < words; word++, n++)
    config->defs[n] = (struct rte_acl_field_def){RTE_ACL_FIELD_TYPE_MASK, 4, n, 2 + word, offsetof(struct key_bytes, rest) + 4 * word};
  for (int port = 0; port < 2; port++, n++)
    config->defs[n] =
        (struct rte_acl_field_def){RTE_ACL_FIELD_TYPE_RANGE, 2, n, 2 + words, offsetof(struct key_bytes, rest) + 4 * words + 2 * port};
}

static void translate(const struct nfv_acl_rule *rule, uint32_t position, int is_ipv6, struct nfv_acl_native_rule *native) {
  int words = is_ipv6 ? WORDS_IPV6 : WORDS_IPV4, n = 0;
  memset(native, 0, sizeof *native);
  native->data.category_mask = 1;
  native->data.priority = RTE_ACL_MAX_PRIORITY - position; // the first that matches wins
  native->data.userdata = rule->number;
  native->field[n].value.u8 = rule->protocol;
  native->field[n++].mask_range.u8 = rule->protocol_mask;
  native->field[n].value.u32 = rule->direction;
  native->field[n++].mask_range.u32 = rule->direction_mask;
  for (int side = 0; side < 2; side++) {
    const uint32_t *address = side == 0 ? rule->source : rule->destination;
    int length = side == 0 ? rule->source_length : rule->destination_length;
    for (int word = 0; word < words; word++) {
      int bits = length - 32 * word;
      native->field[n].value.u32 = address[word];
      native->field[n++].mask_range.u32 = bits < 0 ? 0 : bits > 32 ? 32 : bits;
    }
  }
  for (int side = 0; side < 2; side++) {
    const uint16_t *ports = side == 0 ? rule->source_ports : rule->destination_ports;
    native->field[n].value.u16 = ports[0];
    native->field[n++].mask_range.u16 = ports[1];
  }
}

int nfv_acl_create(const char *name, int is_ipv6, const struct nfv_acl_rule *rules, uint32_t count, void **list) {
  struct rte_acl_param param = {name, -1, RTE_ACL_RULE_SZ(field_count(is_ipv6)), count};
  struct rte_acl_ctx *context = rte_acl_create(&param);
  if (context == NULL) return -rte_errno;
  int result = 0;
  for (uint32_t i = 0; i < count && result == 0; i++) {
    struct nfv_acl_native_rule native;
    translate(&rules[i], i, is_ipv6, &native);
    result = rte_acl_add_rules(context, (struct rte_acl_rule *)&native, 1);
  }
  if (result == 0) {
    struct rte_acl_config config;
    memset(&config, 0, sizeof config);
    define_fields(&config, is_ipv6);
    result = rte_acl_build(context, &config);
  }
  if (result != 0) {
    rte_acl_free(context);
    return result;
  }
  *list = context;
  return 0;
}

static void put32(uint8_t *bytes, uint32_t value) {
  bytes[0] = value >> 24, bytes[1] = value >> 16, bytes[2] = value >> 8, bytes[3] = value;
}

int nfv_acl_classify(void *list, int is_ipv6, const struct nfv_acl_key *keys, uint32_t count, uint32_t *numbers) {
  int words = is_ipv6 ? WORDS_IPV6 : WORDS_IPV4;
  if (count > 64) return -EINVAL;
  struct key_bytes bytes[64];
  const uint8_t *data[64];
  for (uint32_t i = 0; i < count; i++) {
    uint8_t *next = bytes[i].rest;
    bytes[i].protocol = keys[i].protocol;
    put32(bytes[i].direction, keys[i].direction);
    for (int word = 0; word < words; word++, next += 4) put32(next, keys[i].source[word]);
    for (int word = 0; word < words; word++, next += 4) put32(next, keys[i].destination[word]);
    put32(next, (uint32_t)keys[i].source_port << 16 | keys[i].destination_port);
    data[i] = (const uint8_t *)&bytes[i];
  }
  return rte_acl_classify(list, data, numbers, count, 1);
}

void nfv_acl_free(void *list) { rte_acl_free(list); }
#pragma clang attribute pop
