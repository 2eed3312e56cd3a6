import FixedContainers
import Wire

/// What the target's half of a migration asks of the flows of its runtime.
public protocol ArrivingFlows: ~Copyable {
  /// These keys are about to be expected, after `ahead` others: asks for the memory that this takes.
  func foresee(_ keys: FlowKeyPair, ahead: Int, _ step: Foresight)
  /// This flow is about to be installed: asks for the memory that this takes.
  func foresee(_ slot: UInt32)
  /// Makes room for a flow in phase `arriving`; `nil` when there is none, or when one of its keys is known here.
  mutating func expect(_ keys: FlowKeyPair, timeoutClass: UInt8, peer: UInt8, now: Tick) -> UInt32?
  /// The flow comes not: its record is removed, without any hook.
  mutating func forget(_ slot: UInt32)
  /// Takes the flow over: its state, `flowMigratesIn`, phase `settled`.
  mutating func install(_ slot: UInt32, _ flow: TravellingFlow, state: UnsafeRawBufferPointer, now: Tick)
  /// A packet of a flow that has come, or of one that will not: as if it had been received now. Its flow may have left
  /// again: the phase says what to do with it.
  mutating func process(_ frame: UnsafeRawBufferPointer, side: UInt8, now: Tick)
}

extension ArrivingFlows where Self: ~Copyable {
  public func foresee(_ keys: FlowKeyPair, ahead: Int, _ step: Foresight) {}
}

/// Takes flows over from other runtimes: the target's half of the protocol that `MigrationSource` draws.
///
/// Between `prepare` and `install` it holds the packets of the flow. With the state it calls `flowMigratesIn` and then
/// lets the held packets go, oldest first. Packets that reached the source late come over the channel behind the state.
/// Every request can come twice; the second is answered like the first and does nothing.
public struct MigrationTarget: ~Copyable {
  private struct Batch: BitwiseCopyable {
    var peer: UInt8 = 0
    var isUsed = false
    var count: UInt16 = 0
    var run: UInt32 = 0
    var number: UInt32 = 0
    /// Flows that are awaited: bits.
    var flows: UInt32 = 0
  }

  private struct Arrival: BitwiseCopyable {
    var slot: UInt32 = 0
    var held = MigrationHeldPackets.Queue()
    /// When the first packet was held; the pause it saw begins here.
    var heldSince: UInt64 = 0
  }

  private let settings: MigrationSettings
  private let owner: FlowOwner
  private let layout: UInt64
  private let stateSize: Int
  private let batches: UnsafeMutablePointer<Batch>
  private let arrivals: UnsafeMutablePointer<Arrival>
  /// Of every flow in phase `arriving`, by slot: its place among the arrivals.
  private let places: UnsafeMutablePointer<UInt32>
  private var packets: MigrationHeldPackets
  private let scratch: UnsafeMutableRawPointer
  public private(set) var counters = MigrationArrivals()

