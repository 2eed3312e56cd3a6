import FixedContainers
import FlowActors
import ReliableChannels
import Wire

/// A packet of the simulation, before a runtime has processed it and after: then it says which state it has led to.
struct CommittedPacket: Equatable {
  var flow: Int
  /// Which connection of the flow's endpoints.
  var generation: UInt32
  var isOpening = false
  /// How many packets of the connection its runtime had processed with this one; 0 before.
  var stamp: UInt32 = 0
  /// The address that the connection has from the pool.
  var address: UInt32 = 0
  /// The life that processed it.
  var owner = FlowOwner(node: 0, incarnation: 0)

  /// Bytes between nodes. Frames of channels are longer.
  static let length = 32

  init(flow: Int, generation: UInt32, isOpening: Bool) {
    self.flow = flow
    self.generation = generation
    self.isOpening = isOpening
  }

  init(_ bytes: UnsafeRawBufferPointer) {
    func word(_ offset: Int) -> UInt32 { bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
    flow = Int(word(0))
    generation = word(4)
    isOpening = word(8) == 1
    stamp = word(12)
    address = word(16)
    owner = FlowOwner(node: word(20), incarnation: UInt64(word(24)))
  }

  var bytes: [UInt8] {
    let words = [
      UInt32(flow), generation, isOpening ? 1 : 0, stamp, address, owner.node, UInt32(truncatingIfNeeded: owner.incarnation), 0,
    ]
    return words.withUnsafeBytes { Array($0) }
  }
}

/// What a runtime knows of a connection: eight words, so that an update has units that change and units that do not.
struct ConnectionState: BitwiseCopyable, Equatable {
  var flow: UInt32 = 0
  var generation: UInt32 = 0
  var count: UInt32 = 0
  var address: UInt32 = 0
  /// The count when it last was a multiple of three: a change that one packet makes and the next ones do not make again.
  var milestone: UInt32 = 0
  private var unused: (UInt32, UInt32) = (0, 0)
  private var sum: UInt32 = 0

  static let size = 32

  /// Of all other words: a state put together from two would not have it.
  private var check: UInt32 {
    [flow, generation, count, address, milestone].reduce(0x811c_9dc5) { ($0 ^ $1) &* 0x0100_0193 }
  }

  var isWhole: Bool { sum == check }

  mutating func step() {
    count += 1
    if count % 3 == 0 { milestone = count }
    sum = check
  }

  init(flow: Int, generation: UInt32, address: UInt32) {
    (self.flow, self.generation, self.address) = (UInt32(flow), generation, address)
    sum = check
  }

  init(_ bytes: UnsafeRawBufferPointer) { self = bytes.loadUnaligned(as: ConnectionState.self) }

  static func == (a: Self, b: Self) -> Bool {
    (a.flow, a.generation, a.count, a.address, a.milestone) == (b.flow, b.generation, b.count, b.address, b.milestone)
  }
}

/// The flow table of a replicated runtime.
final class ReplicatedSlots: ReplicatedFlows {
  private(set) var used: [Bool]
  private(set) var slots: [Int: UInt32] = [:]
  private let states: UnsafeMutablePointer<ConnectionState>
  private var ended: [EndsReader: [UInt32]] = [.one: [], .other: []]
  private var births: [UInt16]
  private let isTellingEnds: Bool

  init(capacity: Int, isTellingEnds: Bool) {
    used = Array(repeating: false, count: capacity)
    births = Array(repeating: 0, count: capacity)
    states = .allocate(capacity: capacity)
    states.initialize(repeating: ConnectionState(flow: 0, generation: 0, address: 0), count: capacity)
    self.isTellingEnds = isTellingEnds
  }

  deinit { states.deallocate() }

  var count: Int { slots.count }

  subscript(slot: UInt32) -> ConnectionState {
    get { states[Int(slot)] }
    set { states[Int(slot)] = newValue }
  }

  func make(_ state: ConnectionState) -> UInt32? {
    guard let free = used.firstIndex(of: false) else { return nil }
    used[free] = true
    births[free] += 1
    slots[Int(state.flow)] = UInt32(free)
    states[free] = state
    return UInt32(free)
  }

  func remove(_ slot: UInt32) {
    used[Int(slot)] = false
    slots[Int(self[slot].flow)] = nil
    guard isTellingEnds else { return }
    for (reader, slots) in ended where !slots.contains(slot) { ended[reader]?.append(slot) }
  }

