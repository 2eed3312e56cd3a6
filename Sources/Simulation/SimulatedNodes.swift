import FixedContainers
import FlowActors
import ReliableChannels
import Wire

/// The channels of a simulated node: an end per peer, by the peer's place.
final class SimulatedChannels: MigrationOutbox {
  final class End {
    var channel: ReliableChannel
    init(_ channel: consuming ReliableChannel) { self.channel = channel }
  }

  let place: Int
  private(set) var ends: [Int: End] = [:]
  private let peers: [Int]

  init(place: Int, incarnation: UInt64, peers: [Int], settings: ChannelSettings, now: Tick, memory: MemorySource) {
    self.place = place
    self.peers = peers
    for peer in peers {
      ends[peer] = End(
        ReliableChannel(
          from: UInt32(place + 1), incarnation: incarnation, to: UInt32(peer + 1),
          link: ChannelLink(destination: MACAddress(UInt64(peer + 1)), source: MACAddress(UInt64(place + 1))), settings: settings,
          now: now,
          memory: memory))
    }
  }

  func send(_ message: RawSpan, to peer: UInt8) -> Bool { ends[Int(peer)].map { $0.channel.send(message) } ?? false }

  /// Sends what is due, in the order of the peers.
  func fill(_ buffer: UnsafeMutableRawPointer, now: Tick, _ transmit: ([UInt8], _ peer: Int) -> Void) {
    for peer in peers {
      guard let end = ends[peer] else { continue }
      _ = end.channel.poll(now: now)
      while case let length = end.channel.fill(buffer, now: now), length > 0 {
        transmit(Array(UnsafeRawBufferPointer(start: buffer, count: length)), peer)
      }
    }
  }
}

/// A runtime: the machines as its worker drives them.
final class SimulatedRuntime {
  let owner: FlowOwner
  let place: Int
  var channels: SimulatedChannels
  var flows: SimulatedFlows
  var source: MigrationSource
  var target: MigrationTarget
  let defect: MigrationDefect?
  private let scratch = UnsafeMutableRawPointer.allocate(byteCount: 4_096, alignment: 8)

  init(
    place: Int, incarnation: UInt64, peers: [Int], witness: Witness, settings: SimulationSettings, now: Tick,
    defect: MigrationDefect?, memory: MemorySource
  ) {
    self.place = place
    self.defect = defect
    owner = FlowOwner(node: UInt32(place + 1), incarnation: incarnation)
    channels = SimulatedChannels(
      place: place, incarnation: incarnation, peers: peers, settings: settings.channel, now: now, memory: memory)
    flows = SimulatedFlows(place: place, capacity: settings.flows, witness: witness)
    flows.defect = defect
    let layout = MigrationMessage.layoutHash("simulated:1:16")
    source = MigrationSource(
      owner: owner, layout: layout, stateSize: SimulatedFlows.stateSize, settings: settings.migration, memory: memory)
    target = MigrationTarget(
      owner: owner, layout: layout, stateSize: SimulatedFlows.stateSize, flowCapacity: settings.flows,
      settings: settings.migration, memory: memory)
  }

  deinit { scratch.deallocate() }

  /// A packet from a switch.
  func receive(_ packet: SimulatedPacket, now: Tick) {
    guard let slot = flows.slots[packet.flow] else { return flows.witness.lost(packet, "\(place) does not know its flow") }
    let phase = flows.records[Int(slot)].phase
    switch phase.step {
    case .settled, .leaving: flows.serve(packet)
    case .arriving where defect == .servesBeforeState: flows.serve(packet)
    case .arriving:
      if defect == .losesHeldPackets, packet.number % 7 == 0 { return }
      let held = packet.bytes.withUnsafeBytes { target.hold(slot, $0, side: packet.side, now: now) }
      if !held { flows.witness.lost(packet, "no room to hold it") }
    case .handedOver where defect == .servesAfterHandover: flows.serve(packet)
    case .handedOver, .departed:
      if defect == .dropsLatePackets { return }
      let sent = packet.bytes.withUnsafeBytes {
        MigrationTarget.forward($0, side: packet.side, to: phase.peer, scratch: scratch, outbox: &channels)
      }
      if !sent { flows.witness.lost(packet, "no room to send it after") }
    }
  }

  /// A frame of the channel with the node at `peer`.
  func receive(_ frame: UnsafeRawBufferPointer, from peer: Int, isSwitch: Bool, now: Tick) {
    guard let end = channels.ends[peer] else { return }
    let before = end.channel.peerIncarnation
    if case .sessionBegan = end.channel.receive(frame, now: now) {
      let life = end.channel.peerIncarnation
      if isSwitch, before != 0 { source.switchEnded(UInt8(peer), now: now, flows: &flows) }
      if !isSwitch { ended(peer, before: life, now: now) }
    }
    while let message = end.channel.nextMessage() { handle(message.bytes, from: UInt8(peer), now: now) }
    flows.letGo()
    passOn(now: now)
  }