  /// - Parameters:
  ///   - owner: this life of this runtime.
  ///   - flowCapacity: slots of the runtime's flow table.
  ///   - stateSize: bytes of flow state per flow.
  public init(
    owner: FlowOwner, layout: UInt64, stateSize: Int, flowCapacity: Int, settings: MigrationSettings = .init(),
    memory: MemorySource
  ) {
    self.owner = owner
    self.layout = layout
    self.stateSize = stateSize
    self.settings = settings
    batches = memory.allocate(Batch.self, count: settings.targetBatches)
    arrivals = memory.allocate(Arrival.self, count: settings.targetBatches * MigrationMessage.mostFlows)
    places = memory.allocate(UInt32.self, count: flowCapacity)
    packets = MigrationHeldPackets(capacity: settings.heldPackets, longest: settings.longestPacket, memory: memory)
    scratch = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: 64))
    for index in 0..<settings.targetBatches * MigrationMessage.mostFlows { arrivals[index] = Arrival() }
  }

  /// Packets held now.
  public var heldPackets: Int { packets.count }

  /// Holds a packet of a flow in phase `arriving`; `false` when there is no room: the packet is dropped and counted.
  public mutating func hold(_ slot: UInt32, _ frame: UnsafeRawBufferPointer, side: UInt8, now: Tick) -> Bool {
    let place = Int(places[Int(slot)])
    if arrivals[place].held.first == .max { arrivals[place].heldSince = now.nanoseconds }
    guard packets.put(frame, side: side, in: &arrivals[place].held) else {
      counters.packetsRefused += 1
      return false
    }
    counters.packetsHeld += 1
    return true
  }

  /// Takes a message of kind `prepare`, `install` or `latePacket` from the peer with this index.
  ///
  /// - Returns: `false` for a message that is malformed.
  public mutating func receive(
    _ message: RawSpan, from peer: UInt8, now: Tick, flows: inout some ArrivingFlows & ~Copyable,
    outbox: inout some MigrationOutbox & ~Copyable
  ) -> Bool {
    message.withUnsafeBytes { bytes in
      guard let message = MigrationMessage(bytes) else { return false }
      switch message.kind {
      case .prepare: return prepare(message, bytes, peer, now, &flows, &outbox)
      case .install: return install(message, bytes, peer, now, &flows, &outbox)
      case .latePacket:
        guard message.node <= 1, bytes.count > MigrationMessage.headerLength else { return false }
        counters.latePackets += 1
        flows.process(
          UnsafeRawBufferPointer(rebasing: bytes[MigrationMessage.headerLength...]), side: UInt8(message.node), now: now)
        return true
      case .prepared, .changeRoute, .routeChanged, .installed, .claim, .claimed, .returned, .census, .counted, .routes:
        return false
      }
    }
  }

  private mutating func prepare(
    _ message: MigrationMessage, _ bytes: UnsafeRawBufferPointer, _ peer: UInt8, _ now: Tick,
    _ flows: inout some ArrivingFlows & ~Copyable, _ outbox: inout some MigrationOutbox & ~Copyable
  ) -> Bool {
    // Once through without consequences: a message is taken as a whole or not at all.
    var check = MigrationReader(bytes)
    for place in 0..<Int(message.count) {
      guard let (keys, _) = check.keys() else { return false }
      flows.foresee(keys, ahead: place, .buckets)
    }
    guard check.isAtEnd else { return false }
    var accepted: UInt32 = 0
    let free = (0..<settings.targetBatches).first { !batches[$0].isUsed }
    // Meant for an earlier life, it may have waited in a channel: its source has given it up.
    let isForUs = message.node == UInt32(truncatingIfNeeded: owner.incarnation)
    if let free, isForUs, message.word == layout {
      var ahead = MigrationReader(bytes)
      for place in 0..<Int(message.count) { if let (keys, _) = ahead.keys() { flows.foresee(keys, ahead: place, .records) } }
      var reader = MigrationReader(bytes)
      for place in 0..<Int(message.count) {
        guard let (keys, timeoutClass) = reader.keys(),
          let slot = flows.expect(keys, timeoutClass: timeoutClass, peer: peer, now: now)
        else { continue }
        let entry = free * MigrationMessage.mostFlows + place
        arrivals[entry] = Arrival(slot: slot)
        places[Int(slot)] = UInt32(entry)
        accepted |= 1 << UInt32(place)
      }
      if accepted != 0 {
        batches[free] = Batch(
          peer: peer, isUsed: true, count: message.count, run: message.run, number: message.batch, flows: accepted)
      }
    }
    counters.flowsRefused += UInt64((message.all & ~accepted).nonzeroBitCount)
    // Should the channel have no room, the source misses its deadline and takes the batch back.
    reply(.prepared, to: message, accepted, peer, nil, &outbox)
    return true
  }

  private mutating func install(
    _ message: MigrationMessage, _ bytes: UnsafeRawBufferPointer, _ peer: UInt8, _ now: Tick,
    _ flows: inout some ArrivingFlows & ~Copyable, _ outbox: inout some MigrationOutbox & ~Copyable
  ) -> Bool {
    let index = (0..<settings.targetBatches).first {
      batches[$0].isUsed && batches[$0].peer == peer && batches[$0].run == message.run && batches[$0].number == message.batch
    }
    var check = MigrationReader(bytes)
    var listed: UInt32 = 0
    for _ in 0..<message.count {
      guard let (place, _, _, state) = check.state(), place < 32, state.count == stateSize, listed & 1 << UInt32(place) == 0
      else { return false }
      listed |= 1 << UInt32(place)
      if let index { flows.foresee(arrivals[index * MigrationMessage.mostFlows + Int(place)].slot) }
    }
    guard check.isAtEnd, message.word == layout else { return false }
    var pauses = InlineArray<32, UInt8>(repeating: 0)
    // A batch that is not known here any more was installed before, and the answer was slow.
    guard let index else {
      reply(.installed, to: message, listed, peer, pauses, &outbox)
      return true
    }
    let batch = batches[index]
    guard listed & ~batch.flows == 0 else { return false }
    batches[index].isUsed = false
    var reader = MigrationReader(bytes)
    var installed = 0
    while let (place, _, flow, state) = reader.state() {
      let slot = arrivals[index * MigrationMessage.mostFlows + Int(place)].slot
      flows.install(slot, flow, state: state, now: now)
      counters.flowsArrived += 1
      pauses[installed] = letGo(index * MigrationMessage.mostFlows + Int(place), now, &flows)
      installed += 1
    }
    forget(index, batch.flows & ~listed, now, &flows)
    reply(.installed, to: message, listed, peer, pauses, &outbox)
    return true
  }

  /// Lets the packets go that were held for a flow, and returns the class of the pause that they have seen.
  private mutating func letGo(_ entry: Int, _ now: Tick, _ flows: inout some ArrivingFlows & ~Copyable) -> UInt8 {
    guard arrivals[entry].held.first != .max else { return 0 }
    packets.release(&arrivals[entry].held) { frame, side in flows.process(frame, side: side, now: now) }
    return MigrationPauses.classOf(now.nanoseconds &- arrivals[entry].heldSince)
  }

  /// Gives flows up that will not come. Their packets are treated as those of flows nobody has heard of.
  private mutating func forget(_ index: Int, _ which: UInt32, _ now: Tick, _ flows: inout some ArrivingFlows & ~Copyable) {
    var rest = which
    while rest != 0 {
      let entry = index * MigrationMessage.mostFlows + rest.trailingZeroBitCount
      rest &= rest &- 1
      flows.forget(arrivals[entry].slot)
      counters.flowsForgotten += 1
      _ = letGo(entry, now, &flows)
    }
  }

  private func reply(
    _ kind: MigrationMessage.Kind, to request: MigrationMessage, _ bits: UInt32, _ peer: UInt8,
    _ pauses: InlineArray<32, UInt8>?, _ outbox: inout some MigrationOutbox & ~Copyable
  ) {
    var message = MigrationMessage(kind, run: request.run, batch: request.batch)
    (message.count, message.word) = (request.count, UInt64(bits))
    var writer = MigrationWriter(message, into: scratch)
    if let pauses { for place in 0..<Int(request.count) { writer.put(pauses[place]) } }
    _ = outbox.send(writer.message.bytes, to: peer)
  }

  /// The source's life is over: what it has not sent is lost with it. Called before anything of its next life is received.
  public mutating func sourceEnded(_ peer: UInt8, now: Tick, flows: inout some ArrivingFlows & ~Copyable) {
    for index in 0..<settings.targetBatches where batches[index].isUsed && batches[index].peer == peer {
      batches[index].isUsed = false
      forget(index, batches[index].flows, now, &flows)
    }
  }

  /// Writes a packet that came late to the source as a message for the target.
  ///
  /// - Returns: `false` when the channel has no room; the caller drops the packet with a reason.
  public static func forward(
    _ frame: UnsafeRawBufferPointer, side: UInt8, to peer: UInt8, scratch: UnsafeMutableRawPointer,
    outbox: inout some MigrationOutbox & ~Copyable
  ) -> Bool {
    var message = MigrationMessage(.latePacket, run: 0, batch: 0)
    message.node = UInt32(side)
    var writer = MigrationWriter(message, into: scratch)
    writer.put(frame)
    return outbox.send(writer.message.bytes, to: peer)
  }
}

/// What has arrived at a target. The pauses go to the source with the answers.
public struct MigrationArrivals: Sendable {
  public var flowsArrived: UInt64 = 0
  public var flowsRefused: UInt64 = 0
  public var flowsForgotten: UInt64 = 0
  public var packetsHeld: UInt64 = 0
  public var packetsRefused: UInt64 = 0
  public var latePackets: UInt64 = 0
  public init() {}
}
