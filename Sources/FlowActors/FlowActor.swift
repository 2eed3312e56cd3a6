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
  public mutating func follow(_ frame: borrowing Frame) -> Bool {
    if phase == .connectionless { return false }
    let flags = frame.tcpFlags
    if phase == .established, flags.isDisjoint(with: [.fin, .rst]) { return false }
    return follow(flags, frame.direction)
  }

  @usableFromInline
  mutating func follow(_ flags: TCPFlags, _ direction: Direction) -> Bool {
    var now = phase
    if !flags.isDisjoint(with: [.fin, .rst]) {
      now = .closing
    } else if flags.contains(.syn), phase == .closing, direction == opener {
      now = .opening  // the same ports are used again
    } else if phase == .opening, direction != opener, flags.contains(.ack) {
      now = .established
    }
    defer { phase = now }
    return now != phase
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
