import NetworkFunctions
import Wire

/// The messages of a migration, and of what it leaves to be settled; version 1, little-endian. One message carries up to 32 flows.
///
///      0  kind    1  version    2  count (2)    4  run (4)    8  batch (4)    12  node (4)    16  word (8)
///
/// | kind | from, to | node | word | then |
/// |---|---|---|---|---|
/// | prepare | source, target | low half of the target's incarnation | hash of the chain's layout | a key entry per flow |
/// | prepared | target, source | - | flows accepted (bits) | - |
/// | changeRoute | source, switch | new owner | its incarnation | expected owner: node (4), zero (4), incarnation (8); a key entry per flow |
/// | routeChanged | switch, source | new owner | changed (bits 0-31), refused (32-63) | an epoch (4) per flow |
/// | install | source, target | - | hash of the chain's layout | a state entry per flow; flows of the batch without one are given up |
/// | installed | target, source | - | flows that are the target's now (bits) | the class of its pause (1) per flow of `install` |
/// | latePacket | source, target | side | - | the frame |
/// | claim | heir or source, runtime | a life that is over | its incarnation | a key entry per flow: which of them do you have? |
/// | claimed | the runtime | - | flows it has (bits) | - |
/// | returned | runtime, owner of a share | index of that share | hash of the chain's layout | an entry per return |
/// | census | switch, runtime | a life that is over: recover its flows first | its incarnation | - |
/// | counted | runtime, switch | - | - | - |
/// | routes | runtime, switch | - | - | a key entry per flow that is the runtime's |
///
/// The batch of `census` is 0 for "ask me, too, about flows that move" and 1 for "tell me which are yours"; that of `counted` 0 for
/// "nothing moves any more that you were not asked about" and 1 for "those were all".
///
/// A key entry: family (1: 0 IPv4, 1 IPv6, 2 IPv6 forward and IPv4 reverse), timeout class (1), zero (6), forward and reverse key
/// (16 or 40 each).
/// A state entry: place in the batch (1), timeout class (1), bytes of flow state (2), idle milliseconds (4), route epoch (4),
/// zero (4), actor (8), flow state. An entry of a return: place in the chain (4), zero (4), words of the function (16). Bits count from the first flow of the batch.
public struct MigrationMessage: Equatable, Sendable {
  public enum Kind: UInt8, CaseIterable, Sendable {
    case prepare = 1
    case prepared, changeRoute, routeChanged, install, installed, latePacket, claim, claimed, returned, census, counted, routes
  }

  public static let version: UInt8 = 1
  public static let headerLength = 24
  public static let mostFlows = 32

  public var kind: Kind
  public var count: UInt16 = 0
  public var run: UInt32
  public var batch: UInt32
  public var node: UInt32 = 0
  public var word: UInt64 = 0

  init(_ kind: Kind, run: UInt32, batch: UInt32) {
    self.kind = kind
    self.run = run
    self.batch = batch
  }