  var slotCount: Int { used.count }
  func isReplicable(_ slot: UInt32) -> Bool { used[Int(slot)] }
  func keys(of slot: UInt32) -> FlowKeyPair { SimulatedPacket.keys(of: Int(self[slot].flow)) }
  func replicaWord(of slot: UInt32) -> UInt64 { ReplicaWord.make(actor: UInt64(self[slot].count / 4), timeoutClass: 1) }
  func state(of slot: UInt32) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: states + Int(slot), count: ConnectionState.size)
  }
  func birth(of slot: UInt32) -> UInt16 { births[Int(slot)] }
  func firstEnded(_ reader: EndsReader) -> UInt32? { ended[reader]?.first }
  func passOverEnded(_ reader: EndsReader) { ended[reader]?.removeFirst() }
}

/// The channels of a replicated runtime, as its machines see them.
struct ReplicationChannels: ReplicationOutbox {
  let channels: SimulatedChannels
  /// Says of every message that it was taken.
  let isLying: Bool
  /// Says of every message that it has arrived.
  let isHasty: Bool
  private let nowhere: UnsafeMutableRawPointer

  init(_ channels: SimulatedChannels, defect: ReplicationDefect?, memory: MemorySource) {
    self.channels = channels
    isLying = defect == .believesRefusedSends
    isHasty = defect == .doesNotWait
    nowhere = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: 4_096))
  }

  func send(_ message: RawSpan, to peer: UInt8) -> Bool { channels.send(message, to: peer) || isLying }

  func reserve(_ count: Int, to peer: UInt8) -> UnsafeMutableRawPointer? {
    channels.ends[Int(peer)]?.channel.reserve(count) ?? (isLying ? nowhere : nil)
  }

  func hasRoomToSpare(to peer: UInt8) -> Bool { channels.ends[Int(peer)]?.channel.hasRoomToSpare ?? isLying }
  func isAlive(_ peer: UInt8) -> Bool { channels.ends[Int(peer)]?.channel.isEstablished ?? false }
  func mark(to peer: UInt8) -> UInt32 { channels.ends[Int(peer)]?.channel.mark.number ?? 0 }

  func hasArrived(_ mark: UInt32, at peer: UInt8) -> Bool {
    isHasty || channels.ends[Int(peer)]?.channel.hasArrived(SequenceNumber(mark)) ?? true
  }

  func peer(inSessionWith life: FlowOwner) -> UInt8? {
    guard let end = channels.ends[Int(life.node) - 1] else { return nil }
    return end.channel.isEstablished && end.channel.peerIncarnation == life.incarnation ? UInt8(life.node - 1) : nil
  }
}

/// The replicas that a runtime holds of one life of another.
final class HeldLife {
  enum Use: Equatable { case held, standby(heir: FlowOwner), recovering(order: Int, with: FlowOwner) }
  var store: ReplicaStore
  var use = Use.held
  init(_ store: consuming ReplicaStore) { self.store = store }

  /// Which of several recoveries this is: newer replicas first.
  var order: Int? { if case .recovering(let order, _) = use { order } else { nil } }

  /// The replica of a flow, as it is.
  func state(of flow: Int) -> ConnectionState? {
    store.find(SimulatedPacket.keys(of: flow).forward).map { ConnectionState(store.state(of: $0)) }
  }
}

/// One life of a runtime whose flows are replicated: the machines, as its worker drives them.
final class ReplicatedLife {
  let owner: FlowOwner
  let place: Int
  let witness: ReplicationWitness
  let flows: ReplicatedSlots
  private(set) var replication: FlowReplication
  private(set) var held: [FlowOwner: HeldLife] = [:]
  private var outbox: ReplicationChannels
  private let pool: AddressPool
  private let defect: ReplicationDefect?
  private let memory: MemorySource
  private var recoveries = 0
  /// Recoveries that begin when whoever stands by has been told.
  private var orders: [(lost: FlowOwner, standby: FlowOwner?)] = []
  /// Lives whose flows are here, and who stands by until all of them have replicas again.
  private var unsettled: [(lost: FlowOwner, standby: FlowOwner)] = []
  /// Lives that are over by the coordinator's word.
  private(set) var fenced: Set<FlowOwner> = []
  /// Owners that are still to be told about a stream.
  private var answers: [(peer: Int, stream: UInt32, isHeld: Bool)] = []
  /// What the coordinator is to hear.
  private(set) var recovered: [FlowOwner] = []
  private(set) var released = 0
  private(set) var takenOver = 0
  private let scratch: UnsafeMutableRawPointer
  /// Hands a packet to the switch.
  private let emit: (CommittedPacket, _ from: ReplicatedLife) -> Void

