import Wire

/// One TCP connection seen from the middle: its state, and for either side how far it has sent, how far
/// that was acknowledged, and the largest window it was offered. 24 bytes.
///
/// The sequence numbers serve one purpose: to tell a reset, or an acknowledgement, that one of the ends
/// would believe from one that a stranger made up (RFC 5961). Data is never judged by them; what an end
/// would not accept, it discards itself.
///
///                 acked            sent          acked + window
///     ────────────┼────────────────┼─────────────┼────────────▶ sequence numbers of one side
///       received  │  on its way    │  allowed    │  a reset here, or before `acked`, is forged or
///                                                   would be ignored: it is dropped
///
/// Windows are scaled when both SYNs carried the option (RFC 7323), and are never taken for less than 65,535
/// bytes, so that probes of a closed window and rounding stay inside.
public struct TCPConnection: BitwiseCopyable, Sendable, Equatable {
  @usableFromInline var sent: (forward: UInt32, reverse: UInt32) = (0, 0)
  @usableFromInline var acked: (forward: UInt32, reverse: UInt32) = (0, 0)
  /// Largest window offered to that side, as written in the header.
  @usableFromInline var window: (forward: UInt16, reverse: UInt16) = (0, 0)
  /// A number, not a `TCPState`: these bytes travel.
  @usableFromInline var stateCode: UInt8 = 0
  /// Shift that each side applies to the windows it offers: forward in the low half; 15 for none.
  @usableFromInline var scales: UInt8 = 0xff

  @inlinable public init() {}

  @inlinable public var state: TCPState {
    @inline(__always) get { TCPState(code: stateCode) }
    @inline(__always) set { stateCode = newValue.code }
  }

  public enum Ruling: UInt8, Sendable { case accept, notConnectionStart, invalidState, invalidFlags, resetOutOfWindow }

  public mutating func handle(_ segment: TCPSegment, _ direction: Direction) -> Ruling {
    if handleSteady(segment, direction) { return .accept }
    return handleChange(segment, direction, state.step(direction, segment.kind))
  }

  /// The middle of a connection's life, which is nearly all of it: an acknowledgement, with or without data, of
  /// an established connection. Anything else is left untouched and `false`.
  @inlinable @inline(__always)
  mutating func handleSteady(_ segment: TCPSegment, _ direction: Direction) -> Bool {
    guard state == .established, segment.kind == .ack else { return false }
    learn(segment, direction)
    return true
  }

  /// Begun, and not answered or not completed.
  @inlinable var isHalfOpen: Bool {
    @inline(__always) get { stateCode >= TCPState.synSent.code && stateCode <= TCPState.simultaneousOpen.code }
  }

  /// Whether that side may still wait for an answer to a segment of this number: what an ICMP error must quote
  /// to be believed (RFC 5927 §4.1).
  func isOnItsWay(_ sequence: UInt32, from side: Direction) -> Bool {
    let (sent, acked) = side == .forward ? (self.sent.forward, self.acked.forward) : (self.sent.reverse, self.acked.reverse)
    return sequence &- acked <= sent &- acked
  }

  /// Everything but the middle of a connection's life: what the table says of the segment is done.
  @inlinable @inline(__always)
  mutating func handleChange(_ segment: TCPSegment, _ direction: Direction, _ step: TCPStep) -> Ruling {
    switch step {
    case .open:
      open(segment)
      return .accept
    case .answer(let next):
      answer(segment, direction, next)
      return .accept
    case .move(let next):
      learn(segment, direction)
      state = next == .closing && acked.forward == sent.forward && acked.reverse == sent.reverse ? .timeWait : next
      return .accept
    case .pass: return .accept
    case .reset: return handleReset(segment, direction)
    case .refuse: return segment.kind == .malformed ? .invalidFlags : .invalidState
    case .refuseAsNoStart: return segment.kind == .malformed ? .invalidFlags : .notConnectionStart
    }
  }

  @inlinable @inline(__always)
  mutating func open(_ segment: TCPSegment) {
    self = TCPConnection()
    state = .synSent
    // `acked` at the SYN's own number: not even that has been acknowledged.
    acked.forward = segment.sequence
    sent.forward = segment.sequence &+ segment.space
    scales = 0xf0 | (segment.windowScale ?? 15)
  }

