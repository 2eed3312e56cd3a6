import Wire

/// What a runtime keeps for one flow besides the flow state of its chain: how far the conversation has come.
///
/// Only as much of TCP as idle timeouts need (RFC 5382 REQ-5, RFC 7857 §2): deciding which packets are
/// legal is the firewall's work.
public struct FlowActor: BitwiseCopyable, Sendable {
  public enum Phase: UInt8, BitwiseCopyable, Sendable {
    /// TCP heard from one side only.
    case opening
    case established
    /// FIN or RST seen.
    case closing
    /// Protocols without connections.
    case connectionless
  }

  public var phase: Phase
  /// Whether the chain has let any packet pass: a flow whose first packet is dropped does not come to be.
  public var hasForwarded = false
  /// The side that opened the flow.
  public let opener: Direction

  @inlinable @inline(__always)
  public init(_ frame: borrowing Frame, opener: Direction = .forward) {
    self.opener = opener
    switch frame.protocolNumber {
    case IPProtocol.tcp: phase = frame.tcpFlags.isDisjoint(with: [.fin, .rst]) ? .opening : .closing
    default: phase = .connectionless
    }
  }

  /// What travels with a flow.
  public var travelling: UInt64 { UInt64(phase.rawValue) | UInt64(opener.rawValue) << 8 }

  /// A flow that arrived: packets of it have passed elsewhere. An unknown phase is that of an open connection.
  public init(travelling: UInt64) {
    phase = Phase(rawValue: UInt8(truncatingIfNeeded: travelling)) ?? .established
    opener = travelling >> 8 & 1 == 0 ? .forward : .reverse
    hasForwarded = true
  }

  /// Follows one packet; `true` when the phase changed.
  @inlinable @inline(__always)
  public mutating func follow(_ frame: borrowing Frame, _ phases: borrowing PhaseTable) -> Bool {
    let next = phases[phase, frame.tcpFlags, frame.direction == opener]
    let changes = next != phase
    phase = next
    return changes
  }
}

extension FlowActor.Phase {
  /// The phase after a packet with these flags, of the opener or of the other side.
  func after(_ flags: TCPFlags, fromOpener: Bool) -> Self {
    if self == .connectionless { return self }
    if !flags.isDisjoint(with: [.fin, .rst]) { return .closing }
    // The same ports are used again.
    if flags.contains(.syn), self == .closing, fromOpener { return .opening }
    if self == .opening, !fromOpener, flags.contains(.ack) { return .established }
    return self
  }
}

/// `Phase.after` of everything, written down: a shift where there would be some jumps that no processor foresees.
///
/// Two bits for each of the 64: they are plain words, since a row that is lent would be copied for every packet, and no `switch`,
/// of which the compiler makes jumps.
public struct PhaseTable: BitwiseCopyable, Sendable {
  @usableFromInline var words: (UInt64, UInt64) = (0, 0)

  public init() {
    for place in 0..<64 as Range<UInt8> {
      let phase = FlowActor.Phase(rawValue: place >> 4) ?? .connectionless
      let flags = TCPFlags(rawValue: place & 3 | (place & 4) << 2)
      let next = UInt64(phase.after(flags, fromOpener: place & 8 != 0).rawValue) << (UInt64(place & 31) * 2)
      if place < 32 { words.0 |= next } else { words.1 |= next }
    }
  }

  /// RST counts as FIN here.
  @inlinable
  subscript(phase: FlowActor.Phase, flags: TCPFlags, fromOpener: Bool) -> FlowActor.Phase {
    @inline(__always) get {
      let bits = UInt64(flags.rawValue)
      let code = unsafe UInt64(unsafeBitCast(phase, to: UInt8.self))
      let place = (bits | bits >> 2) & 1 | bits & 2 | bits >> 2 & 4 | (fromOpener ? 8 : 0) | (code & 1) << 4
      // Cases are numbered from 0 in the order written, in memory as in `rawValue`: four of them, two bits.
      let next = (code & 2 == 0 ? words.0 : words.1) &>> (place &* 2) & 3
      return unsafe unsafeBitCast(UInt8(truncatingIfNeeded: next), to: FlowActor.Phase.self)
    }
  }
}

/// The classes of idle timeouts, indexes into `FlowStore`'s table.
public enum TimeoutClass {
  public static let tcpTransitory: UInt8 = 0
  public static let tcpEstablished: UInt8 = 1
  public static let udp: UInt8 = 2
  public static let icmp: UInt8 = 3
  public static let other: UInt8 = 4

  /// Flows that have left for another runtime: how long late packets are sent after them.
  public static let departed: UInt8 = 5

  @inlinable @inline(__always)
  public static func of(_ protocolNumber: UInt8, _ phase: FlowActor.Phase) -> UInt8 {
    switch protocolNumber {
    case IPProtocol.tcp: phase == .established ? tcpEstablished : tcpTransitory
    case IPProtocol.udp: udp
    case IPProtocol.icmp, IPProtocol.icmpv6: icmp
    default: other
    }
  }
}
