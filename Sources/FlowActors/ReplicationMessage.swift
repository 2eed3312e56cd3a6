import Wire

/// The messages of replication, version 1, little-endian: from a flow's owner to the holder of its replica, and back.
///
///      0  kind    1  zero    2  bytes of the packet (2)    4  slot (4)    8  word (8)
///
/// | kind | slot | word | then |
/// |---|---|---|---|
/// | open | slots the owner has | hash of the chain's layout | stream (4), zero (4): everything before it is forgotten |
/// | flow | the owner's slot | actor and timeout class | a key entry as in `MigrationMessage`, flow state, packet |
/// | update | the owner's slot | units that have changed (bits) | those units, packet |
/// | end | the owner's slot | - | - |
/// | handOver | the owner's slot | node of the target | -: the flow's state may be another runtime's soon |
/// | mark | stream | - | - |
/// | marked | stream | replicas held | - (from the holder) |
/// | refused | stream | - | - (from the holder): it cannot hold replicas of this owner |
///
/// Unit 0 is the word of a `flow` message; the others are pieces of the flow state, see `ReplicaLayout`. What a message
/// says is stored first; then its packet, a whole frame addressed to its switch, is released.
public struct ReplicationMessage: Equatable, Sendable {
  public enum Kind: UInt8, CaseIterable, Sendable {
    case open = 0x21
    case flow, update, end, handOver, mark, marked, refused
  }

  public static let headerLength = 16

  public var kind: Kind
  public var packetLength: UInt16 = 0
  public var slot: UInt32
  public var word: UInt64

  init(_ kind: Kind, slot: UInt32, word: UInt64 = 0, packetLength: Int = 0) {
    self.kind = kind
    self.packetLength = UInt16(truncatingIfNeeded: packetLength)
    self.slot = slot
    self.word = word
  }

  /// Reads the header; `nil` for what version 1 does not have.
  @inline(__always)
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.headerLength, let kind = Kind(rawValue: bytes[0]) else { return nil }
    self.kind = kind
    packetLength = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
    slot = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
  }

  /// Whether a message is one of these, rather than one of a migration.
  @inline(__always)
  public static func isOne(_ message: UnsafeRawBufferPointer) -> Bool {
    message.count >= headerLength && message[0] >= Kind.open.rawValue && message[0] <= Kind.refused.rawValue
  }

  public static func kind(_ message: UnsafeRawBufferPointer) -> Kind? { ReplicationMessage(message)?.kind }

  @inline(__always)
  func write(to bytes: UnsafeMutableRawPointer) {
    let head = UInt64(kind.rawValue) | UInt64(packetLength) << 16 | UInt64(slot) << 32
    bytes.storeBytes(of: head.littleEndian, as: UInt64.self)
    bytes.storeBytes(of: word.littleEndian, toByteOffset: 8, as: UInt64.self)
  }
}

/// How a flow's state is cut into at most 63 units of equal size, the last one perhaps shorter.
public struct ReplicaLayout: Equatable, Sendable {
  public let stateSize: Int
  /// Bytes of a unit: 8 as long as that makes no more than 63.
  public let unit: Int
  public let units: Int

  public init(stateSize: Int) {
    self.stateSize = stateSize
    var unit = 8
    while (stateSize + unit - 1) / unit > 63 { unit *= 2 }
    self.unit = unit
    units = (stateSize + unit - 1) / unit
  }

  @inline(__always)
  func length(of index: Int) -> Int { min(unit, stateSize - index * unit) }
}

/// What an owner tells its holder before a flow's state goes to another runtime.
public enum ReplicationNotice {
  public static func writeHandOver(
    of slot: UInt32, toNode node: UInt32, to scratch: UnsafeMutableRawPointer, _ send: (RawSpan) -> Bool
  ) -> Bool {
    ReplicationMessage(.handOver, slot: slot, word: UInt64(node)).write(to: scratch)
    return send(UnsafeRawBufferPointer(start: scratch, count: ReplicationMessage.headerLength).bytes)
  }
}

/// What a holder tells an owner about a stream.
public enum ReplicationAnswer {
  /// Writes a `marked` or `refused` message into `scratch` and hands it to `send`.
  public static func write(stream: UInt32, isHeld: Bool, to scratch: UnsafeMutableRawPointer, _ send: (RawSpan) -> Bool) -> Bool {
    ReplicationMessage(isHeld ? .marked : .refused, slot: stream).write(to: scratch)
    return send(UnsafeRawBufferPointer(start: scratch, count: ReplicationMessage.headerLength).bytes)
  }
}
