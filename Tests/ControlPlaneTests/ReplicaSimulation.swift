// Several replicas on one log that stalls, loses, repeats and delays, while they are killed, paused and restarted: the
// shipped core, outbox and agreement, one thread, one seed.
import ControlCodec
import ControlMessages
import ControlPlane

/// What is broken on purpose, to see that somebody notices.
enum Mutant: CaseIterable {
  case readerTakesEveryCopy
  case readerTakesSlotsOutOfOrder
  case coreReadsItsOwnClock
  case noStallCredit
  case decisionsInOrderOfASet
  case hedgeOfASecond
  case eventsAreNotDeduplicated
  case snapshotForgetsWhatWasSeen
}

struct ReplicaSimulation {
  struct Replica {
    let name: ProducerID
    var core = ClusterCore(cluster: Samples.cluster)
    var outbox = CommandOutbox()
    var agreement: Agreement
    var author: EventAuthor
    var readEvents = 0
    var readCommands = 0
    /// Where the log ended when it began: it writes nothing before it has read so far.
    var ends: (events: Int, commands: Int)
    var isPaused = false
    /// Sent by a replica that was paused before the bus had them.
    var stuck: [Command] = []
    var isCaughtUp: Bool { readEvents >= ends.events && readCommands >= ends.commands }
  }

  enum Record {
    case event(Event)
    case command(Command, from: ProducerID)
  }

  struct Flight {
    var arrival: UInt64
    var number: Int
    var record: Record
    /// A signal that is not in by then is lost.
    var expiry: UInt64
  }

  static let hedge: UInt64 = 8
  let mutant: Mutant?
  private(set) var violations: [String] = []
  /// Milliseconds from a decision to its command in the log, where the bus was well and a replica ran throughout.
  private(set) var delays: [UInt64] = []
  private(set) var kills = 0, pauses = 0, stalls = 0, copies = 0
  var slots: Int { taken.count }

  private var random: RandomNumbers
  private(set) var time: UInt64 = 1_000_000
  private var events: [EventRecord] = []
  private var commands: [Command] = []
  private var flights: [Flight] = []
  private var flightCount = 0
  private var lastArrival: [ProducerID: UInt64] = [:]
  private var stallEnds: UInt64 = 0
  /// The last moment at which bus or replicas were not all well.
  private var lastTrouble: UInt64 = 0
  private var replicas: [Replica] = []
  private var restarts: [(name: ProducerID, at: UInt64)] = []
  private var lives: UInt64 = 0
  private var isHealing = false

  // The judge: folds the log itself, reads commands as any node does, and answers for hosts and nodes.
  private var reference = ClusterCore(cluster: Samples.cluster)
  private var decided: [Command] = []
  private var decidedAt: [UInt64] = []
  private var reader = SlotReader()
  private(set) var taken: [Command] = []
  private var hashes: [Offset: UInt64] = [:]
  private var authors: [ProducerID: EventAuthor] = [:]
  private var nodes: [LaunchSpec] = []
  private var agenda: [(at: UInt64, body: Event.Body, by: ProducerID, life: UInt64)] = []

  init(seed: UInt64, mutant: Mutant? = nil) {
    random = RandomNumbers(seed: seed)
    self.mutant = mutant
  }

  static func run(seed: UInt64, replicas: Int = 3, seconds: UInt64 = 40, mutant: Mutant? = nil) -> ReplicaSimulation {
    var simulation = ReplicaSimulation(seed: seed, mutant: mutant)
    for name in ["one", "two", "three"].prefix(replicas) { simulation.begin(.coordinator(HostID(name)!)) }
    simulation.say(.rulesActivated(DecisionRules.newest), by: .tool(1))
    for name in ["a", "b"] {
      simulation.say(
        .agentStarted(AgentStarted(host: HostID(name)!, cores: 8, runtimePorts: 16, switchPorts: 4)), by: .agent(HostID(name)!))
    }
    var spec = Samples.spec
    spec.poolShares = 16
    spec.heartbeatInterval = 20
    simulation.say(.clusterApplied(spec), by: .tool(2))
    for _ in 0..<(seconds * 1_000) { simulation.step() }
    simulation.heal()
    return simulation
  }

  // MARK: Time

  private mutating func step() {
    time += 1
    if !isHealing { harm() }
    for entry in restarts where entry.at <= time { begin(entry.name) }
    restarts.removeAll { $0.at <= time }
    deliver()
    live()
    for index in replicas.indices where !replicas[index].isPaused { turn(index) }
  }