  private static let layout: UInt64 = 0x1234

  init(
    place: Int, incarnation: UInt64, peers: [Int], flows count: Int, settings: ChannelSettings, now: Tick, witness: ReplicationWitness,
    defect: ReplicationDefect?, memory: MemorySource, emit: @escaping (CommittedPacket, _ from: ReplicatedLife) -> Void
  ) {
    self.place = place
    self.witness = witness
    self.defect = defect
    self.memory = memory
    self.emit = emit
    owner = FlowOwner(node: UInt32(place + 1), incarnation: incarnation)
    flows = ReplicatedSlots(capacity: count, isTellingEnds: defect != .endsUntold)
    replication = FlowReplication(
      layout: Self.layout, stateSize: ConnectionState.size, capacity: count, mostHolders: 2, longestPacket: 64, memory: memory)
    outbox = ReplicationChannels(
      SimulatedChannels(place: place, incarnation: incarnation, peers: peers, settings: settings, now: now, memory: memory),
      defect: defect, memory: memory)
    pool = AddressPool(share: UInt32(incarnation))
    witness.pools[UInt32(incarnation)] = pool
    scratch = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: 64))
  }

  var channels: SimulatedChannels { outbox.channels }
  var addressesTaken: Set<UInt32> { pool.taken }
  var unprotected: Int { replication.unprotected(of: flows.count) }
  var isReplicating: Bool { replication.isOn }
  /// Whether the holders have confirmed that they have every flow there was.
  var isProtected: Bool { replication.isProtected }
  var isRecovering: Bool { !orders.isEmpty || held.values.contains { $0.order != nil } }
  var isStandingBy: Bool { held.values.contains { if case .standby = $0.use { true } else { false } } }

  private func life(of peer: Int) -> FlowOwner {
    FlowOwner(node: UInt32(peer + 1), incarnation: channels.ends[peer]?.channel.peerIncarnation ?? 0)
  }

  // MARK: Packets

  func receive(_ packet: CommittedPacket, now: Tick) {
    var slot = flows.slots[packet.flow]
    if slot == nil { slot = takeOver(packet.flow, now: now) }
    if slot == nil, packet.isOpening { slot = begin(packet) }
    guard let slot else { return }
    if packet.isOpening, packet.generation > flows[slot].generation {
      // The same endpoints again: another connection in the place of the one before, which keeps its address.
      witness.ends(Int(flows[slot].flow), flows[slot].generation, at: owner)
      flows[slot] = ConnectionState(flow: packet.flow, generation: packet.generation, address: flows[slot].address)
      witness.begins(packet.flow, packet.generation, address: flows[slot].address, at: owner)
    }
    guard flows[slot].generation == packet.generation else { return }
    flows[slot].step()
    var answer = packet
    (answer.stamp, answer.address, answer.owner) = (flows[slot].count, flows[slot].address, owner)
    guard replication.isOn else { return emit(answer, self) }
    let outer = answer.bytes
    _ = outer.withUnsafeBytes { bytes in
      var (flows, outbox) = (flows, outbox)
      return replication.commit(slot, packet: bytes, flows: &flows, outbox: &outbox)
    }
  }

  private func begin(_ packet: CommittedPacket) -> UInt32? {
    let address = pool.take()
    guard let slot = flows.make(ConnectionState(flow: packet.flow, generation: packet.generation, address: address)) else {
      pool.giveBack(address)
      return nil
    }
    witness.begins(packet.flow, packet.generation, address: address, at: owner)
    return slot
  }

  /// A flow was idle for too long.
  func expire(_ flow: Int) {
    guard let slot = flows.slots[flow] else { return }
    let state = flows[slot]
    pool.giveBack(state.address)
    witness.ends(flow, state.generation, at: owner)
    flows.remove(slot)
  }

  // MARK: Frames

  func receive(_ frame: UnsafeRawBufferPointer, from peer: Int, now: Tick) {
    guard let end = channels.ends[peer] else { return }
    let before = end.channel.peerIncarnation
    if case .sessionBegan = end.channel.receive(frame, now: now), before != 0 { mourn(FlowOwner(node: UInt32(peer + 1), incarnation: before)) }
    while let message = end.channel.nextMessage() { take(message, from: peer, now: now) }
  }

  private func take(_ message: UnsafeRawBufferPointer, from peer: Int, now: Tick) {
    switch ReplicationMessage.kind(message) {
    case .marked, .refused:
      if !replication.receive(message, from: UInt8(peer)) { witness.complain("an answer at \(place) was malformed") }
    case .close: if held[life(of: peer)]?.use == .held { held[life(of: peer)] = nil }
    case .standBy, .settled:
      let (lost, isSettled) = ReplicationNotice.inheritance(message)!
      if isSettled {
        if held[lost]?.use == .standby(heir: life(of: peer)) { held[lost] = nil }
      } else {
        learnEnd(of: lost)
        standBy(lost, heir: life(of: peer))
      }
    case nil: witness.complain("a message at \(place) was of no kind")
    default: store(message, from: peer, now: now)
    }
  }

  private func store(_ message: UnsafeRawBufferPointer, from peer: Int, now: Tick) {
    let life = life(of: peer)
    if ReplicaStore.streamOpened(by: message) != nil, held[life] == nil {
      held[life] = HeldLife(
        ReplicaStore(
          of: life, layout: Self.layout, stateSize: ConnectionState.size, capacity: flows.slotCount, ipv6Capacity: flows.slotCount,
          seed: 7, now: now, memory: memory))
    }
    guard let store = held[life], store.use == .held || store.order != nil && defect == .recoversUnfenced else { return }
    if defect == .releasesFirst, message.count > CommittedPacket.length {
      let packet = CommittedPacket(UnsafeRawBufferPointer(rebasing: message.suffix(CommittedPacket.length)))
      if packet.owner == life { release(packet) }
    }
    var packet: CommittedPacket?
    let understanding = store.store.receive(message, now: now) { packet = CommittedPacket($0) }
    if let keys = ReplicaStore.flowIntroduced(by: message), defect != .keepsOldReplicas { supersede(keys) }
    if let packet, defect != .releasesFirst { release(packet) }
    switch understanding {
    case .understood: break
    case .markReached(let stream): answers.append((peer, stream, true))
    case .refused(let stream):
      answers.append((peer, stream, false))
      witness.complain("replicas of \(life) were refused")
    case .handedOver: witness.complain("a flow was handed over, and none migrates here")
    case .malformed:
      if defect != .recoversUnfenced { witness.complain("a message of \(life) at \(place) made no sense") }
    }
  }

  /// The flow has a newer replica than that of an owner that has died.
  private func supersede(_ keys: FlowKeyPair) {
    for store in held.values {
      guard case .standby = store.use, let place = store.store.find(keys.forward) else { continue }
      store.store.remove(place)
    }
  }

  private func release(_ packet: CommittedPacket) {
    released += 1
    emit(packet, self)
  }

  // MARK: Words

  /// From now on these lives of other runtimes hold the replicas: as soon as the channels are in sessions with them.
  func protect(_ assignment: UInt32, by holders: [FlowOwner]) {
    var (flows, outbox) = (flows, outbox)
    replication.protect(assignment, by: holders.filter { !fenced.contains($0) }, flows: &flows, outbox: &outbox)
  }

  private func mourn(_ lost: FlowOwner) {
    var flows = flows
    replication.ended(UInt8(lost.node - 1), through: lost.incarnation, flows: &flows)
  }

  private func learnEnd(of lost: FlowOwner) {
    fenced.insert(lost)
    if defect != .recoversUnfenced { channels.ends[Int(lost.node) - 1]?.channel.fence(lost.incarnation) }
    mourn(lost)
  }

  private func standBy(_ lost: FlowOwner, heir: FlowOwner) {
    for store in held where store.value.use == .standby(heir: lost) { held[store.key] = nil }
    if held[lost]?.use == .held { held[lost]?.use = .standby(heir: heir) }
  }

  /// A life is over, and `by` has its flows; `standby` keeps what it has of them.
  func recover(_ lost: FlowOwner, by: FlowOwner?, standby: FlowOwner?) {
    learnEnd(of: lost)
    guard by == owner else {
      if let by, standby == owner { return standBy(lost, heir: by) }
      for store in held where store.value.use == .standby(heir: lost) { held[store.key] = nil }
      held[lost] = nil
      return
    }
    orders.append((lost, standby))
    beginRecoveries()
  }

  private func beginRecoveries() {
    while let (lost, standby) = orders.first {
      if let standby, let peer = outbox.peer(inSessionWith: standby) {
        let isTold = ReplicationNotice.writeInheritance(of: lost, isSettled: false, to: scratch) { outbox.send($0, to: peer) }
        guard isTold else { return }
        unsettled.append((lost, standby))
      }
      orders.removeFirst()
      takeOver(from: lost)
    }
  }

  private func takeOver(from lost: FlowOwner) {
    let inherited = held.filter { $0.value.use == .standby(heir: lost) }.keys.sorted { $0.incarnation < $1.incarnation }
    for life in [lost] + inherited {
      witness.recoveryBegins(of: life)
      recoveries += 1
      held[life]?.use = .recovering(order: recoveries, with: lost)
      if life != lost { witness.isInherited(life) }
    }
    noteRecovered(lost)
  }

  /// The coordinator hears of it when all that was recovered with a life's flows is here, too.
  private func noteRecovered(_ lost: FlowOwner) {
    let isUnderWay = held.values.contains { if case .recovering(_, lost) = $0.use { true } else { false } }
    if !isUnderWay { recovered.append(lost) }
  }

  /// The stores whose flows are being taken over: newer replicas of a flow before older ones.
  private var recovering: [(lost: FlowOwner, store: HeldLife)] {
    let ordered = held.filter { $0.value.order != nil }.sorted { $0.value.order! < $1.value.order! }.map { ($0.key, $0.value) }
    return defect == .keepsOldReplicas ? ordered.reversed() : ordered
  }

  private func takeOver(_ flow: Int, now: Tick) -> UInt32? {
    for (lost, store) in recovering {
      guard let place = store.store.find(SimulatedPacket.keys(of: flow).forward) else { continue }
      return install(store, place, lost, now: now)
    }
    return nil
  }

  private func install(_ store: HeldLife, _ place: UInt32, _ lost: FlowOwner, now: Tick) -> UInt32? {
    let state = ConnectionState(store.store.state(of: place))
    let flow = SimulatedPacket.flow(of: store.store.keys(of: place))
    store.store.remove(place)
    guard flows.slots[flow] == nil else { return nil }
    if flow != Int(state.flow) || !state.isWhole {
      witness.complain("flow \(flow) was recovered at \(self.place) with a state that it never had")
    }
    guard let slot = flows.make(state) else {
      witness.complain("there is no room at \(self.place) for flow \(flow)")
      return nil
    }
    takenOver += 1
    pool.adopt(state.address)
    witness.takesOver(flow, state, from: lost, at: owner)
    return slot
  }

  // MARK: Time

  func pass(now: Tick, chance: inout Chance) {
    var (flows, outbox) = (flows, outbox)
    beginRecoveries()
    if let (lost, store) = recovering.first {
      for _ in 0..<2 { if let place = store.store.next() { _ = install(store, place, lost, now: now) } }
      if store.store.count == 0 {
        guard case .recovering(_, let first) = store.use else { preconditionFailure("it is recovering") }
        held[lost] = nil
        replication.noteArrivals()
        noteRecovered(first)
      }
    }
    if defect == .replicasExpire, chance.happens(100) {
      for (_, store) in held.sorted(by: { $0.key.incarnation < $1.key.incarnation }) where store.use == .held {
        guard let place = store.store.next() else { continue }
        witness.giveBackForOwner(ConnectionState(store.store.state(of: place)).address)
      }
    }
    replication.advance(flows: &flows, outbox: &outbox)
    _ = replication.takeProtected()
    _ = replication.takeLost()
    while let (lost, standby) = unsettled.first, !isRecovering && replication.isProtected || defect == .settlesEarly {
      if let peer = outbox.peer(inSessionWith: standby) {
        let isTold = ReplicationNotice.writeInheritance(of: lost, isSettled: true, to: scratch) { outbox.send($0, to: peer) }
        guard isTold else { break }
      }
      unsettled.removeFirst()
    }
    while let (peer, stream, isHeld) = answers.first {
      guard ReplicationAnswer.write(stream: stream, isHeld: isHeld, to: scratch, { outbox.send($0, to: UInt8(peer)) }) else { break }
      answers.removeFirst()
    }
  }

  func takeRecovered() -> [FlowOwner] {
    defer { recovered = [] }
    return recovered
  }
}
