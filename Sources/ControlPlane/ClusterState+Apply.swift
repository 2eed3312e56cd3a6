import ControlMessages

// Events move the state and decide nothing. Every case is total: an event about something that is not there, or no
// longer, is counted and passed over.

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
    settleDrains()
    settleShares()
    return .moved
  }

  private mutating func take(_ event: Event, at offset: Offset) {
    switch event.body {
    case .tick: if event.producer.isCoordinator { heard(replica: event.producer, rules: DecisionRules.first) }
    case .beacon(let beacon): heard(replica: event.producer, rules: beacon.rules)
    case .peerSilent(let silent): if !heard(silent, from: event.incarnation) { misdirected() }
    case .rulesActivated(let version): activate(rules: version, neededRelease: event.neededRelease)
    case .moveRequested(let wish): take(.move(wish), correlation: event.correlation, at: offset)
    case .drainRequested(let wish): take(.drain(wish), correlation: event.correlation, at: offset)
    case .functionLog: break  // for people
    case .backendChanged(let change): note(change, by: event.incarnation)
    case .recoveryFinished(let end): take(end)
    case .migrationFinished: break  // for histories: what follows from its end follows from the acknowledgement
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
      endRequests("the cluster was deleted")
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
      noteBorrowed(by: nodes[index].life, load)
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

  mutating func misdirected() { ignored.misdirected &+= 1 }

  /// Rules only ever get newer, and what came into force before counts as it did then.
  private mutating func activate(rules version: UInt32, neededRelease: String) {
    guard version > rules else { return }
    guard version <= DecisionRules.newest else {
      needsNewerVersion = UnknownBody(
        tag: 0, record: Array("decision rules \(version)".utf8), neededRelease: neededRelease)
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
    let isLive = canChange(old, to: new)
    pendingChanges = old.differences(from: new, chainIsLive: isLive)
    if isDeleted {
      pendingSpec = new
      pendingChanges.insert("the deleted nodes have to stop first", at: 0)
    } else if pendingChanges.isEmpty {
      if old.chain.functions != new.chain.functions { settingsVersion &+= 1 }
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
  mutating func settleIntent() {
    if let pending = pendingSpec, isEmpty {
      nodes = []
      if spec?.chain.functions != pending.chain.functions { settingsVersion &+= 1 }
      spec = pending
      isDeleted = false
      pendingSpec = nil
      pendingChanges = []
    }
    // Switches first, so that they have the low numbers.
    for kind in [NodeKind.virtualSwitch, .runtime] {
      let count = UInt32(wanted(kind))
      var staying: UInt32 = 0
      for index in nodes.indices where nodes[index].kind == kind && !nodes[index].isUnwanted { staying += 1 }
      // As it is after nearly every record.
      if staying == count, !isDeleted { continue }
      let all = nodes.filter { $0.kind == kind }
      if isDeleted { for node in all where node.drain != nil && node.isServing { stopDraining(node.id) } }
      // Those that serve nothing go first, then the highest numbers.
      for node in all.filter({ $0.drain != nil }) + all.reversed().filter({ $0.drain == nil })
      where staying > count && !node.isUnwanted {
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
}

extension ClusterSpec {
  /// Which parts differ that a running process cannot change, for people.
  func differences(from new: ClusterSpec, chainIsLive: Bool = false) -> [String] {
    let advice = "takes effect after the cluster is deleted and applied again"
    var found: [String] = []
    if chain.functions != new.chain.functions, !chainIsLive { found.append("chain: \(advice)") }
    if chain.flows != new.chain.flows { found.append("flows: \(advice)") }
    if network != new.network { found.append("network: \(advice)") }
    if poolShares != new.poolShares { found.append("pool-shares \(new.poolShares) instead of \(poolShares): \(advice)") }
    if replicas != new.replicas { found.append("replicas \(new.replicas) instead of \(replicas): \(advice)") }
    if polling != new.polling { found.append("polling: \(advice)") }
    if heartbeatInterval != new.heartbeatInterval { found.append("heartbeat: \(advice)") }
    if workloadInterval != new.workloadInterval { found.append("workload: \(advice)") }
    return found
  }
}
