import Wire

/// How far one direction of a flow has been scanned: 20 bytes.
///
/// Of TCP only bytes in order are scanned as a stream. `next` is the first that was not:
///
///     already scanned      |next                     |seenEnd
///     ─────────────────────┤
///        ├───────┤         │                   retransmitted: not scanned again
///             ├────────────┼────┤              partly: scanned from `next` on
///                          ├────────┤          in order
///                          │     ├───────┤     out of order: scanned on its own (or dropped, if so configured)
///
/// When the receiver acknowledges what passed out of order, the hole before it has been filled, and `next` moves there.
/// Not beyond `seenEnd`: an acknowledgement of bytes that never passed here must not keep them from being scanned.
struct DirectionState: BitwiseCopyable, Sendable {
  /// Of the automaton, after the last byte in order.
  var automaton = PatternAutomaton.root
  /// Of the last 32 of those bytes, the latest in bit 0: whether it is an upper-case letter. With the automaton's state,
  /// which has letters in lower case, this gives the bytes back as they were.
  var upperCase: UInt32 = 0
  var next: UInt32 = 0
  /// Sequence number of the stream's first byte.
  var first: UInt32 = 0
  /// Sequence number after the furthest byte that passed.
  var seenEnd: UInt32 = 0

  init() {}

  init(first: UInt32) {
    (self.first, next, seenEnd) = (first, first, first)
  }

  /// Bytes of the stream before `next`.
  var position: Int { Int(next &- first) }

  /// What of a segment is to be scanned, by its place.
  enum Place: Equatable {
    /// From this byte of its payload on, as the stream's next.
    case inOrder(skipping: Int)
    case retransmitted
    case outOfOrder
  }

  func place(of sequence: UInt32, length: Int) -> Place {
    let ahead = Int(Int32(bitPattern: sequence &- next))
    if length == 0 { return .inOrder(skipping: 0) }
    if ahead > 0 { return .outOfOrder }
    return -ahead < length ? .inOrder(skipping: -ahead) : .retransmitted
  }

  /// Bytes before `end` passed.
  mutating func note(end: UInt32) {
    if Int32(bitPattern: end &- seenEnd) > 0 { seenEnd = end }
  }

  /// The receiver has everything before `acknowledgement`. Returns whether that ends a hole.
  mutating func acknowledge(_ acknowledgement: UInt32) -> Bool {
    guard Int32(bitPattern: acknowledgement &- next) > 0, Int32(bitPattern: seenEnd &- acknowledgement) >= 0 else { return false }
    next = acknowledgement
    automaton = PatternAutomaton.root
    return true
  }

  /// The stream's next bytes have been scanned and left the automaton in `state`, of `depth`.
  mutating func advance(over bytes: UnsafePointer<UInt8>, count: Int, state: UInt32, depth: Int) {
    automaton = state
    next &+= UInt32(truncatingIfNeeded: count)
    note(end: next)
    // No more is ever asked for than the state stands for.
    let remembered = min(depth, count, 32)
    var bits: UInt32 = 0
    for index in 0..<remembered {
      if unsafe bytes[count - 1 - index] &- 65 < 26 { bits |= 1 << UInt32(index) }
    }
    upperCase = count < 32 ? upperCase << UInt32(count) | bits : bits
  }
}

/// What travels with a flow: 56 bytes.
public struct IntrusionPreventionState: BitwiseCopyable, Sendable {
  var flowbits: UInt64 = 0
  var forward = DirectionState()
  var reverse = DirectionState()
  /// Of the rules that the rest belongs to.
  var fingerprint: UInt32
  var flags: Flags = []

  struct Flags: OptionSet, BitwiseCopyable, Sendable {
    let rawValue: UInt16
    /// A rule passed, or dropped, the rest of this flow.
    static let passed = Flags(rawValue: 1)
    static let dropped = Flags(rawValue: 2)
    /// TCP: both sides have agreed, and the client has said so. Others: both sides have spoken.
    static let established = Flags(rawValue: 4)
    static let sawSYN = Flags(rawValue: 8)
    static let sawSYNACK = Flags(rawValue: 16)
    /// This direction's first sequence number is known.
    static let beganForward = Flags(rawValue: 64)
    static let beganReverse = Flags(rawValue: 128)
    /// Rules that are not prompted by a pattern have been looked through for this direction, and some may match.
    static let lookedForward = Flags(rawValue: 256)
    static let lookedReverse = Flags(rawValue: 512)
    static let watchedForward = Flags(rawValue: 1024)
    static let watchedReverse = Flags(rawValue: 2048)
    /// Before the answer to the first SYN there was another one, with another number.
    static let sawOtherSYN = Flags(rawValue: 32)
    static let endedForward = Flags(rawValue: 4096)
    static let endedReverse = Flags(rawValue: 8192)
    static let reset = Flags(rawValue: 16_384)
    /// A message of HTTP was recognized, in either direction.
    static let http = Flags(rawValue: 32_768)

