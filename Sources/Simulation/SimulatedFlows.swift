import FlowActors
import Wire

/// A flow as both sides of the simulation know it, and a packet of it.
///
/// The packets of each side are numbered. The flow state is the numbers that are due, so whatever a migration loses,
/// doubles or lets overtake shows at the next packet.
struct SimulatedPacket {
  var flow: Int
  /// 0 the client's, 1 the server's.
  var side: UInt8
  var number: UInt32

  /// Bytes between nodes. Frames of channels are longer.
  static let length = 10

  var bytes: [UInt8] {
    withUnsafeBytes(of: (UInt32(flow).littleEndian, number.littleEndian)) { [1, side] + Array($0) }
  }

  init(flow: Int, side: UInt8, number: UInt32) {
    self.flow = flow
    self.side = side
    self.number = number
  }

  init(_ bytes: UnsafeRawBufferPointer) {
    side = bytes[1]
    flow = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt32.self)))
    number = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 6, as: UInt32.self))
  }

  /// The keys of a flow; the server's side answers to another address, as behind a NAT.
  static func keys(of flow: Int) -> FlowKeyPair {
    let transport = TransportKey(source: 1_000, destination: 80, protocolNumber: IPProtocol.tcp, vlan: 0)
    let (client, server, nat) = (IPv4Address(UInt32(flow + 1)), IPv4Address(0x0a00_0001), IPv4Address(0xc000_0200))
    if flow % 4 == 3 {
      return .ipv6(
        forward: IPv6FiveTuple(
          source: IPAddress(high: 1, low: UInt64(flow)), destination: IPAddress(server), transport: transport),
        reverse: IPv6FiveTuple(
          source: IPAddress(server), destination: IPAddress(high: 2, low: UInt64(flow)), transport: transport))
    }
    return .ipv4(
      forward: IPv4FiveTuple(source: client, destination: server, transport: transport),
      reverse: IPv4FiveTuple(
        source: server, destination: nat,
        transport: TransportKey(source: 80, destination: UInt16(flow + 1), protocolNumber: IPProtocol.tcp, vlan: 0)))
  }

  static func flow(of keys: FlowKeyPair) -> Int {
    switch keys {
    case .ipv4(let forward, _): Int(forward.source.value) - 1
    case .ipv6(let forward, _), .translated(let forward, _): Int(forward.sourceLow)
    }
  }
}

/// What every simulated node reports to, and what stops a run.
final class Witness {
  struct FlowBook {
    /// Packets that have entered, and those that were processed, by side.
    var sent: [UInt32] = [0, 0]
    var processed: [Int] = [0, 0]
    var seen: [Set<UInt32>] = [[], []]
    /// Runtimes that serve the flow now.
    var servers: Set<Int> = []
    /// `flowMigratesIn` minus `flowMigratesOut`, by runtime.
    var hooks: [Int: Int] = [:]
  }

  var books: [FlowBook]
  /// Whether packets keep their order on the links, and no node dies: then nothing at all may be missing.
  let isStrict: Bool
  let keepsOrder: Bool
  private(set) var violation: String?

  init(flows: Int, isStrict: Bool, keepsOrder: Bool) {
    books = Array(repeating: FlowBook(), count: flows)
    self.isStrict = isStrict
    self.keepsOrder = keepsOrder
  }

  func complain(_ text: String) { if violation == nil { violation = text } }

  func serves(_ flow: Int, at place: Int, _ isServing: Bool) {
    if isServing { books[flow].servers.insert(place) } else { books[flow].servers.remove(place) }
    if books[flow].servers.count > 1 { complain("flow \(flow) is served by \(books[flow].servers.sorted())") }
  }

  func processed(_ packet: SimulatedPacket, due: UInt32, at place: Int) {
    let side = Int(packet.side)
    if !books[packet.flow].seen[side].insert(packet.number).inserted {
      complain("packet \(packet.number) of flow \(packet.flow), side \(side), was processed twice")
    }
    books[packet.flow].processed[side] += 1
    if !books[packet.flow].servers.contains(place) {
      complain("packet \(packet.number) of flow \(packet.flow) was processed at \(place), which does not own the flow")
    }
    if isStrict, keepsOrder, packet.number != due {
      complain("packet \(packet.number) of flow \(packet.flow), side \(side), was processed at \(place) where \(due) was due")
    }
  }

  func hook(_ flow: Int, at place: Int, arrives: Bool) {
    let balance = books[flow].hooks[place, default: 0] + (arrives ? 1 : -1)
    books[flow].hooks[place] = balance
    if isStrict, !(0...1).contains(balance) {
      complain("flow \(flow) has arrived \(balance) times more at \(place) than it has left")
    }
  }

  func lost(_ packet: SimulatedPacket, _ why: String) {
    if isStrict { complain("packet \(packet.number) of flow \(packet.flow) was lost: \(why)") }
  }
}

/// The flow table of a simulated runtime, as the machines of a migration see it.
final class SimulatedFlows: DepartingFlows, ArrivingFlows {
  struct Record {
    var flow = -1
    var phase = MigrationPhase.settled
  }

  let place: Int
  let witness: Witness
  var records: [Record]
  var slots: [Int: UInt32] = [:]
  let states: UnsafeMutableRawPointer
  static let stateSize = 16
  var defect: MigrationDefect?
  private var withheld: [[UInt8]] = []
  /// Packets for flows that have left again, or have not come: their phase says what to do.
  var passedOn: [SimulatedPacket] = []
  private var isLettingGo = false