  /// Reads the header; `nil` for what version 1 does not have.
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.headerLength, bytes[1] == Self.version, let kind = Kind(rawValue: bytes[0]) else { return nil }
    let reader = MigrationReader(bytes)
    self.kind = kind
    count = reader.load(2)
    run = reader.load(4)
    batch = reader.load(8)
    node = reader.load(12)
    word = reader.load(16)
    guard count <= Self.mostFlows else { return nil }
  }

  /// What kind of message this is, to tell which machine it is for; `nil` for anything else.
  public static func kind(_ message: RawSpan) -> Kind? {
    message.withUnsafeBytes { MigrationMessage($0)?.kind }
  }

  /// Gives up to 32 returns, all of one share, back to the runtime that has it.
  public static func returns(_ returns: Span<SharedReturn>, layout: UInt64, into scratch: UnsafeMutableRawPointer)
    -> UnsafeRawBufferPointer
  {
    precondition(1...mostFlows ~= returns.count, "a message carries at least one return and at most as many as flows")
    var message = MigrationMessage(.returned, run: 0, batch: 0)
    (message.count, message.node, message.word) = (UInt16(returns.count), UInt32(returns[0].share), layout)
    var writer = MigrationWriter(message, into: scratch)
    for index in returns.indices {
      writer.put(UInt64(returns[index].place))
      writer.put(returns[index].words[0])
      writer.put(returns[index].words[1])
    }
    return writer.message
  }

  /// Hands out the returns of a message of kind `returned`; `false`, and nothing is handed out, when it is malformed.
  public static func returns(_ bytes: UnsafeRawBufferPointer, layout: UInt64, _ body: (SharedReturn) -> Void) -> Bool {
    guard let message = MigrationMessage(bytes), message.kind == .returned, message.word == layout,
      bytes.count == headerLength + 24 * Int(message.count), let share = UInt16(exactly: message.node)
    else { return false }
    let reader = MigrationReader(bytes)
    for index in 0..<Int(message.count) {
      let offset = headerLength + 24 * index
      var returned = SharedReturn(share: share, words: SIMD2(reader.load(offset + 8), reader.load(offset + 16)))
      returned.place = reader.load(offset)
      body(returned)
    }
    return true
  }

  /// The flows a message is about, as bits.
  var all: UInt32 { count == 32 ? .max : (1 << UInt32(count)) &- 1 }

  /// The hash of a chain's layout string that travels with every flow (FNV-1a): two runtimes exchange flows only if
  /// their chains keep the same state in the same places.
  public static func layoutHash(_ layout: String) -> UInt64 {
    layout.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}

/// A flow that travels: what its record and its chain know of it.
public struct TravellingFlow: BitwiseCopyable, Equatable, Sendable {
  public var timeoutClass: UInt8
  /// Since its last packet.
  public var idleMilliseconds: UInt32
  /// The flow's actor, as eight bytes of its own layout.
  public var actor: UInt64

  public init(timeoutClass: UInt8, idleMilliseconds: UInt32, actor: UInt64) {
    self.timeoutClass = timeoutClass
    self.idleMilliseconds = idleMilliseconds
    self.actor = actor
  }
}

/// Reads messages, never beyond their end.
struct MigrationReader {
  let bytes: UnsafeRawBufferPointer
  var offset = MigrationMessage.headerLength

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  func load<Word: FixedWidthInteger & BitwiseCopyable>(_ offset: Int) -> Word {
    Word(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Word.self))
  }

  var isAtEnd: Bool { offset == bytes.count }

  private mutating func word() -> UInt64 {
    defer { offset += 8 }
    return load(offset)
  }

  mutating func owner() -> FlowOwner? {
    guard bytes.count - offset >= 16 else { return nil }
    defer { offset += 16 }
    return FlowOwner(node: load(offset), incarnation: load(offset + 8))
  }

  mutating func keys() -> (keys: FlowKeyPair, timeoutClass: UInt8)? {
    guard bytes.count - offset >= 8 else { return nil }
    let (flags, timeoutClass) = (bytes[offset], bytes[offset + 1])
    guard flags <= 2, bytes.count - offset >= (flags == 0 ? 40 : flags == 1 ? 88 : 64) else { return nil }
    offset += 8
    switch flags {
    case 0: return (.ipv4(forward: ipv4Key(), reverse: ipv4Key()), timeoutClass)
    case 1: return (.ipv6(forward: ipv6Key(), reverse: ipv6Key()), timeoutClass)
    default: return (.translated(forward: ipv6Key(), reverse: ipv4Key()), timeoutClass)
    }
  }

  private mutating func transport() -> TransportKey {
    let word = word()
    return TransportKey(
      source: UInt16(truncatingIfNeeded: word), destination: UInt16(truncatingIfNeeded: word >> 16),
      protocolNumber: UInt8(truncatingIfNeeded: word >> 32), vlan: UInt16(truncatingIfNeeded: word >> 40))
  }

  private mutating func ipv4Key() -> IPv4FiveTuple {
    let addresses = word()
    return IPv4FiveTuple(
      source: IPv4Address(UInt32(truncatingIfNeeded: addresses)),
      destination: IPv4Address(UInt32(truncatingIfNeeded: addresses >> 32)),
      transport: transport())
  }

  private mutating func ipv6Key() -> IPv6FiveTuple {
    let (source, destination) = (IPAddress(high: word(), low: word()), IPAddress(high: word(), low: word()))
    return IPv6FiveTuple(source: source, destination: destination, transport: transport())
  }

  mutating func state() -> (place: UInt8, epoch: UInt32, flow: TravellingFlow, state: UnsafeRawBufferPointer)? {
    guard bytes.count - offset >= 24 else { return nil }
    let (place, timeoutClass, size) = (bytes[offset], bytes[offset + 1], Int(load(offset + 2) as UInt16))
    guard bytes.count - offset - 24 >= size else { return nil }
    defer { offset += 24 + size }
    let flow = TravellingFlow(timeoutClass: timeoutClass, idleMilliseconds: load(offset + 4), actor: load(offset + 16))
    return (place, load(offset + 8), flow, UnsafeRawBufferPointer(rebasing: bytes[offset + 24..<offset + 24 + size]))
  }
}