  private func passOn(now: Tick) {
    let packets = flows.passedOn
    flows.passedOn = []
    for packet in packets { receive(packet, now: now) }
  }

  private func handle(_ message: RawSpan, from peer: UInt8, now: Tick) {
    let isWellFormed: Bool
    switch MigrationMessage.kind(message) {
    case .prepare where defect == .answersUnprepared:
      message.withUnsafeBytes { bytes in
        // The same header as `prepared`, with all flows accepted.
        let answer: [UInt8] = [2] + bytes[1..<16] + [255, 255, 255, 255, 0, 0, 0, 0]
        _ = channels.send(answer.span.bytes, to: peer)
      }
      return
    case .prepare, .install, .latePacket:
      isWellFormed = target.receive(message, from: peer, now: now, flows: &flows, outbox: &channels)
    case .prepared, .routeChanged, .installed:
      isWellFormed = source.receive(message, from: peer, now: now, flows: &flows, outbox: &channels)
    case .changeRoute, .claim, .claimed, .returned, .census, .counted, .routes, nil:
      isWellFormed = false
    }
    if !isWellFormed { flows.witness.complain("a message at \(place) was malformed") }
  }

  /// Lives of another runtime before `life` are over.
  private func ended(_ peer: Int, before life: UInt64, now: Tick) {
    source.ended(UInt8(peer), before: life, now: now, flows: &flows)
    target.sourceEnded(UInt8(peer), now: now, flows: &flows)
    passOn(now: now)
  }

  /// The coordinator says that this life of another runtime is over. If its next is known here already, so is that.
  func hearOfDeath(_ peer: Int, incarnation: UInt64, now: Tick) {
    guard let end = channels.ends[peer] else { return }
    let isNews = end.channel.peerIncarnation <= incarnation
    end.channel.fence(incarnation)
    guard isNews else { return }
    ended(peer, before: incarnation + 1, now: now)
  }

  func pass(now: Tick) {
    if defect == .resumesAlone, let slot = flows.records.firstIndex(where: { $0.phase.step == .handedOver }) {
      flows.setPhase(.settled, of: UInt32(slot))
    }
    source.advance(now: now, flows: &flows, outbox: &channels)
  }
}

/// A virtual switch: routes by key, and the channel messages that change them.
final class SimulatedSwitch: MigratingRoutes {
  struct Route {
    var owner: FlowOwner
    var epoch: UInt32 = 0
  }

  let place: Int
  var channels: SimulatedChannels
  var machine: MigrationSwitch
  /// By flow and side.
  var routes: [[Int]: Route] = [:]
  let defect: MigrationDefect?
  /// Changes that a defect puts off.
  private var later: [(FlowKeyPair, FlowOwner, FlowOwner)] = []

  init(
    place: Int, incarnation: UInt64, peers: [Int], settings: SimulationSettings, now: Tick, defect: MigrationDefect?,
    memory: MemorySource
  ) {
    self.place = place
    machine = MigrationSwitch(answers: 64, memory: memory)
    self.defect = defect
    channels = SimulatedChannels(
      place: place, incarnation: incarnation, peers: peers, settings: settings.channel, now: now, memory: memory)
  }

  func change(_ keys: FlowKeyPair, from: FlowOwner, to: FlowOwner) -> RouteChange {
    if defect == .answersBeforeChanging {
      later.append((keys, from, to))
      return .changed(epoch: 0)
    }
    return apply(keys, from: from, to: to)
  }

  private func apply(_ keys: FlowKeyPair, from: FlowOwner, to: FlowOwner) -> RouteChange {
    let flow = SimulatedPacket.flow(of: keys)
    let known = [[flow, 0], [flow, 1]].filter { routes[$0] != nil }
    guard let first = known.first else { return .unknown }
    let epoch = known.reduce(0) { max($0, routes[$1]?.epoch ?? 0) }
    guard known.allSatisfy({ routes[$0]?.owner == from || routes[$0]?.owner == to }) else { return .refused(epoch: epoch) }
    for key in known where routes[key]?.owner == from { routes[key] = Route(owner: to, epoch: epoch + 1) }
    return .changed(epoch: routes[first]?.epoch ?? epoch)
  }

  func receive(_ frame: UnsafeRawBufferPointer, from peer: Int, now: Tick, witness: Witness) {
    guard let end = channels.ends[peer] else { return }
    _ = end.channel.receive(frame, now: now)
    var routes = self
    while let message = end.channel.nextMessage() {
      if !machine.receive(message.bytes, from: UInt8(peer), routes: &routes) {
        witness.complain("a message at switch \(place) was malformed")
      }
    }
  }

  func pass() {
    machine.flush(outbox: &channels)
    guard !later.isEmpty else { return }
    let (keys, from, to) = later.removeFirst()
    _ = apply(keys, from: from, to: to)
  }
}

/// Sizes and times of a simulated cluster.
struct SimulationSettings {
  var flows = 64
  var channel = ChannelSettings()
  var migration = MigrationSettings()
}
