import Wire

/// The part of a TCP packet that connection tracking judges.
public struct TCPSegment: Hashable, Sendable {
  /// What a segment is for the state machine.
  ///
  /// RFC 9293 gives every other combination of flags no meaning: nothing set, SYN or RST with FIN, SYN
  /// with RST, FIN without ACK. Senders of those are probing, and they are `malformed`. PSH and URG change
  /// nothing.
  ///
  /// Cases are numbered from 0 in the order written, in memory as in `rawValue`.
  public enum Kind: UInt8, CaseIterable, Sendable { case syn, synAck, ack, fin, rst, malformed }

  public var kind: Kind
  public var carriesAcknowledgement: Bool
  public var sequence: UInt32
  public var acknowledgement: UInt32
  public var window: UInt16
  /// Sequence numbers it takes up: its payload, and one each for SYN and FIN.
  public var space: UInt32
  /// Only read from a SYN or SYN-ACK.
  public var windowScale: UInt8?

  @inlinable
  public init(
    _ flags: TCPFlags, sequence: UInt32, acknowledgement: UInt32 = 0, window: UInt16 = 65_535, payload: Int = 0,
    windowScale: UInt8? = nil
  ) {
    kind = TCPSegment.kind(of: flags)
    carriesAcknowledgement = flags.contains(.ack)
    self.sequence = sequence
    self.acknowledgement = acknowledgement
    self.window = window
    space = UInt32(truncatingIfNeeded: payload) &+ UInt32(flags.rawValue & 1) &+ UInt32(flags.rawValue >> 1 & 1)
    self.windowScale = windowScale
  }

  @inlinable @inline(__always)
  public init(_ frame: borrowing Frame) {
    self.init(
      frame.tcpFlags, sequence: frame.tcpSequence, acknowledgement: frame.tcpAcknowledgement, window: frame.tcpWindow,
      payload: frame.payloadLength, windowScale: frame.tcpFlags.contains(.syn) ? frame.tcpWindowScale : nil)
  }

  /// A segment that carries an acknowledgement, perhaps data, and no control bit besides.
  @inlinable @inline(__always)
  init(plainAcknowledgement frame: borrowing Frame) {
    kind = .ack
    carriesAcknowledgement = true
    sequence = frame.tcpSequence
    acknowledgement = frame.tcpAcknowledgement
    window = frame.tcpWindow
    space = UInt32(truncatingIfNeeded: frame.payloadLength)
  }

  @inlinable @inline(__always)
  public static func kind(of flags: TCPFlags) -> Kind {
    // Four bits for every combination of ACK, RST, SYN and FIN, from none of them on: no jump has to be foreseen.
    let place = flags.rawValue & 0b0111 | flags.rawValue >> 1 & 0b1000
    let code = UInt64(0x5554_5132_5554_5055) &>> (UInt64(place) &* 4) & 15
    return unsafe unsafeBitCast(UInt8(truncatingIfNeeded: code), to: Kind.self)
  }
}