  private mutating func heal() {
    isHealing = true
    stallEnds = 0
    for index in replicas.indices { resume(index) }
    for index in restarts.indices { restarts[index].at = time }
    for _ in 0..<4_000 { step() }
    if taken.count + 3 < decided.count { violations.append("\(decided.count - taken.count) commands never reached the log") }
    for replica in replicas where replica.core.hash != replicas[0].core.hash && replica.core.position == replicas[0].core.position
    {
      violations.append("\(replica.name) ends in another state")
    }
    for replica in replicas where replica.outbox.divergence != nil { violations.append("\(replica.name) diverged") }
  }

  private mutating func harm() {
    switch Int.random(in: 0..<6_000, using: &random) {
    case 0...1:
      guard let index = replicas.indices.randomElement(using: &random) else { return }
      kills += 1
      lastTrouble = max(lastTrouble, time)
      restarts.append((replicas[index].name, time + UInt64.random(in: 50...4_000, using: &random)))
      replicas.remove(at: index)
    case 2...3:
      guard let index = replicas.indices.randomElement(using: &random), !replicas[index].isPaused else { return }
      pauses += 1
      lastTrouble = max(lastTrouble, time)
      replicas[index].isPaused = true
    case 4...7:
      for index in replicas.indices where replicas[index].isPaused && Bool.random(using: &random) { resume(index) }
    case 8 where time > stallEnds + 2_000:
      // A stall, or a change of leader: what was on its way is late, lost or there twice.
      stalls += 1
      stallEnds = time + UInt64.random(in: 100...6_000, using: &random)
      for index in flights.indices where Bool.random(using: &random) {
        flights[index].arrival += UInt64.random(in: 0...2_000, using: &random)
      }
    case 9...13:
      if let node = nodes.randomElement(using: &random) { end(node) }
    case 14:
      var spec = Samples.spec
      spec.poolShares = 16
      spec.heartbeatInterval = 20
      spec.runtimes = UInt32.random(in: 1...4, using: &random)
      say(.clusterApplied(spec), by: .tool(100 + time))
    default: break
    }
  }

  // MARK: The bus

  private mutating func say(_ body: Event.Body, by producer: ProducerID, life: UInt64 = 1) {
    var author = authors[producer] ?? EventAuthor(producer: producer, incarnation: Incarnation(life))
    if author.incarnation.number != life { author = EventAuthor(producer: producer, incarnation: Incarnation(life)) }
    send(.event(author.write(body)), by: producer, isSignal: body.lane == .signals)
    authors[producer] = author
  }

  private mutating func send(_ record: Record, by producer: ProducerID, isSignal: Bool) {
    // What one producer sends arrives in its order.
    let arrival = max(time + UInt64.random(in: 1...4, using: &random), lastArrival[producer] ?? 0)
    if !isSignal { lastArrival[producer] = arrival }
    put(record, arrival, expiry: isSignal ? time + 1_000 : .max)
    guard !isHealing, !isSignal else { return }
    switch Int.random(in: 0..<60, using: &random) {
    case 0, 1: put(record, arrival + UInt64.random(in: 0...3_000, using: &random), expiry: .max)
    case 2:
      // Only commands may be lost: facts are sent again by their producers until they are in.
      guard case .command(_, let from) = record else { return }
      flights.removeLast()
      lastTrouble = max(lastTrouble, time)
      if let index = replicas.firstIndex(where: { $0.name == from }) { replicas[index].outbox.writingFailed() }
    case 3...5:
      guard case .command = record else { return }
      flights[flights.count - 1].arrival += UInt64.random(in: 0...2_000, using: &random)
      lastTrouble = max(lastTrouble, flights[flights.count - 1].arrival)
    default: break
    }
  }

  private mutating func put(_ record: Record, _ arrival: UInt64, expiry: UInt64) {
    flightCount += 1
    flights.append(Flight(arrival: arrival, number: flightCount, record: record, expiry: expiry))
  }

  private mutating func deliver() {
    if time < stallEnds {
      lastTrouble = max(lastTrouble, time)
      return
    }
    let due = flights.filter { $0.arrival <= time && $0.expiry >= time }.sorted {
      ($0.arrival, $0.number) < ($1.arrival, $1.number)
    }
    flights.removeAll { $0.arrival <= time }
    for flight in due {
      switch flight.record {
      case .event(let event):
        let record = EventRecord(offset: Offset(UInt64(events.count)), timestamp: Timestamp(milliseconds: time), event: event)
        events.append(record)
        for command in fold(record, into: &reference) {
          decided.append(command)
          decidedAt.append(time)
        }
        hashes[record.offset] = reference.hash.value
        let clock = reference.state.clock
        if let silent = reference.state.nodes.first(where: {
          if case .serving = $0.phase { clock.elapsed - $0.lastHeard > 1_000 } else { false }
        }) {
          note("node \(silent.id) passes for silent, and only the log was")
        }
      case .command(let command, _):
        commands.append(command)
        judge(command)
      }
    }
  }

