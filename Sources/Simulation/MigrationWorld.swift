import FlowActors
import ReliableChannels
import Wire

/// A cluster in one thread: switches that dispatch, runtimes that serve and migrate, a network that does harm, and a
/// witness who checks after every event that nothing was lost, doubled or overtaken and no flow has two owners.
///
///     places:  0 ... switches, then the runtimes
///
/// Every decision comes from the seed. Frames of channels suffer all faults; packets between switch and runtime keep
/// their order with them (a link is one queue), or, by the seed's choice, are reordered too: then order is not asked for.
public struct MigrationWorld {
  public struct Violation: Error, CustomStringConvertible {
    public let description: String
  }

  /// What may happen to nodes. Without deaths nothing at all may be missing in the end.
  public enum Harm: String, CaseIterable, Sendable {
    /// Faults of the network and pauses.
    case network
    /// Packets, too, overtake each other.
    case reordering
    /// Runtimes and switches die, some come back as a new life.
    case deaths
  }

  public let seed: UInt64
  public let harm: Harm
  let defect: MigrationDefect?
  private var chance: Chance
  private var network = VirtualNetwork()
  private var settings = SimulationSettings()
  private var switches: [SimulatedSwitch] = []
  private var runtimes: [SimulatedRuntime?] = []
  private let witness: Witness
  private let switchCount: Int
  private let runtimeCount: Int
  /// The switch that each side of a flow comes through.
  private var entries: [[Int]] = []
  private var now = Tick(milliseconds: 1)
  private var lives: UInt64 = 1
  private var run: UInt32 = 0
  private var paused: Set<Int> = []
  private var inboxes: [[VirtualNetwork.Arrival]] = []
  /// Deaths that the coordinator has not spoken of yet.
  private var obituaries: [(time: UInt64, place: Int, incarnation: UInt64)] = []
  private let memory = WorldMemory()
  private let buffer = UnsafeMutableRawPointer.allocate(byteCount: 2_048, alignment: 8)
  /// Runs that moved something, flows moved, packets that were sent after.
  public private(set) var summary = (runs: 0, moved: 0, held: 0, late: 0, deaths: 0)

  public init(seed: UInt64, harm: Harm, defect: MigrationDefect? = nil) {
    self.seed = seed
    self.harm = harm
    self.defect = defect
    chance = Chance(seed: seed ^ 0x5bd1_e995_0000)
    switchCount = 1 + chance.below(2)
    runtimeCount = 2 + chance.below(2)
    settings.flows = 8 + chance.below(40)
    settings.channel.mtu = 600
    settings.channel.sendFrames = 64
    settings.channel.receiveFrames = 32
    settings.channel.largestMessage = 4_000
    settings.channel.leastTimeout = 200_000
    settings.channel.initialTimeout = 500_000
    settings.channel.greatestTimeout = 4_000_000
    settings.channel.helloInterval = 300_000
    settings.channel.keepaliveInterval = 1_000_000
    settings.migration.flowsPerBatch = 1 + chance.below(16)
    settings.migration.sourceBatches = 1 + chance.below(4)
    settings.migration.pausedBatches = 1 + chance.below(4)
    settings.migration.targetBatches = 8
    settings.migration.heldPackets = 2_000
    settings.migration.longestPacket = 16
    settings.migration.largestMessage = 4_000
    settings.migration.stepDeadline = chance.within(200_000...3_000_000)
    settings.migration.prepareDeadline = settings.migration.stepDeadline
    settings.migration.longWay = chance.below(2) == 0 ? .max : 100_000
    witness = Witness(flows: settings.flows, isStrict: harm != .deaths, keepsOrder: harm == .network)
    let places = switchCount + runtimeCount
    inboxes = Array(repeating: [], count: places)
    for place in 0..<switchCount { switches.append(makeSwitch(place, incarnation: 1)) }
    for place in switchCount..<places { runtimes.append(makeRuntime(place, incarnation: 1)) }
    for flow in 0..<settings.flows {
      entries.append([chance.below(switchCount), chance.below(switchCount)])
      let place = switchCount + chance.below(runtimeCount)
      guard let runtime = runtimes[place - switchCount] else { continue }
      runtime.flows.open(flow)
      witness.hook(flow, at: place, arrives: true)
      for side in 0..<2 { switches[entries[flow][side]].routes[[flow, side]] = .init(owner: runtime.owner) }
    }
  }

