import ControlMessages

// Events move the state and decide nothing. Every case is total: an event about something that is not there, or no
// longer, is counted and passed over.

/// Bounds of the core, in milliseconds of `LogClock.elapsed`.
enum Patience {
  /// From a launch command to the node's start.
  static let launch: UInt64 = 10_000
  /// From one request to stop to the next, doubled each time up to `stopCeiling`.
  static let stop: UInt64 = 10_000
  static let stopCeiling: UInt64 = 160_000
  /// A host that refused a node is not asked again for this long.
  static let refusal: UInt64 = 5_000
  /// A node that served this long has a clean slate.
  static let proof: UInt64 = 10_000
  /// Agents send a heartbeat every second.
  static let agentSilence: UInt64 = 10_000

  /// Before the next launch of a node, after `failures` in a row: at once, then 1 s, 2 s, ... 32 s.
  static func backoff(_ failures: UInt32) -> UInt64 { failures <= 1 ? 0 : 1_000 << UInt64(min(failures - 2, 5)) }

  /// Rules 1: silence is only shown.
  static func shownSilence(heartbeatInterval: UInt64) -> UInt64 {
    max(1_000, min(heartbeatInterval, 60_000) * 10)
  }

  // From rules 2 on.
  static let hostSilence: UInt64 = 2_500
  static func nodeSilence(heartbeatInterval: UInt64) -> UInt64 { max(200, min(heartbeatInterval, 60_000) * 10) }
  static func workerStandstill(heartbeatInterval: UInt64) -> UInt64 { max(500, min(heartbeatInterval, 60_000) * 50) }
  /// A peer's word that a node does not answer is worth something for this long.
  static let witness: UInt64 = 2_000
  /// After a stall everybody has this long to be heard again.
  static let afterStall: UInt64 = 1_000
  /// While many are silent at once: how long nobody is declared dead, and then how far apart.
  static let massHold: UInt64 = 10_000
  static let massPace: UInt64 = 1_000
  /// From a migration command to its completion.
  static let move: UInt64 = 30_000
}

extension ClusterState {
  static let maximumHosts = 1_024
  /// Given-up lives of one node after which it is not launched again until one of them is known to have ended.
  static let maximumAbandonedLives = 3

  /// What a record did.
  enum Effect {
    /// Nothing: it was taken before.
    case none
    /// A sign of life, and no timer is due: there is nothing new to decide.
    case noted
    case moved
  }

  mutating func apply(_ event: Event, at timestamp: Timestamp, offset: Offset) -> Effect {
    guard seen.take(event, at: offset) else {
      ignored.repeated &+= 1
      return .none
    }
    clock.advance(to: timestamp, under: rules)
    let isFact = event.body.lane == .facts
    take(event, at: offset)
    if !isFact, clock.elapsed < wake.at { return .noted }
    fireTimers()
    if isFact || rules >= DecisionRules.failureDetection { settleMoves() }
    settleIntent()
    return .moved
  }

  private mutating func take(_ event: Event, at offset: Offset) {
    switch event.body {
    case .tick: if event.producer.isCoordinator { heard(replica: event.producer, rules: DecisionRules.first) }
    case .beacon(let beacon): heard(replica: event.producer, rules: beacon.rules)
    case .peerSilent(let silent): if !heard(silent, from: event.incarnation) { misdirected() }
    case .rulesActivated(let version): activate(rules: version)
    case .policyActivated(let policy): if !activate(policy, at: offset) { misdirected() }
    case .clusterApplied(let spec): apply(spec, correlation: event.correlation)
    case .clusterDeleted(let name):
      guard name == cluster else { return misdirected() }
      isDeleted = true
      pendingSpec = nil
      pendingChanges = []
      correlation = event.correlation
      scaling.target = nil
      scaling.moves = []
    case .agentStarted(let agent): apply(agent, event.incarnation)
    case .agentHeartbeat(let host):
      guard let index = hostIndex(host) else { return misdirected() }
      hosts[index].lastHeard = clock.elapsed
      if hosts[index].isSilent { wake.at = 0 }
    case .processExited(let exited): apply(exited)
    case .nodeStarted(let started): apply(started, event.incarnation)
    case .heartbeat(let heartbeat):
      guard let index = nodeIndex(heartbeat.node, event.incarnation) else { return misdirected() }
      heard(heartbeat, at: index)
    case .workload(let load):
      guard let index = nodeIndex(load.node, event.incarnation) else { return misdirected() }
      heard(nodeAt: index)
      nodes[index].workload = load
      noteDrained(at: index, load)
      judgeLoad()
    case .nodeStopping(let node):
      guard let index = nodeIndex(node, event.incarnation) else { return misdirected() }
      nodes[index].isLeaving = true
    case .commandAcknowledged(let acknowledgement): apply(acknowledgement)
    case .clusterRegistered: misdirected()  // belongs into the directory
    case .unknown(let body):
      ignored.unknown &+= 1
      if event.isCritical { needsNewerVersion = body }
    }
  }

  private mutating func misdirected() { ignored.misdirected &+= 1 }

