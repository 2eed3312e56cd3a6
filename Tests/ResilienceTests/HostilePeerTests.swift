import FixedContainers
import Foundation
import Simulation
import Testing
import Wire

@testable import FlowActors

/// Messages of migration and replication as a broken or hostile peer might send them, behind a channel that is in order:
/// whatever comes is understood or refused, and nothing is written or read beyond what there is.
@Suite struct HostilePeerTests {
  /// How many messages each seed sends; `NFV_LONG` makes it many more.
  private static let rounds = ProcessInfo.processInfo.environment["NFV_LONG"] == nil ? 6_000 : 400_000

  private static func keys(_ chance: inout Chance) -> FlowKeyPair {
    let flow = chance.below(40)
    let transport = TransportKey(source: 1_000, destination: UInt16(flow), protocolNumber: IPProtocol.tcp, vlan: 0)
    let back = TransportKey(source: UInt16(flow), destination: 1_000, protocolNumber: IPProtocol.tcp, vlan: 0)
    let (one, other) = (IPv4Address(UInt32(flow + 1)), IPv4Address(0x0a00_0001))
    guard flow % 4 == 3 else {
      return .ipv4(
        forward: IPv4FiveTuple(source: one, destination: other, transport: transport),
        reverse: IPv4FiveTuple(source: other, destination: one, transport: back))
    }
    let (six, sixOther) = (IPAddress(high: 1, low: UInt64(flow)), IPAddress(high: 2, low: 1))
    return .ipv6(
      forward: IPv6FiveTuple(source: six, destination: sixOther, transport: transport),
      reverse: IPv6FiveTuple(source: sixOther, destination: six, transport: back))
  }

  /// Some bytes changed, some at the end gone or doubled; now and then nothing at all.
  private static func broken(_ bytes: [UInt8], _ chance: inout Chance) -> [UInt8] {
    var bytes = bytes
    switch chance.below(6) {
    case 0: break
    case 1: bytes.removeLast(chance.below(bytes.count + 1))
    case 2: bytes += bytes.suffix(chance.below(bytes.count + 1))
    default:
      for _ in 0..<1 + chance.below(4) where !bytes.isEmpty {
        // Mostly in the header.
        let at = chance.below(chance.happens(600) ? min(28, bytes.count) : bytes.count)
        bytes[at] = chance.happens(500) ? [0, 1, 2, 31, 32, 0x7f, 0x80, 0xff][chance.below(8)] : UInt8(chance.below(256))
      }
    }
    return bytes
  }

  private static func written(_ write: (inout MigrationWriter) -> Void, _ start: MigrationWriter, _ room: UnsafeMutableRawPointer)
    -> [UInt8]
  {
    var writer = start
    write(&writer)
    return Array(UnsafeRawBufferPointer(start: room, count: writer.count))
  }

  // MARK: Replication

