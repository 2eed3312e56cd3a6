import CIntrinsics
import Wire

/// The messages of replication, version 1, little-endian: from a flow's owner to the holder of its replica, and back.
///
///      0  kind    1  changed units (3)    4  slot (4)                                      update
///      0  kind    1  zero    2  bytes of the packet (2)    4  slot (4)    8  word (8)      all others
///
/// | kind | slot | word | then |
/// |---|---|---|---|
/// | open | slots the owner has | hash of the chain's layout | stream (4), zero (4): everything before it is forgotten |
/// | flow | the owner's slot | actor and timeout class | a key entry as in `MigrationMessage`, flow state, packet |
/// | update | the owner's slot | | the units that have changed, packet |
/// | end | the owner's slot | - | - |
/// | handOver | the owner's slot | node of the target | -: the flow's state may be another runtime's soon |
/// | mark | stream | - | - |
/// | marked | stream | replicas held | - (from the holder) |
/// | refused | stream | - | - (from the holder): it cannot hold replicas of this owner |
/// | close | - | - | - (from the owner): its replicas are of no use any more |
/// | standBy | node of a life that is over | its life | - (from its heir): replicas of that life are to be kept until `settled` |
/// | settled | node of a life that is over | its life | - (from its heir): the flows of that life have replicas of their own again |
///
/// Bit 0 of the changed units is the word of a `flow` message, eight bytes; the others are pieces of the flow state, see
/// `ReplicaLayout`. What a message says is stored first; then its packet, a whole frame addressed to its switch, is
/// released.
public struct ReplicationMessage: Equatable, Sendable {
  public enum Kind: UInt8, CaseIterable, Sendable {
    case open = 0x21
    case flow, update, end, handOver, mark, marked, refused, close, standBy, settled
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

  /// Reads the header; `nil` for what version 1 does not have, and for an update, whose header is `ReplicationUpdate`.
  @inline(__always)
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.headerLength, let kind = Kind(rawValue: bytes[0]), kind != .update else { return nil }
    self.kind = kind
    packetLength = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
    slot = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
  }

  /// Whether a message is one of these, rather than one of a migration.
  @inline(__always)
  public static func isOne(_ message: UnsafeRawBufferPointer) -> Bool {
    message.count >= ReplicationUpdate.headerLength && message[0] >= Kind.open.rawValue && message[0] <= Kind.settled.rawValue
  }

  public static func kind(_ message: UnsafeRawBufferPointer) -> Kind? { message.first.flatMap(Kind.init) }

  @inline(__always)
  func write(to bytes: UnsafeMutableRawPointer) {
    let head = UInt64(kind.rawValue) | UInt64(packetLength) << 16 | UInt64(slot) << 32
    bytes.storeBytes(of: head.littleEndian, as: UInt64.self)
    bytes.storeBytes(of: word.littleEndian, toByteOffset: 8, as: UInt64.self)
  }
}

/// The header of an `update`: what nearly every message is, and so short.
@usableFromInline
struct ReplicationUpdate {
  static var headerLength: Int { 8 }

  var changed: UInt32
  var slot: UInt32

  @inline(__always)
  init(changed: UInt32, slot: UInt32) {
    self.changed = changed
    self.slot = slot
  }

  /// `nil` for another kind of message.
  @inline(__always)
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.headerLength else { return nil }
    let head = unsafe UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
    guard UInt8(truncatingIfNeeded: head) == ReplicationMessage.Kind.update.rawValue else { return nil }
    changed = UInt32(truncatingIfNeeded: head) >> 8
    slot = UInt32(truncatingIfNeeded: head >> 32)
  }

  @inline(__always)
  func write(to bytes: UnsafeMutableRawPointer) {
    let head = UInt64(ReplicationMessage.Kind.update.rawValue) | UInt64(changed) << 8 | UInt64(slot) << 32
    unsafe bytes.storeBytes(of: head.littleEndian, as: UInt64.self)
  }
}

/// How a flow's state is cut into at most 23 units of equal size, the last one perhaps shorter.
public struct ReplicaLayout: Equatable, Sendable {
  public static let mostUnits = 23

  public let stateSize: Int
  /// Bytes of a unit: 4 as long as that makes no more than 23, otherwise twice, four times ... as many.
  public let unit: Int
  public let units: Int

  public init(stateSize: Int) {
    precondition(stateSize > 0 && stateSize % 4 == 0, "states are whole words")
    self.stateSize = stateSize
    var unit = 4
    while (stateSize + unit - 1) / unit > Self.mostUnits { unit *= 2 }
    self.unit = unit
    units = (stateSize + unit - 1) / unit
  }

  @inline(__always)
  func length(of index: Int) -> Int { min(unit, stateSize - index * unit) }

  /// The units in which two states differ, as bits. Both have room for a whole number of 16 bytes.
  @inline(__always)
  func difference(_ a: UnsafeRawPointer, _ b: UnsafeRawPointer) -> UInt32 {
    if unit == 4 { return unsafe nfv_differing_words(a, b, units) }
    return unsafe differenceOfLargeUnits(a, b)
  }

  @inline(never)
  private func differenceOfLargeUnits(_ a: UnsafeRawPointer, _ b: UnsafeRawPointer) -> UInt32 {
    var bits: UInt32 = 0
    for index in 0..<units {
      var offset = index * unit
      let end = min(offset + unit, stateSize)
      while offset < end {
        if unsafe nfv_differing_words(a + offset, b + offset, min(8, (end - offset) / 4)) != 0 {
          bits |= 1 << UInt32(index)
          break
        }
        offset += 32
      }
    }
    return bits
  }

  /// Bytes of changed units, the word included; `nil` for a unit that there is not.
  @inline(__always)
  func length(of changed: UInt32) -> Int? {
    let bits = changed >> 1
    guard bits >> UInt32(units) == 0 else { return nil }
    var length = Int(changed & 1) &* 8 &+ bits.nonzeroBitCount &* unit
    if bits >> UInt32(units - 1) & 1 != 0 { length += stateSize - units * unit }
    return length
  }
}

/// What an owner tells its holder besides what the stream says: before a flow's state goes to another runtime, and when
/// another runtime is the holder.
public enum ReplicationNotice {
  public static func writeClose(to scratch: UnsafeMutableRawPointer, _ send: (RawSpan) -> Bool) -> Bool {
    ReplicationMessage(.close, slot: 0).write(to: scratch)
    return send(UnsafeRawBufferPointer(start: scratch, count: ReplicationMessage.headerLength).bytes)
  }

  /// The flows of this life are being taken over, and what others have of them is to be kept; or they have replicas of their own
  /// again, and it is not.
  public static func writeInheritance(
    of life: FlowOwner, isSettled: Bool, to scratch: UnsafeMutableRawPointer, _ send: (RawSpan) -> Bool
  ) -> Bool {
    ReplicationMessage(isSettled ? .settled : .standBy, slot: life.node, word: life.incarnation).write(to: scratch)
    return send(UnsafeRawBufferPointer(start: scratch, count: ReplicationMessage.headerLength).bytes)
  }

  /// The life that such a message is about; `nil` for any other message.
  public static func inheritance(_ bytes: UnsafeRawBufferPointer) -> (life: FlowOwner, isSettled: Bool)? {
    guard let message = unsafe ReplicationMessage(bytes), message.kind == .settled || message.kind == .standBy,
      bytes.count == ReplicationMessage.headerLength
    else { return nil }
    return (FlowOwner(node: message.slot, incarnation: message.word), message.kind == .settled)
  }

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