  /// Rules only ever get newer, and what came into force before counts as it did then.
  private mutating func activate(rules version: UInt32) {
    guard version > rules else { return }
    guard version <= DecisionRules.newest else {
      needsNewerVersion = UnknownBody(tag: 0, record: Array("decision rules \(version)".utf8))
      return
    }
    rules = version
    clock.lastStall = clock.elapsed
    for index in nodes.indices { nodes[index].loopsMovedAt = clock.elapsed }
  }

  // MARK: The operator's intent

  private mutating func apply(_ new: ClusterSpec, correlation: String) {
    guard new.name == cluster else { return misdirected() }
    self.correlation = correlation
    pendingSpec = nil
    pendingChanges = []
    if new.runtimes != spec?.runtimes { scaling.target = nil }
    guard let old = spec, !isEmpty else {
      spec = new
      isDeleted = false
      return
    }
    // The counts of a running cluster change at once; what its processes were started with does not.
    pendingChanges = old.differences(from: new)
    if isDeleted {
      pendingSpec = new
      pendingChanges.insert("the deleted nodes have to stop first", at: 0)
    } else if pendingChanges.isEmpty {
      spec = new
    } else {
      pendingSpec = new
      spec?.runtimes = min(new.runtimes, old.poolShares)
      spec?.switches = new.switches
    }
  }

  /// Whether no process of this cluster exists or may exist.
  private var isEmpty: Bool { abandoned.isEmpty && !nodes.contains { $0.isAlive } }

  /// Lets a pending spec in as soon as nothing of the old one lives, and gives every wanted node an entry.
  private mutating func settleIntent() {
    if let pending = pendingSpec, isEmpty {
      nodes = []
      spec = pending
      isDeleted = false
      pendingSpec = nil
      pendingChanges = []
    }
    // Switches first, so that they have the low numbers.
    for kind in [NodeKind.virtualSwitch, .runtime] {
      let all = nodes.filter { $0.kind == kind }
      let count = UInt32(wanted(kind))
      var staying = UInt32(all.count { !$0.isUnwanted })
      if isDeleted { for node in all where node.drain != nil && node.isServing { stopDraining(node.id) } }
      // The highest numbers go first.
      for node in all.reversed() where staying > count && !node.isUnwanted {
        guard let index = nodeIndex(node.id) else { continue }
        if node.isAlive { nodes[index].phase = .stopping(nil) } else { nodes.remove(at: index) }
        staying -= 1
      }
      while staying < count, let id = NodeID(nextNode) {
        nodes.append(Node(id: id, kind: kind, waitingUntil: clock.elapsed))
        nextNode &+= 1
        staying += 1
      }
    }
  }

  /// A cluster that is deleted does not wait for flows to end.
  private mutating func stopDraining(_ id: NodeID) {
    if let index = nodeIndex(id) { nodes[index].phase = .stopping(nil) }
  }

  // MARK: Hosts

  private mutating func apply(_ agent: AgentStarted, _ incarnation: Incarnation) {
    let host = Host(
      id: agent.host, cores: agent.cores, runtimePorts: agent.runtimePorts, switchPorts: agent.switchPorts,
      agentIncarnation: incarnation, lastHeard: clock.elapsed)
    if let index = hostIndex(agent.host) {
      hosts[index] = host
    } else if hosts.count < Self.maximumHosts {
      hosts.insert(host, at: hosts.firstIndex { agent.host < $0.id } ?? hosts.count)
    } else {
      misdirected()
    }
  }

  // MARK: Lives of nodes

  private mutating func apply(_ started: NodeStarted, _ incarnation: Incarnation) {
    guard let index = nodeIndex(started.node, incarnation), nodes[index].kind == started.kind,
      nodes[index].host == started.host
    else { return misdirected() }
    heard(nodeAt: index)
    nodes[index].loopsMovedAt = clock.elapsed
    nodes[index].canMigrate = started.canMigrate
    nodes[index].ports = started.ports
    nodes[index].processID = started.processID
    nodes[index].startup = started.startup
    if case .launching = nodes[index].phase { nodes[index].phase = .serving(since: clock.elapsed) }
  }

  private mutating func apply(_ exited: ProcessExited) {
    let ending =
      switch exited.ending {
      case .code(let code): "exited with code \(code)"
      case .signal(let signal): "killed by signal \(signal)"
      }
    if let index = nodeIndex(exited.node, exited.incarnation), nodes[index].host == exited.host {
      lifeEnded(at: index, ending)
    } else if !abandonedLifeEnded({ $0.node == exited.node && $0.incarnation == exited.incarnation && $0.host == exited.host }) {
      misdirected()
    }
  }

  private mutating func apply(_ acknowledgement: CommandAcknowledgement) {
    switch acknowledgement.by {
    case .node(let node):
      guard let index = nodeIndex(node) else { return misdirected() }
      nodes[index].acknowledged = max(nodes[index].acknowledged, acknowledgement.slot)
      answered(by: node, acknowledgement)
    case .host(let host):
      guard hostIndex(host) != nil else { return misdirected() }
      answered(host, acknowledgement.slot, acknowledgement.outcome)
    }
  }