  // MARK: Replicas

  private mutating func begin(_ name: ProducerID) {
    lives += 1
    lastTrouble = max(lastTrouble, time)
    var replica = Replica(
      name: name, agreement: Agreement(own: name), author: EventAuthor(producer: name, incarnation: Incarnation(lives)),
      ends: (events.count, commands.count))
    // Every other one starts from a snapshot that another replica could have taken just now.
    if lives % 2 == 0, let other = replicas.first(where: { $0.isCaughtUp && $0.outbox.isSettled && $0.core.position != nil }) {
      replica.core = restored(other.core)
      replica.outbox = CommandOutbox(after: other.core.state.lastSlot)
      replica.readEvents = other.readEvents
      replica.readCommands = other.readCommands
    }
    replicas.append(replica)
  }

  private func restored(_ core: ClusterCore) -> ClusterCore {
    guard mutant == .snapshotForgetsWhatWasSeen else { return try! RecordCodec.decodeCore(RecordCodec.encode(core)) }
    // The same cluster, folded by somebody who has forgotten half.
    var forgetful = ClusterCore(cluster: Samples.cluster)
    for record in events.prefix(Int(core.position!.value) + 1).suffix(500) { _ = forgetful.apply(record) }
    return forgetful
  }

  private mutating func resume(_ index: Int) {
    replicas[index].isPaused = false
    lastTrouble = max(lastTrouble, time)
    let stuck = replicas[index].stuck
    replicas[index].stuck = []
    for command in stuck { send(.command(command, from: replicas[index].name), by: replicas[index].name, isSignal: false) }
  }

  private mutating func turn(_ index: Int) {
    let name = replicas[index].name
    // The two topics are read side by side, in any interleaving.
    let isEventsFirst = Bool.random(using: &random)
    if !isEventsFirst { readCommands(index) }
    while replicas[index].readEvents < events.count {
      let record = events[replicas[index].readEvents]
      replicas[index].readEvents += 1
      let new = apply(record, index)
      replicas[index].outbox.computed(new, now: time)
      replicas[index].agreement.note(replicas[index].core, record)
      if let expected = hashes[record.offset], expected != replicas[index].core.hash.value {
        note("\(name) has another hash at \(record.offset)")
      }
    }
    if isEventsFirst { readCommands(index) }
    if time % 100 == UInt64(name.name.utf8.count) {
      let core = replicas[index].core
      let beacon = Beacon(
        position: core.position, stateHash: core.hash.value, logHash: core.logHash.value, rules: DecisionRules.newest)
      let event = replicas[index].author.write(.beacon(beacon))
      send(.event(event), by: name, isSignal: true)
    }
    guard replicas[index].isCaughtUp, replicas[index].agreement.objection(among: replicas[index].core.state.liveReplicas) == nil
    else { return }
    let rank = UInt64(replicas[index].core.state.rank(of: name))
    let hedge = mutant == .hedgeOfASecond ? 1_000 * (rank + 1) : Self.hedge * rank
    let missing = replicas[index].outbox.takeMissing(now: time, hedge: hedge)
    // A replica may be paused between its decision and the bus.
    if !missing.isEmpty, !isHealing, Int.random(in: 0..<200, using: &random) == 0 {
      pauses += 1
      lastTrouble = max(lastTrouble, time)
      replicas[index].isPaused = true
      replicas[index].stuck = missing
      return
    }
    for command in missing { send(.command(command, from: name), by: name, isSignal: false) }
  }

  private mutating func readCommands(_ index: Int) {
    while replicas[index].readCommands < commands.count {
      replicas[index].outbox.read(commands[replicas[index].readCommands], now: time)
      replicas[index].readCommands += 1
    }
  }

  private mutating func apply(_ record: EventRecord, _ index: Int) -> [Command] {
    var record = record
    if mutant == .coreReadsItsOwnClock { record.timestamp = Timestamp(milliseconds: time) }
    if mutant == .eventsAreNotDeduplicated { record.event.incarnation = Incarnation(record.offset.value + 1) }
    let new = fold(record, into: &replicas[index].core)
    guard mutant == .decisionsInOrderOfASet, new.count > 1, index > 0 else { return new }
    var shuffled = new.shuffled(using: &random)
    for place in shuffled.indices { shuffled[place].slot = new[place].slot }
    return shuffled
  }