  /// A segment of the opening: it counts if it acknowledges the other side's SYN, or is a bare SYN itself.
  @inlinable @inline(__always)
  mutating func answer(_ segment: TCPSegment, _ direction: Direction, _ next: TCPState) {
    if segment.carriesAcknowledgement {
      guard acknowledgesSomething(segment, direction) else { return }
    }
    if state == .synSent {
      acked.reverse = segment.sequence
      sent.reverse = segment.sequence &+ segment.space
      scales = scales & 0x0f | (segment.windowScale ?? 15) << 4
    }
    learn(segment, direction)
    state = next
  }

  /// Whether the segment acknowledges a number beyond what is acknowledged, and of what was sent.
  @inlinable @inline(__always)
  func acknowledgesSomething(_ segment: TCPSegment, _ direction: Direction) -> Bool {
    let (sent, acked) = direction == .forward ? (self.sent.reverse, self.acked.reverse) : (self.sent.forward, self.acked.forward)
    let advance = segment.acknowledgement &- acked
    return advance > 0 && advance <= sent &- acked
  }

  @inlinable @inline(__always)
  mutating func learn(_ segment: TCPSegment, _ direction: Direction) {
    let end = segment.sequence &+ segment.space
    let advance: UInt32
    switch direction {
    case .forward:
      if end &- acked.forward <= reach(.forward), Int32(bitPattern: end &- sent.forward) > 0 { sent.forward = end }
      guard segment.carriesAcknowledgement else { return }
      advance = segment.acknowledgement &- acked.reverse
      guard advance <= sent.reverse &- acked.reverse else { return }
      acked.reverse = segment.acknowledgement
      window.reverse = max(window.reverse, segment.window)
    case .reverse:
      if end &- acked.reverse <= reach(.reverse), Int32(bitPattern: end &- sent.reverse) > 0 { sent.reverse = end }
      guard segment.carriesAcknowledgement else { return }
      advance = segment.acknowledgement &- acked.forward
      guard advance <= sent.forward &- acked.forward else { return }
      acked.forward = segment.acknowledgement
      window.forward = max(window.forward, segment.window)
    }
  }

  /// How far beyond `acked` that side may send.
  @inlinable @inline(__always)
  func reach(_ direction: Direction) -> UInt32 {
    let (forwardShift, reverseShift) = (scales & 15, scales >> 4)
    let isScaled = forwardShift != 15 && reverseShift != 15
    // The window that limits one side is the other's, and so is the shift.
    let offered = direction == .forward ? window.forward : window.reverse
    let shift = direction == .forward ? reverseShift : forwardShift
    return max(65_535, isScaled ? UInt32(offered) << UInt32(shift) : UInt32(offered))
  }

  /// A reset moves the state only where the receiver must believe it: at the very number it waits for,
  /// which is `acked`, `sent`, or somewhere between when segments were lost. In the window but elsewhere it
  /// passes, and the receiver's challenge (RFC 5961 §3.2) brings the right one.
  @usableFromInline @inline(never)
  mutating func handleReset(_ segment: TCPSegment, _ direction: Direction) -> Ruling {
    let next: TCPState = direction == .forward ? .resetByForward : .resetByReverse
    // Before the server's own numbers are settled, a refusal is known by what it acknowledges (RFC 9293 §3.10.7.3).
    if direction == .reverse, state == .synSent || state == .synReceived || state == .simultaneousOpen {
      let beyondSYN = segment.acknowledgement &- acked.forward
      if segment.carriesAcknowledgement,
        segment.acknowledgement == sent.forward || (beyondSYN > 0 && beyondSYN <= sent.forward &- acked.forward)
      {
        state = next
        return .accept
      }
      if state == .synSent { return .resetOutOfWindow }
    }
    // The server answered as if to an older connection; the client's reset is about that one.
    if direction == .forward, state == .synSent {
      if segment.sequence == sent.forward { state = next }
      return .accept
    }
    let (sent, acked) = direction == .forward ? (self.sent.forward, self.acked.forward) : (self.sent.reverse, self.acked.reverse)
    let offset = segment.sequence &- acked
    guard offset <= max(reach(direction), sent &- acked) else { return .resetOutOfWindow }
    if segment.sequence == acked || segment.sequence == sent { state = next }
    return .accept
  }

  public static func == (a: TCPConnection, b: TCPConnection) -> Bool {
    a.sent == b.sent && a.acked == b.acked && a.window == b.window && a.stateCode == b.stateCode && a.scales == b.scales
  }
}