  /// An agent's answer to a launch or a stop. A rejected launch was never begun; a completed stop means that no such
  /// process exists, whether or not it ever did.
  private mutating func answered(_ host: HostID, _ slot: Slot, _ outcome: CommandAcknowledgement.Outcome) {
    if let index = nodes.firstIndex(where: { $0.host == host && $0.awaitedSlot == slot }) {
      switch (nodes[index].phase, outcome) {
      case (.launching, .rejected(let reason)):
        refused(by: host, nodes[index].kind, reason)
        lifeEnded(at: index, "\(host) refused it: \(reason)")
      case (.stopping, .completed):
        lifeEnded(at: index, "stopped")
      case (.waiting, _), (.launching, _), (.serving, _), (.stopping, _):
        break
      }
    } else if case .completed = outcome {
      _ = abandonedLifeEnded { $0.host == host && $0.stop?.slot == slot }
    }
  }

  private mutating func refused(by host: HostID, _ kind: NodeKind, _ reason: String) {
    guard let index = hostIndex(host) else { return }
    hosts[index].refusal = reason
    switch kind {
    case .runtime: hosts[index].runtimeRefusedUntil = clock.elapsed + Patience.refusal
    case .virtualSwitch: hosts[index].switchRefusedUntil = clock.elapsed + Patience.refusal
    }
  }

  /// The current life of a node is known to be over.
  mutating func lifeEnded(at index: Int, _ problem: String) {
    switch nodes[index].phase {
    case .stopping:
      nodes.remove(at: index)
      return
    case .serving(let since) where clock.elapsed - since >= Patience.proof:
      nodes[index].failures = 0
    case .serving, .launching, .waiting:
      nodes[index].failures = min(nodes[index].failures + 1, 1_000)
    }
    nodes[index].phase = .waiting(until: clock.elapsed + Patience.backoff(nodes[index].failures))
    nodes[index].lastProblem = problem
    nodes[index].endLife()
  }

  private mutating func abandonedLifeEnded(_ isIt: (AbandonedLife) -> Bool) -> Bool {
    guard let index = abandoned.firstIndex(where: isIt) else { return false }
    abandoned.remove(at: index)
    return true
  }

  // MARK: Timers

  private mutating func fireTimers() {
    let hostPatience = hostPatience, nodePatience = nodePatience
    for index in hosts.indices { hosts[index].isSilent = clock.elapsed - hosts[index].lastHeard > hostPatience }
    for index in nodes.indices {
      switch nodes[index].phase {
      case .launching(_, let deadline) where clock.elapsed >= deadline: giveUp(at: index)
      case .serving: nodes[index].isSilent = clock.elapsed - nodes[index].lastHeard > nodePatience
      case .waiting, .launching, .stopping: break
      }
    }
    guard rules >= DecisionRules.failureDetection else { return }
    declareDeaths()
    expireDrains()
  }

  /// The launch was not answered in time. Perhaps it was begun all the same: the life is told to stop, and what it
  /// holds is not given to another before it is known to be over.
  private mutating func giveUp(at index: Int) {
    let node = nodes[index]
    if let host = node.host {
      abandoned.append(
        AbandonedLife(
          node: node.id, kind: node.kind, incarnation: node.incarnation, host: host, poolShare: node.poolShare))
      refused(by: host, node.kind, "did not start node \(node.id) in time")
    }
    nodes[index].failures = min(node.failures + 1, 1_000)
    nodes[index].phase = .waiting(until: clock.elapsed + Patience.backoff(nodes[index].failures))
    nodes[index].lastProblem = "did not start in time"
    nodes[index].endLife()
  }
}

extension ClusterState.Node {
  var isUnwanted: Bool { if case .stopping = phase { true } else { drain != nil } }

  /// The slot whose answer the node's phase waits for.
  var awaitedSlot: Slot? {
    switch phase {
    case .launching(let slot, _): slot
    case .stopping(let request): request?.slot
    case .waiting, .serving: nil
    }
  }

  /// Forgets what belonged to the life that ended. The ports stay, so that tables can still name the dead.
  mutating func endLife() {
    poolShare = nil
    processID = 0
    isSilent = false
    isLeaving = false
    workerLoops = 0
    loopsMovedAt = 0
    peerWitness = nil
    canMigrate = false
    drain = nil
    workload = nil
  }
}

extension ClusterSpec {
  /// Which parts differ that a running process cannot change, for people.
  func differences(from new: ClusterSpec) -> [String] {
    let advice = "takes effect after the cluster is deleted and applied again"
    var found: [String] = []
    if chain.functions != new.chain.functions { found.append("chain: \(advice)") }
    if chain.flows != new.chain.flows { found.append("flows: \(advice)") }
    if network != new.network { found.append("network: \(advice)") }
    if poolShares != new.poolShares { found.append("pool-shares \(new.poolShares) instead of \(poolShares): \(advice)") }
    if polling != new.polling { found.append("polling: \(advice)") }
    if heartbeatInterval != new.heartbeatInterval { found.append("heartbeat: \(advice)") }
    if workloadInterval != new.workloadInterval { found.append("workload: \(advice)") }
    return found
  }
}