  @Test(arguments: [UInt64(1), 2, 3, 4]) func `a holder of replicas takes no harm from an owner's messages`(seed: UInt64) {
    var chance = Chance(seed: seed)
    let stateSize = seed % 2 == 0 ? 48 : 2_256
    let capacity = 32
    var store = ReplicaStore(
      of: FlowOwner(node: 3, incarnation: 1), layout: 77, stateSize: stateSize, capacity: capacity, ipv6Capacity: capacity,
      seed: seed,
      now: .zero, memory: .plain)
    let room = UnsafeMutableRawPointer.allocate(byteCount: 8_192, alignment: 16)
    defer { room.deallocate() }
    let layout = ReplicaLayout(stateSize: stateSize)
    var (understood, malformed, released) = (0, 0, 0)
    for round in 0..<Self.rounds {
      let slot = UInt32(chance.below(capacity))
      var message: [UInt8]
      switch chance.below(9) {
      case 0 where round == 0 || chance.happens(50):
        ReplicationMessage(.open, slot: UInt32(capacity), word: 77).write(to: room)
        room.storeBytes(of: UInt64(5).littleEndian, toByteOffset: ReplicationMessage.headerLength, as: UInt64.self)
        message = Array(UnsafeRawBufferPointer(start: room, count: ReplicationMessage.headerLength + 8))
      case 1, 2, 3:
        let packet = chance.below(60)
        ReplicationMessage(.flow, slot: slot, word: chance.next(), packetLength: packet).write(to: room)
        let keys = Self.keys(&chance)
        message = Self.written(
          { $0.put(keys, timeoutClass: UInt8(chance.below(256))) },
          MigrationWriter(into: room, behind: ReplicationMessage.headerLength), room)
        message += [UInt8](repeating: UInt8(round & 255), count: stateSize + packet)
      case 4:
        ReplicationMessage(ReplicationMessage.Kind.allCases[chance.below(ReplicationMessage.Kind.allCases.count)], slot: slot, word: chance.next()).write(to: room)
        message = Array(UnsafeRawBufferPointer(start: room, count: ReplicationMessage.headerLength))
      default:
        let changed = UInt32(truncatingIfNeeded: chance.next()) & (1 << UInt32(layout.units + 1) - 1)
        ReplicationUpdate(changed: changed, slot: slot).write(to: room)
        message = Array(UnsafeRawBufferPointer(start: room, count: ReplicationUpdate.headerLength))
        message += [UInt8](repeating: UInt8(round & 255), count: (layout.length(of: changed) ?? 0) + chance.below(40))
      }
      message = Self.broken(message, &chance)
      let length = message.count
      let outcome = message.withUnsafeBytes { bytes in
        store.receive(bytes, now: Tick(milliseconds: UInt64(round))) { packet in
          released += 1
          #expect(packet.count <= length, "seed \(seed), round \(round)")
          if let start = packet.baseAddress {
            #expect(start >= bytes.baseAddress! && start + packet.count <= bytes.baseAddress! + length)
          }
        }
      }
      if outcome == .malformed { malformed += 1 } else { understood += 1 }
      #expect(store.count <= capacity, "seed \(seed), round \(round)")
      if chance.happens(20) { while let place = store.next() { store.remove(place) } }
    }
    #expect(
      understood > Self.rounds / 20 && malformed > Self.rounds / 20 && released > 0, "seed \(seed): \(understood), \(malformed)")
  }

  // MARK: Migration

  /// A runtime's flows as a migration's target sees them.
  private struct Flows: ArrivingFlows, ~Copyable {
    static let capacity = 24
    var arriving: Set<UInt32> = []
    var installed = 0
    var processed = 0

    func foresee(_ slot: UInt32) { #expect(slot < Self.capacity) }
    mutating func expect(_ keys: FlowKeyPair, timeoutClass: UInt8, peer: UInt8, now: Tick) -> UInt32? {
      guard let slot = (0..<UInt32(Self.capacity)).first(where: { !arriving.contains($0) }) else { return nil }
      arriving.insert(slot)
      return slot
    }
    mutating func forget(_ slot: UInt32) {
      let wasAwaited = arriving.remove(slot) != nil
      #expect(wasAwaited, "only what was expected is forgotten")
    }
    mutating func install(_ slot: UInt32, _ flow: TravellingFlow, state: UnsafeRawBufferPointer, now: Tick) {
      let wasAwaited = arriving.remove(slot) != nil
      #expect(wasAwaited && state.count == 16, "only what was expected is installed, and whole")
      installed += 1
    }
    mutating func process(_ frame: UnsafeRawBufferPointer, side: UInt8, now: Tick) { processed += frame.count }
  }

  private struct Outbox: MigrationOutbox, ~Copyable {
    var sent = 0
    mutating func send(_ message: RawSpan, to peer: UInt8) -> Bool {
      sent += 1
      return sent % 7 != 0
    }
  }

  @Test(arguments: [UInt64(1), 2, 3, 4]) func `a target takes no harm from a source's messages`(seed: UInt64) {
    var chance = Chance(seed: seed)
    var target = MigrationTarget(
      owner: FlowOwner(node: 2, incarnation: 9), layout: 5, stateSize: 16, flowCapacity: Flows.capacity, memory: .plain)
    var flows = Flows()
    var outbox = Outbox()
    let room = UnsafeMutableRawPointer.allocate(byteCount: 8_192, alignment: 16)
    defer { room.deallocate() }
    var (understood, malformed) = (0, 0)
    for round in 0..<Self.rounds {
      var message = MigrationMessage(.prepare, run: UInt32(chance.below(3)), batch: UInt32(chance.below(4)))
      (message.node, message.word) = (9, 5)
      let count = 1 + chance.below(4)
      message.count = UInt16(count)
      var bytes: [UInt8]
      switch chance.below(4) {
      case 0, 1:
        let keys = (0..<count).map { _ in Self.keys(&chance) }
        bytes = Self.written(
          { for key in keys { $0.put(key, timeoutClass: UInt8(chance.below(256))) } }, MigrationWriter(message, into: room), room)
      case 2:
        message.kind = .install
        let state = [UInt8](repeating: UInt8(round & 255), count: 16)
        bytes = Self.written(
          { writer in
            for place in 0..<count {
              state.withUnsafeBytes {
                writer.put(
                  place: place, epoch: 1, TravellingFlow(timeoutClass: 3, idleMilliseconds: 1, actor: chance.next()), state: $0)
              }
            }
          }, MigrationWriter(message, into: room), room)
      default:
        message.kind = MigrationMessage.Kind.allCases[chance.below(MigrationMessage.Kind.allCases.count)]
        message.node = UInt32(chance.below(3))
        bytes =
          Self.written({ _ in }, MigrationWriter(message, into: room), room) + [UInt8](repeating: 1, count: chance.below(40))
      }
      bytes = Self.broken(bytes, &chance)
      let now = Tick(milliseconds: UInt64(round))
      let isTaken = bytes.withUnsafeBytes {
        target.receive($0.bytes, from: UInt8(chance.below(2)), now: now, flows: &flows, outbox: &outbox)
      }
      if isTaken { understood += 1 } else { malformed += 1 }
      if let slot = flows.arriving.sorted().randomElement(using: &chance) {
        _ = [UInt8](repeating: 2, count: 60).withUnsafeBytes { target.hold(slot, $0, side: 0, now: now) }
      }
      if chance.happens(30) { target.sourceEnded(UInt8(chance.below(2)), now: now, flows: &flows) }
    }
    for peer in [UInt8(0), 1] { target.sourceEnded(peer, now: Tick(milliseconds: UInt64(Self.rounds)), flows: &flows) }
    let (awaited, held, installed) = (flows.arriving.count, target.heldPackets, flows.installed)
    #expect(awaited == 0 && held == 0, "seed \(seed): with their sources, all that was awaited is given up")
    #expect(
      understood > Self.rounds / 20 && malformed > Self.rounds / 20 && installed > 0, "seed \(seed): \(understood), \(malformed)")
  }
}