  private func makeSwitch(_ place: Int, incarnation: UInt64) -> SimulatedSwitch {
    SimulatedSwitch(
      place: place, incarnation: incarnation, peers: Array(switchCount..<switchCount + runtimeCount), settings: settings,
      now: now,
      defect: defect, memory: memory.source)
  }

  private func makeRuntime(_ place: Int, incarnation: UInt64) -> SimulatedRuntime {
    SimulatedRuntime(
      place: place, incarnation: incarnation, peers: (0..<switchCount + runtimeCount).filter { $0 != place }, witness: witness,
      settings: settings, now: now, defect: defect, memory: memory.source)
  }

  // MARK: Running

  /// Harm for a while under traffic, then none, until everything has come to rest; then the books must close.
  public mutating func play(passes: Int = 120) throws(Violation) {
    defer { buffer.deallocate() }
    network.faults = .drawn(&chance)
    for _ in 0..<passes {
      hurt()
      command()
      for _ in 0..<chance.below(6) { inject() }
      try pass(20_000)
    }
    network.faults = .none
    network.cut = []
    paused = []
    var quiet = 0
    for _ in 0..<3_000 where quiet < 20 {
      try pass(100_000)
      quiet = isAtRest ? quiet + 1 : 0
    }
    guard quiet == 20 else { throw violation("the cluster does not come to rest: \(unrest)") }
    // One more packet of every flow shows whether its routes lead to whoever serves it.
    for flow in 0..<settings.flows { for side in 0..<2 { inject(flow, side) } }
    for _ in 0..<10 { try pass(100_000) }
    try closeBooks()
  }

  /// What goes on, for people.
  private var unrest: String {
    runtimes.enumerated().compactMap { index, runtime in
      guard let runtime else { return nil }
      let pinned = runtime.flows.records.filter { $0.flow >= 0 && $0.phase.isPinned }.map { "\($0.phase.step)" }
      guard runtime.source.isRunning || !pinned.isEmpty || runtime.target.heldPackets > 0 else { return nil }
      return "runtime \(index): run \(runtime.source.report.map { "\($0)" } ?? "-"), pinned \(pinned), held \(runtime.target.heldPackets)"
    }.joined(separator: "; ") + "; \(obituaries.count) deaths untold"
  }

  private var isAtRest: Bool {
    obituaries.isEmpty
      && runtimes.allSatisfy { runtime in
        guard let runtime else { return true }
        return !runtime.source.isRunning && runtime.target.heldPackets == 0
          && runtime.flows.records.allSatisfy { $0.flow < 0 || !$0.phase.isPinned }
      }
  }

  private mutating func command() {
    guard chance.happens(60) else { return }
    let from = chance.below(runtimeCount)
    let to = chance.below(runtimeCount)
    guard from != to, let source = runtimes[from], let target = runtimes[to] else { return }
    if source.source.isRunning {
      if chance.happens(200) { source.source.cancel(flows: &source.flows) }
      return
    }
    run += 1
    let asked = source.source.begin(
      run: run, flows: 1 + chance.below(settings.flows), to: target.owner, peer: UInt8(target.place),
      switches: (1 << UInt64(switchCount)) - 1,
      now: now)
    if asked { summary.runs += 1 }
  }

  private mutating func hurt() {
    let places = switchCount + runtimeCount
    if chance.happens(15) {
      let place = chance.below(places)
      if paused.remove(place) == nil { paused.insert(place) }
    }
    if chance.happens(15) { network.cut = network.cut.isEmpty ? [[chance.below(places), chance.below(places)]] : [] }
    guard harm == .deaths else { return }
    if chance.happens(8) { kill(chance.below(places)) }
    for place in switchCount..<places where runtimes[place - switchCount] == nil && chance.happens(20) {
      lives += 1
      runtimes[place - switchCount] = makeRuntime(place, incarnation: lives)
    }
  }

  private mutating func kill(_ place: Int) {
    summary.deaths += 1
    inboxes[place] = []
    if place < switchCount {
      // A switch comes back at once, without routes: what it sends on must be dispatched anew, which is not this story.
      lives += 1
      switches[place] = makeSwitch(place, incarnation: lives)
    } else if let runtime = runtimes[place - switchCount] {
      runtime.flows.end()
      runtimes[place - switchCount] = nil
      obituaries.append((now.nanoseconds + chance.within(100_000...3_000_000), place, runtime.owner.incarnation))
    }
  }

  private mutating func inject() { inject(chance.below(settings.flows), chance.below(2)) }