  init(place: Int, capacity: Int, witness: Witness) {
    self.place = place
    self.witness = witness
    records = Array(repeating: Record(), count: capacity)
    states = .allocate(byteCount: capacity * Self.stateSize, alignment: 16)
    states.initializeMemory(as: UInt8.self, repeating: 0, count: capacity * Self.stateSize)
  }

  deinit { states.deallocate() }

  private func due(_ slot: UInt32) -> UnsafeMutablePointer<UInt32> {
    (states + Int(slot) * Self.stateSize).assumingMemoryBound(to: UInt32.self)
  }

  func open(_ flow: Int) {
    guard let slot = make(flow, MigrationPhase.settled) else { return }
    states.advanced(by: Int(slot) * Self.stateSize).initializeMemory(as: UInt8.self, repeating: 0, count: Self.stateSize)
  }

  private func make(_ flow: Int, _ phase: MigrationPhase) -> UInt32? {
    guard let free = records.firstIndex(where: { $0.flow < 0 }) else { return nil }
    records[free] = Record(flow: flow, phase: .init(.arriving))
    slots[flow] = UInt32(free)
    setPhase(phase, of: UInt32(free))
    return UInt32(free)
  }

  /// The runtime is gone.
  func end() { for record in records where record.flow >= 0 { witness.serves(record.flow, at: place, false) } }

  // MARK: Departing

  func choose() -> UInt32? { records.firstIndex { $0.flow >= 0 && $0.phase == .settled }.map { UInt32($0) } }
  func foresee(_ slot: UInt32) {}
  func keys(of slot: UInt32) -> FlowKeyPair { SimulatedPacket.keys(of: records[Int(slot)].flow) }
  func travelling(_ slot: UInt32, now: Tick) -> TravellingFlow {
    TravellingFlow(timeoutClass: 1, idleMilliseconds: 0, actor: UInt64(records[Int(slot)].flow))
  }
  func state(of slot: UInt32) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: states + Int(slot) * Self.stateSize, count: Self.stateSize)
  }

  func setPhase(_ phase: MigrationPhase, of slot: UInt32) {
    records[Int(slot)].phase = phase
    witness.serves(records[Int(slot)].flow, at: place, phase.isServing)
  }

  func depart(_ slot: UInt32, to peer: UInt8) {
    witness.hook(records[Int(slot)].flow, at: place, arrives: false)
    setPhase(MigrationPhase(.departed, peer: peer), of: slot)
  }

  // MARK: Arriving

  func expect(_ keys: FlowKeyPair, timeoutClass: UInt8, peer: UInt8, now: Tick) -> UInt32? {
    let flow = SimulatedPacket.flow(of: keys)
    guard let slot = slots[flow] else { return make(flow, MigrationPhase(.arriving, peer: peer)) }
    // A flow that has left and comes back finds its old record.
    guard records[Int(slot)].phase.step == .departed else { return nil }
    setPhase(MigrationPhase(.arriving, peer: peer), of: slot)
    return slot
  }

  func forget(_ slot: UInt32) {
    let flow = records[Int(slot)].flow
    witness.serves(flow, at: place, false)
    slots[flow] = nil
    records[Int(slot)] = Record()
  }

  func install(_ slot: UInt32, _ flow: TravellingFlow, state: UnsafeRawBufferPointer, now: Tick) {
    if flow.actor != UInt64(records[Int(slot)].flow) {
      witness.complain("flow \(records[Int(slot)].flow) got the state of \(flow.actor)")
    }
    (states + Int(slot) * Self.stateSize).copyMemory(from: state.baseAddress!, byteCount: Self.stateSize)
    for _ in 0..<(defect == .installsTwice ? 2 : 1) { witness.hook(records[Int(slot)].flow, at: place, arrives: true) }
    setPhase(.settled, of: slot)
  }

  /// Packets that the target's machine lets go.
  func process(_ frame: UnsafeRawBufferPointer, side: UInt8, now: Tick) {
    if defect == .letsGoNewestFirst, !isLettingGo {
      withheld.append(Array(frame))
    } else {
      let packet = SimulatedPacket(frame)
      if let slot = slots[packet.flow], records[Int(slot)].phase.isServing { serve(packet) } else { passedOn.append(packet) }
    }
  }

  func letGo() {
    isLettingGo = true
    for frame in withheld.reversed() { frame.withUnsafeBytes { process($0, side: 0, now: .zero) } }
    withheld = []
    isLettingGo = false
  }

  /// Runs a packet through the "chain".
  func serve(_ packet: SimulatedPacket) {
    guard let slot = slots[packet.flow] else { return witness.lost(packet, "nobody at \(place) knows its flow") }
    let due = due(slot) + Int(packet.side)
    witness.processed(packet, due: due.pointee, at: place)
    due.pointee = packet.number &+ 1
  }
}

/// Migrations with a defect: what the machines and their driver must not do. The witness has to notice each.
public enum MigrationDefect: String, CaseIterable, Sendable {
  /// The route changes before the target has made room.
  case answersUnprepared
  /// A flow state is taken over twice.
  case installsTwice
  /// What comes late is dropped instead of sent after.
  case dropsLatePackets
  /// The switch answers first and changes its routes later.
  case answersBeforeChanging
  /// Answers are heard before the packets that were sent ahead of them.
  case hearsAnswersFirst
  /// Held packets go newest first.
  case letsGoNewestFirst
  /// The source still serves a flow whose state is on its way.
  case servesAfterHandover
  /// The target does not wait for the state.
  case servesBeforeState
  /// The source takes flows back by itself after the states were sent.
  case resumesAlone
  /// Some packets that should be held are not.
  case losesHeldPackets
}
