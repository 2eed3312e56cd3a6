import ControlMessages

// How lives of nodes begin and end, as their nodes and agents tell, and as time tells when nobody does.

extension ClusterState {
  mutating func apply(_ started: NodeStarted, _ incarnation: Incarnation) {
    guard let index = nodeIndex(started.node, incarnation), nodes[index].kind == started.kind,
      nodes[index].host == started.host
    else { return misdirected() }
    heard(nodeAt: index)
    nodes[index].loopsMovedAt = clock.elapsed
    nodes[index].canMigrate = started.canMigrate
    nodes[index].canReplicate = started.canReplicate
    nodes[index].ports = started.ports
    nodes[index].processID = started.processID
    nodes[index].startup = started.startup
    if case .launching = nodes[index].phase { nodes[index].phase = .serving(since: clock.elapsed) }
  }

  mutating func apply(_ exited: ProcessExited) {
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

  mutating func apply(_ acknowledgement: CommandAcknowledgement) {
    switch acknowledgement.by {
    case .node(let node):
      guard let index = nodeIndex(node) else { return misdirected() }
      nodes[index].acknowledged = max(nodes[index].acknowledged, acknowledgement.slot)
      noteSettings(of: node, acknowledgement)
      answered(by: node, acknowledgement)
      if rules >= DecisionRules.replication {
        protectionAnswered(by: node, acknowledgement)
        recoveryAnswered(by: node, acknowledgement)
      }
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

  mutating func refused(by host: HostID, _ kind: NodeKind, _ reason: String) {
    guard let index = hostIndex(host) else { return }
    hosts[index].refusal = reason
    switch kind {
    case .runtime: hosts[index].runtimeRefusedUntil = clock.elapsed + Patience.refusal
    case .virtualSwitch: hosts[index].switchRefusedUntil = clock.elapsed + Patience.refusal
    }
  }

  /// The current life of a node is known to be over.
  mutating func lifeEnded(at index: Int, _ problem: String) {
    noteLost(at: index)
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

  mutating func fireTimers() {
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
  var isUnwanted: Bool { if case .stopping = phase { true } else { drain?.isKept == false } }

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
    unheardBy = []
    canMigrate = false
    canReplicate = false
    protection = nil
    drain = nil
    workload = nil
    settingsVersion = 0
    settingsProblem = ""
    backends = []
  }
}