    /// A SYN may begin anew.
    var isOver: Bool { contains(.reset) || isSuperset(of: [.endedForward, .endedReverse]) }
  }

  init(fingerprint: UInt32) { self.fingerprint = fingerprint }

  subscript(direction: Direction) -> DirectionState {
    get { direction == .forward ? forward : reverse }
    _modify {
      if direction == .forward { yield &forward } else { yield &reverse }
    }
  }

  // MARK: Following TCP

  /// Follows the connection by one segment and says what of its payload is to be scanned.
  ///
  /// - Returns: also whether an acknowledgement ended a hole in the other direction.
  mutating func follow(_ frame: borrowing Frame) -> (place: DirectionState.Place, filledHole: Bool) {
    let tcp = frame.tcpFlags
    let direction = frame.direction
    let length = frame.payloadLength
    var sequence = frame.tcpSequence
    if tcp.contains(.syn) {
      begin(frame)
      sequence &+= 1
    } else {
      noteBeginning(direction, sequence)
      if direction == .forward, tcp.contains(.ack) { establish(frame.tcpAcknowledgement) }
    }
    var filledHole = false
    if tcp.contains(.ack), flags.contains(direction == .forward ? .beganReverse : .beganForward) {
      filledHole = self[direction.opposite].acknowledge(frame.tcpAcknowledgement)
    }
    let place = self[direction].place(of: sequence, length: length)
    let end = Int32(bitPattern: sequence &+ UInt32(truncatingIfNeeded: length) &- self[direction].next)
    if tcp.contains(.rst) {
      // Only one that its receiver must believe (RFC 5961 §3.2).
      if sequence == self[direction].next { flags.insert(.reset) }
    } else if tcp.contains(.fin), end >= 0, place != .outOfOrder {
      flags.insert(direction == .forward ? .endedForward : .endedReverse)
    }
    return (place, filledHole)
  }

  /// The client acknowledges what the server began with, or more of what it sent.
  private mutating func establish(_ acknowledgement: UInt32) {
    guard flags.isSuperset(of: [.sawSYN, .sawSYNACK]), !flags.contains(.established) else { return }
    if acknowledgement &- reverse.first <= reverse.seenEnd &- reverse.first { flags.insert(.established) }
  }

  /// A SYN says where its direction begins, unless that has been said.
  ///
  /// Either side may try to mislead: with a second SYN that its peer will not believe, the stream would be looked for in
  /// the wrong place. So the first SYN counts, and the first SYN+ACK that acknowledges it; only between two different SYN
  /// the answer decides. Both hold until the connection is over.
  private mutating func begin(_ frame: borrowing Frame) {
    let first = frame.tcpSequence &+ 1
    switch (frame.direction, frame.tcpFlags.contains(.ack)) {
    case (.forward, false):
      guard flags.contains(.sawSYN), !flags.isOver else {
        flags.subtract([.established, .sawSYNACK, .sawOtherSYN, .beganReverse, .endedForward, .endedReverse, .reset, .http])
        flags.insert([.sawSYN, .beganForward])
        flowbits = 0
        forward = DirectionState(first: first)
        return
      }
      if first != forward.first, !flags.contains(.sawSYNACK) { flags.insert(.sawOtherSYN) }
    case (.reverse, true) where flags.contains(.sawSYN):
      guard !flags.contains(.sawSYNACK) else { return }
      let acknowledged = frame.tcpAcknowledgement
      let isOfFirst = acknowledged &- forward.first <= forward.next &- forward.first
      guard isOfFirst || flags.contains(.sawOtherSYN) else { return }
      flags.insert([.sawSYNACK, .beganReverse])
      reverse = DirectionState(first: first)
      // Data that came with the SYN (RFC 7413) and was not taken comes again.
      if acknowledged != forward.next { forward = DirectionState(first: acknowledged) }
    default:
      noteBeginning(frame.direction, first)
    }
  }

  private mutating func noteBeginning(_ direction: Direction, _ sequence: UInt32) {
    let began: Flags = direction == .forward ? .beganForward : .beganReverse
    guard !flags.contains(began) else { return }
    flags.insert(began)
    self[direction] = DirectionState(first: sequence)
  }
}