/// Writes messages into memory set aside at start.
struct MigrationWriter {
  private let bytes: UnsafeMutableRawPointer
  private(set) var count = 0

  init(_ message: MigrationMessage, into bytes: UnsafeMutableRawPointer) {
    self.bytes = bytes
    put(message.kind.rawValue)
    put(MigrationMessage.version)
    put(message.count)
    put(message.run)
    put(message.batch)
    put(message.node)
    put(message.word)
  }

  /// Goes on behind the header of another kind of message.
  init(into bytes: UnsafeMutableRawPointer, behind header: Int) {
    self.bytes = bytes
    count = header
  }

  var message: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: bytes, count: count) }

  mutating func put<Word: FixedWidthInteger & BitwiseCopyable>(_ word: Word) {
    bytes.storeBytes(of: word.littleEndian, toByteOffset: count, as: Word.self)
    count += MemoryLayout<Word>.size
  }

  mutating func put(_ raw: UnsafeRawBufferPointer) {
    guard let source = raw.baseAddress else { return }
    (bytes + count).copyMemory(from: source, byteCount: raw.count)
    count += raw.count
  }

  mutating func put(_ owner: FlowOwner) {
    put(owner.node)
    put(UInt32(0))
    put(owner.incarnation)
  }

  mutating func put(_ keys: FlowKeyPair, timeoutClass: UInt8) {
    switch keys {
    case .ipv4(let forward, let reverse):
      put(UInt64(timeoutClass) << 8)
      put(forward)
      put(reverse)
    case .ipv6(let forward, let reverse):
      put(UInt64(timeoutClass) << 8 | 1)
      put(forward)
      put(reverse)
    case .translated(let forward, let reverse):
      put(UInt64(timeoutClass) << 8 | 2)
      put(forward)
      put(reverse)
    }
  }

  private mutating func put(_ key: IPv4FiveTuple) {
    put(key.addresses)
    put(key.transport.word)
  }

  private mutating func put(_ key: IPv6FiveTuple) {
    put(key.sourceHigh)
    put(key.sourceLow)
    put(key.destinationHigh)
    put(key.destinationLow)
    put(key.transport.word)
  }

  mutating func put(place: Int, epoch: UInt32, _ flow: TravellingFlow, state: UnsafeRawBufferPointer) {
    put(UInt8(place))
    put(flow.timeoutClass)
    put(UInt16(state.count))
    put(flow.idleMilliseconds)
    put(epoch)
    put(UInt32(0))
    put(flow.actor)
    put(state)
  }
}
