// A TCP connection seen from the middle, as Sources/FunctionCatalog/TCPConnection.swift and TCPTransitions.swift track it:
// the same states, the same numbers, the same rulings, written for C.
#pragma once
#include "packet.h"

enum state {
  NONE, SYN_SENT, SYN_RECEIVED, SIMULTANEOUS_OPEN, ESTABLISHED, FIN_FORWARD, FIN_REVERSE, CLOSING, TIME_WAIT,
  RESET_BY_FORWARD, RESET_BY_REVERSE,
};
enum kind { SYN, SYN_ACK, ACK, FIN, RST, MALFORMED };

struct connection {
  uint32_t sent[2], acked[2]; // by direction
  uint16_t window[2];         // largest offered to that side
  uint8_t state, scales;      // shift of the windows each side offers: forward in the low half; 15 for none
};

struct segment {
  uint32_t sequence, acknowledgement, space;
  uint16_t window;
  bool has_acknowledgement;
  enum kind kind;
};

static inline enum kind kind_of(uint8_t flags) {
  switch (flags & (FLAG_ACK | FLAG_RST | FLAG_SYN | FLAG_FIN)) {
  case FLAG_ACK: return ACK;
  case FLAG_SYN: return SYN;
  case FLAG_SYN | FLAG_ACK: return SYN_ACK;
  case FLAG_FIN | FLAG_ACK: return FIN;
  case FLAG_RST: case FLAG_RST | FLAG_ACK: return RST;
  default: return MALFORMED;
  }
}

HOT struct segment segment_of(const struct packet *p) {
  const uint8_t *t = p->bytes + p->transport;
  return (struct segment){
      .sequence = host32(load32(t + 4)), .acknowledgement = host32(load32(t + 8)), .window = host16(load16(t + 14)),
      .space = (uint32_t)(p->end - p->payload) + (p->flags & 1) + (p->flags >> 1 & 1),
      .has_acknowledgement = p->flags & FLAG_ACK, .kind = kind_of(p->flags)};
}

// The shift of a SYN's window scale option (RFC 7323 §2.2), 15 without one.
static uint8_t window_scale(const struct packet *p) {
  const uint8_t *at = p->bytes + p->transport + 20, *end = p->bytes + p->payload;
  while (at < end && *at != 0) {
    if (*at == 1) { at++; continue; }
    if (end - at < 2 || at[1] < 2 || end - at < at[1]) return 15;
    if (at[0] == 3 && at[1] == 3) return at[2] < 14 ? at[2] : 14;
    at += at[1];
  }
  return 15;
}

// How far beyond `acked` a side may send.
HOT uint32_t reach(const struct connection *c, int direction) {
  uint8_t shift[2] = {c->scales >> 4, c->scales & 15}; // the other side's, as is the window
  uint32_t offered = c->window[direction];
  if (shift[0] != 15 && shift[1] != 15) offered <<= shift[direction];
  return offered > 65535 ? offered : 65535;
}

HOT void learn(struct connection *c, const struct segment *s, int direction) {
  int other = direction ^ 1;
  uint32_t end = s->sequence + s->space;
  if (end - c->acked[direction] <= reach(c, direction) && (int32_t)(end - c->sent[direction]) > 0) c->sent[direction] = end;
  if (!s->has_acknowledgement || s->acknowledgement - c->acked[other] > c->sent[other] - c->acked[other]) return;
  c->acked[other] = s->acknowledgement;
  if (s->window > c->window[other]) c->window[other] = s->window;
}

static enum drop_reason answer(struct connection *c, const struct segment *s, const struct packet *p, enum state next) {
  int direction = p->direction, other = direction ^ 1;
  if (s->has_acknowledgement) {
    uint32_t advance = s->acknowledgement - c->acked[other];
    if (advance == 0 || advance > c->sent[other] - c->acked[other]) return PASS;
  }
  if (c->state == SYN_SENT) {
    c->acked[REVERSE] = s->sequence;
    c->sent[REVERSE] = s->sequence + s->space;
    c->scales = (c->scales & 15) | (p->flags & FLAG_SYN ? window_scale(p) : 15) << 4;
  }
  learn(c, s, direction);
  c->state = next;
  return PASS;
}

static enum drop_reason move(struct connection *c, const struct segment *s, int direction, enum state next) {
  learn(c, s, direction);
  bool done = next == CLOSING && c->acked[0] == c->sent[0] && c->acked[1] == c->sent[1];
  c->state = done ? TIME_WAIT : next;
  return PASS;
}