  private mutating func inject(_ flow: Int, _ side: Int) {
    let entry = entries[flow][side]
    let packet = SimulatedPacket(flow: flow, side: UInt8(side), number: witness.books[flow].sent[side])
    witness.books[flow].sent[side] += 1
    // What a paused switch has not taken in waits outside of it; here it does not come to be.
    guard !paused.contains(entry), let route = switches[entry].routes[[flow, side]] else {
      witness.books[flow].sent[side] -= 1
      return
    }
    var faults = LinkFaults.none
    if harm == .reordering { (faults.reordering, faults.lateness) = (200, 400_000) }
    network.send(packet.bytes, from: entry, to: Int(route.owner.node) - 1, now: now, chance: &chance, faults: faults)
  }

  private mutating func pass(_ nanoseconds: UInt64) throws(Violation) {
    now = Tick(nanoseconds: now.nanoseconds + nanoseconds)
    while let arrival = network.take(by: now) { inboxes[arrival.destination].append(arrival) }
    for place in inboxes.indices where !paused.contains(place) {
      var arrivals = inboxes[place]
      inboxes[place] = []
      if defect == .hearsAnswersFirst {
        let isHeldBack = { [now] (arrival: VirtualNetwork.Arrival) in
          arrival.frame.count == SimulatedPacket.length && now.nanoseconds < arrival.time + 100_000
        }
        inboxes[place] = arrivals.filter(isHeldBack)
        arrivals.removeAll(where: isHeldBack)
      }
      for arrival in arrivals { deliver(arrival) }
    }
    while let index = obituaries.firstIndex(where: { $0.time <= now.nanoseconds }) {
      let death = obituaries.remove(at: index)
      for case let runtime? in runtimes where runtime.place != death.place {
        runtime.hearOfDeath(death.place, incarnation: death.incarnation, now: now)
      }
    }
    for runtime in runtimes { if let runtime, !paused.contains(runtime.place) { runtime.pass(now: now) } }
    for node in switches where !paused.contains(node.place) { node.pass() }
    let channels = switches.map(\.channels) + runtimes.compactMap { $0?.channels }
    for node in channels where !paused.contains(node.place) {
      node.fill(buffer, now: now) { frame, peer in
        network.send(frame, from: node.place, to: peer, now: now, chance: &chance)
      }
    }
    if let text = witness.violation { throw violation(text) }
  }

  private func deliver(_ arrival: VirtualNetwork.Arrival) {
    arrival.frame.withUnsafeBytes { bytes in
      let runtime = arrival.destination < switchCount ? nil : runtimes[arrival.destination - switchCount]
      if bytes.count == SimulatedPacket.length {
        runtime?.receive(SimulatedPacket(bytes), now: now)
      } else if arrival.destination < switchCount {
        switches[arrival.destination].receive(bytes, from: arrival.source, now: now, witness: witness)
      } else {
        runtime?.receive(bytes, from: arrival.source, isSwitch: arrival.source < switchCount, now: now)
      }
    }
  }

  // MARK: The end

  private mutating func closeBooks() throws(Violation) {
    for case let runtime? in runtimes {
      summary.moved += Int(runtime.target.counters.flowsArrived)
      summary.held += Int(runtime.target.counters.packetsHeld)
      summary.late += Int(runtime.target.counters.latePackets)
    }
    for (flow, book) in witness.books.enumerated() {
      if harm != .deaths {
        for side in 0..<2 where book.processed[side] != Int(book.sent[side]) {
          throw violation("\(book.processed[side]) of \(book.sent[side]) packets of flow \(flow), side \(side), were processed")
        }
        let hooks = book.hooks.values.reduce(0, +)
        guard book.servers.count == 1, hooks == 1 else {
          throw violation("flow \(flow) is served by \(book.servers.count) runtimes, its hooks balance at \(hooks)")
        }
      }
      // Whoever serves a flow in the end is the one its routes name.
      guard let server = book.servers.first, let runtime = runtimes[server - switchCount] else { continue }
      for side in 0..<2 {
        guard let route = switches[entries[flow][side]].routes[[flow, side]] else { continue }
        guard route.owner == runtime.owner else {
          throw violation(
            "flow \(flow) is served at \(server) while its route names node \(route.owner.node), epoch \(route.epoch)")
        }
      }
    }
  }

  private func violation(_ text: String) -> Violation {
    Violation(description: "seed \(seed), \(harm.rawValue)\(defect.map { ", \($0.rawValue)" } ?? ""): \(text)")
  }
}