  /// Without stall credit time goes on while the log stands: as if somebody had written all the while.
  private func fold(_ record: EventRecord, into core: inout ClusterCore) -> [Command] {
    guard mutant == .noStallCredit else { return core.apply(record) }
    var record = record
    let last = core.state.clock.now.milliseconds
    let scale: UInt64 = 100_000
    var commands: [Command] = []
    if last > 0 {
      for missed in stride(from: last + 200, to: record.timestamp.milliseconds, by: 200) {
        let tick = Event(producer: .tool(missed), incarnation: Incarnation(1), sequence: 1, body: .tick)
        let offset = Offset((record.offset.value - 1) * scale + missed - last)
        commands += core.apply(EventRecord(offset: offset, timestamp: Timestamp(milliseconds: missed), event: tick))
      }
    }
    record.offset = Offset(record.offset.value * scale)
    return commands + core.apply(record)
  }

  // MARK: The judge

  private mutating func judge(_ command: Command) {
    let reading = reader.read(command.slot)
    let isTaken: Bool
    switch mutant {
    case .readerTakesEveryCopy: isTaken = reading != .early
    case .readerTakesSlotsOutOfOrder: isTaken = reading != .repeated
    default: isTaken = reading == .taken
    }
    if reading == .repeated { copies += 1 }
    guard isTaken else { return }
    if command.slot.number != UInt64(taken.count + 1) { note("slot \(command.slot) was acted upon after slot \(taken.count)") }
    taken.append(command)
    let place = Int(command.slot.number) - 1
    guard place < decided.count else { return note("slot \(command.slot) was never decided") }
    if decided[place] != command { note("slot \(command.slot) holds another command than was decided") }
    if lastTrouble + 20 < decidedAt[place], isQuorumWell { delays.append(time - decidedAt[place]) }
    obey(command)
  }

  /// Somebody who could write has been able to.
  private var isQuorumWell: Bool { replicas.contains { !$0.isPaused && $0.isCaughtUp } }

  private mutating func note(_ violation: String) {
    if violations.count < 20 { violations.append(violation) }
  }

  // MARK: Hosts and nodes

  private mutating func obey(_ command: Command) {
    if let launch = command.launch {
      guard !nodes.contains(where: { $0.node == launch.node && $0.incarnation == launch.incarnation }) else {
        return note("node \(launch.node)/\(launch.incarnation) was launched twice")
      }
      nodes.append(launch)
      let started = NodeStarted(
        node: launch.node, kind: launch.kind, host: launch.host, processID: 1, ports: Samples.ports, startup: 1)
      agenda.append(
        (time + 150, .nodeStarted(started), .node(launch.kind, launch.cluster, launch.node), launch.incarnation.number))
    }
    if let stopped = command.stopped, case .host(let host) = command.target {
      if let node = nodes.first(where: { $0.node == stopped.node && $0.incarnation == stopped.incarnation }) {
        end(node)
      } else {
        say(.commandAcknowledged(.init(slot: command.slot, by: .host(host), outcome: .completed)), by: .agent(host))
      }
    }
  }

  private mutating func end(_ node: LaunchSpec) {
    nodes.removeAll { $0 == node }
    agenda.removeAll {
      if case .nodeStarted(let started) = $0.body {
        started.node == node.node && $0.life == node.incarnation.number
      } else {
        false
      }
    }
    agenda.append(
      (
        time + 20,
        .processExited(ProcessExited(host: node.host, node: node.node, incarnation: node.incarnation, ending: .signal(9))),
        .agent(node.host), 1
      ))
  }

  private mutating func live() {
    for entry in agenda where entry.at <= time { say(entry.body, by: entry.by, life: entry.life) }
    agenda.removeAll { $0.at <= time }
    if time % 20 == 0 {
      for node in nodes {
        say(
          .heartbeat(Heartbeat(node: node.node, workerLoops: time, busyLoops: 0)), by: .node(node.kind, node.cluster, node.node),
          life: node.incarnation.number)
      }
    }
    if time % 500 == 0 { for name in ["a", "b"] { say(.agentHeartbeat(HostID(name)!), by: .agent(HostID(name)!)) } }
    if let death = reference.state.deaths.first { note("node \(death.node) was declared dead: \(death.evidence)") }
  }
}