static enum drop_reason open_connection(struct connection *c, const struct segment *s, const struct packet *p) {
  *c = (struct connection){.state = SYN_SENT, .scales = 0xf0 | window_scale(p)};
  c->acked[FORWARD] = s->sequence;
  c->sent[FORWARD] = s->sequence + s->space;
  return PASS;
}

// RFC 5961 §3: only a reset at the number its receiver waits for is believed.
static enum drop_reason reset(struct connection *c, const struct segment *s, int direction) {
  enum state next = direction == FORWARD ? RESET_BY_FORWARD : RESET_BY_REVERSE;
  if (direction == REVERSE && c->state <= SIMULTANEOUS_OPEN) {
    uint32_t beyond = s->acknowledgement - c->acked[FORWARD];
    if (s->has_acknowledgement && (s->acknowledgement == c->sent[FORWARD] ||
                                   (beyond > 0 && beyond <= c->sent[FORWARD] - c->acked[FORWARD]))) {
      c->state = next;
      return PASS;
    }
    if (c->state == SYN_SENT) return RESET_OUT_OF_WINDOW;
  }
  if (direction == FORWARD && c->state == SYN_SENT) {
    if (s->sequence == c->sent[FORWARD]) c->state = next;
    return PASS;
  }
  uint32_t sent = c->sent[direction], acked = c->acked[direction], allowed = reach(c, direction);
  if (sent - acked > allowed) allowed = sent - acked;
  if (s->sequence - acked > allowed) return RESET_OUT_OF_WINDOW;
  if (s->sequence == acked || s->sequence == sent) c->state = next;
  return PASS;
}

// Begun and not completed (RFC 4987).
static inline bool is_half_open(const struct connection *c) { return c->state >= SYN_SENT && c->state <= SIMULTANEOUS_OPEN; }

// Everything but the middle of a connection's life.
HOT enum drop_reason change(struct connection *c, const struct segment *s, const struct packet *p) {
  int direction = p->direction;
  bool forward = direction == FORWARD;
  enum kind kind = s->kind;
  enum state own_fin = forward ? FIN_FORWARD : FIN_REVERSE;
  if (kind == MALFORMED) return INVALID_TCP_FLAGS;
  switch ((enum state)c->state) {
  case NONE:
    return forward && kind == SYN ? open_connection(c, s, p) : NOT_CONNECTION_START;
  case SYN_SENT:
    if (forward) return kind == SYN ? open_connection(c, s, p) : kind == RST ? reset(c, s, direction) : INVALID_TCP_STATE;
    switch (kind) {
    case SYN_ACK: return answer(c, s, p, SYN_RECEIVED);
    case SYN: return answer(c, s, p, SIMULTANEOUS_OPEN);
    case ACK: return PASS;
    case RST: return reset(c, s, direction);
    default: return INVALID_TCP_STATE;
    }
  case SYN_RECEIVED:
    switch (kind) {
    case RST: return reset(c, s, direction);
    case SYN: return PASS;
    case ACK: return forward ? answer(c, s, p, ESTABLISHED) : move(c, s, direction, SYN_RECEIVED);
    case SYN_ACK: return forward ? PASS : move(c, s, direction, SYN_RECEIVED);
    default: return forward ? answer(c, s, p, FIN_FORWARD) : move(c, s, direction, FIN_REVERSE);
    }
  case SIMULTANEOUS_OPEN:
    switch (kind) {
    case RST: return reset(c, s, direction);
    case SYN: return PASS;
    case FIN: return move(c, s, direction, own_fin);
    default: return answer(c, s, p, ESTABLISHED);
    }
  case ESTABLISHED: case FIN_FORWARD: case FIN_REVERSE: case CLOSING:
    switch (kind) {
    case RST: return reset(c, s, direction);
    case SYN: case SYN_ACK: return PASS;
    case ACK: return move(c, s, direction, c->state);
    default:
      return move(c, s, direction, c->state == ESTABLISHED || c->state == own_fin ? own_fin : CLOSING);
    }
  case TIME_WAIT:
    if (kind == RST) return reset(c, s, direction);
    if (kind != SYN) return PASS;
    return forward ? open_connection(c, s, p) : INVALID_TCP_STATE;
  default: { // reset
    bool by_sender = c->state == (forward ? RESET_BY_FORWARD : RESET_BY_REVERSE);
    if (kind == SYN) return forward ? open_connection(c, s, p) : INVALID_TCP_STATE;
    if (kind == RST) return PASS;
    return by_sender ? INVALID_TCP_STATE : PASS;
  }
  }
}
