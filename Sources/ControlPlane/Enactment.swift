import ControlMessages

// A decision, once made, is part of the state: the slot it was given, and what is expected of it by when.

/// A command before its envelope.
struct Order {
  var target: Command.Target
  /// Milliseconds of log time until it expires.
  var patience: UInt64
  var reason: String
  /// Of the request that it is for; nil: the cluster's current intent.
  var correlation: String? = nil
  var body: Command.Body
}

extension ClusterState {
  /// Notes that `decision` was given `slot`, and returns what is to be said. nil, and no change, when the decision is
  /// about something that is not there; `nextDecision` makes none of that kind.
  mutating func enact(_ decision: Decision, slot: Slot) -> Order? {
    let order: Order?
    switch decision {
    case .launch(let node, let host, let share): order = launch(node, on: host, share, slot)
    case .stop(let node): order = stop(node, slot)
    case .stopAbandoned(let node, let incarnation): order = stopAbandoned(node, incarnation, slot)
    case .notify(let table):
      let change = uplinkChange(in: table)
      self.table = table
      tableSent = clock.elapsed
      let serving = table.members.count { $0.state == .serving }
      order = Order(
        target: .cluster, patience: 5_000,
        reason: "table \(table.version): \(serving) of \(table.members.count) members serve\(change)", body: .notifyClusterConfig(table))
    case .scaleOut(let overloaded, let host, let share): order = scaleOut(overloaded, on: host, share, slot)
    case .drain(let node):
      order = drain(node)
      // Whoever takes the place of one that is going to stop is asked for at once.
      if rules >= DecisionRules.replication { settleIntent() }
    case .move(let move, let flows): order = moveFlows(move, flows, slot)
    case .cancelMove(let move): order = cancel(move)
    case .changeSettings(let version): order = changeSettings(version, slot)
    case .protect(let node, let holder, let second): order = protect(node, by: holder, second, slot)
    case .recover(let life, let heir, let standby): order = recover(life, by: heir, standby: standby, slot)
    }
    if order != nil { lastSlot = slot }
    return order
  }

  mutating func launch(_ id: NodeID, on host: HostID, _ share: PoolShare, _ slot: Slot) -> Order? {
    guard let spec, let index = nodeIndex(id) else { return nil }
    let reason =
      if nodes[index].incarnation.number == 0 {
        "\(wanted(nodes[index].kind)) \(nodes[index].kind) nodes wanted; \(host) has the fewest nodes"
      } else {
        "node \(id) \(nodes[index].lastProblem); life \(nodes[index].incarnation.number &+ 1) on \(host)"
      }
    nodes[index].incarnation = Incarnation(nodes[index].incarnation.number &+ 1)
    nodes[index].host = host
    nodes[index].poolShare = nodes[index].kind == .runtime ? share.index : nil
    nodes[index].ports = nil
    nodes[index].lastHeard = clock.elapsed
    nodes[index].phase = .launching(slot: slot, deadline: clock.elapsed + Patience.launch)
    nodes[index].settingsVersion = settingsVersion
    let launch = LaunchSpec(
      cluster: cluster, node: id, incarnation: nodes[index].incarnation, kind: nodes[index].kind, host: host, chain: spec.chain,
      poolShare: share, network: nodes[index].kind == .virtualSwitch ? spec.network : nil,
      heartbeatInterval: spec.heartbeatInterval, workloadInterval: spec.workloadInterval, polling: spec.polling,
      replicas: spec.replicas)
    return Order(
      target: .host(host), patience: Patience.launch, reason: reason,
      body: nodes[index].kind == .runtime ? .launchRuntime(launch) : .launchSwitch(launch))
  }

  private mutating func stop(_ id: NodeID, _ slot: Slot) -> Order? {
    guard let index = nodeIndex(id), let host = nodes[index].host, case .stopping(let last) = nodes[index].phase else { return nil }
    nodes[index].phase = .stopping(StopRequest(after: last, slot: slot, now: clock.elapsed))
    let reason = isDeleted ? "the cluster was deleted" : "\(wanted(nodes[index].kind)) \(nodes[index].kind) nodes wanted"
    return Order(
      target: .host(host), patience: Patience.stop, reason: reason, body: .stopNode(id, nodes[index].incarnation))
  }

  private mutating func stopAbandoned(_ id: NodeID, _ incarnation: Incarnation, _ slot: Slot) -> Order? {
    guard let index = abandoned.firstIndex(where: { $0.node == id && $0.incarnation == incarnation }) else { return nil }
    abandoned[index].stop = StopRequest(after: abandoned[index].stop, slot: slot, now: clock.elapsed)
    if abandoned[index].isDeclaredDead {
      let evidence = deaths.last { $0.node == id && $0.incarnation == incarnation }?.evidence ?? "long ago"
      return Order(
        target: .host(abandoned[index].host), patience: Patience.stop,
        reason: "life \(incarnation) of node \(id) was declared dead: \(evidence)", body: .fence(id, incarnation))
    }
    return Order(
      target: .host(abandoned[index].host), patience: Patience.stop,
      reason: "life \(incarnation) of node \(id) did not start in time and may still run", body: .stopNode(id, incarnation))
  }
}

extension ClusterState.StopRequest {
  init(after last: ClusterState.StopRequest?, slot: Slot, now: UInt64) {
    attempts = min((last?.attempts ?? 0) + 1, 1_000)
    self.slot = slot
    retryAt = now + min(Patience.stop << UInt64(min(attempts - 1, 16)), Patience.stopCeiling)
  }
}

extension ClusterState {
  /// What the next decisions follow from, except time and load.
  func mixKeyParts(into hash: inout StateHash) {
    hash.mix(lastSlot.number)
    hash.mix(table.version)
    hash.mix(UInt64(wanted(.runtime)) << 32 | UInt64(wanted(.virtualSwitch)))
    hash.mix(UInt64(nextNode) << 1 | (isDeleted ? 1 : 0))
    for host in hosts {
      hash.mix(host.id.name)
      hash.mix(host.agentIncarnation.number)
      hash.mix(UInt64(host.runtimePorts) << 32 | UInt64(host.switchPorts))
    }
    for node in nodes {
      hash.mix(UInt64(node.id.number) << 8 | UInt64(node.kind.rawValue))
      hash.mix(node.incarnation.number)
      hash.mix(node.host?.name ?? "")
      switch node.phase {
      case .waiting(let until): hash.mix(until << 2)
      case .launching(let slot, _): hash.mix(slot.number << 2 | 1)
      case .serving(let since): hash.mix(since << 2 | 2)
      case .stopping(let request): hash.mix((request?.slot.number ?? 0) << 2 | 3)
      }
      hash.mix(UInt64(node.poolShare ?? .max))
    }
    for life in abandoned {
      hash.mix(UInt64(life.node.number))
      hash.mix(life.incarnation.number)
    }
    guard rules >= DecisionRules.failureDetection else { return }
    hash.mix(UInt64(rules))
    hash.mix(UInt64(scaling.target ?? .max))
    hash.mix(scaling.lastAction)
    for node in nodes { hash.mix(node.drain?.deadline ?? 0) }
    for move in scaling.moves {
      hash.mix(move.goal)
      hash.mix(move.asked)
      hash.mix(move.slot.number)
    }
    hash.mix(lastDeclared)
    hash.mix(clock.elapsed)
    guard rules >= DecisionRules.flowRequests else { return }
    for node in nodes { hash.mix(node.drain?.isKept == true ? 1 : 0) }
    for request in requests { hash.mix(request.outcome == .open ? 1 : 0) }
    guard rules >= DecisionRules.replication else { return }
    for node in nodes {
      hash.mix(node.protection?.slot.number ?? 0)
      hash.mix(node.protection?.isComplete == true ? 1 : 0)
    }
    for lost in lostLives {
      hash.mix(UInt64(lost.life.node.number))
      hash.mix(lost.life.incarnation.number)
      hash.mix(UInt64(lost.poolShare ?? .max) << 1 | (lost.isSettled ? 1 : 0))
      hash.mix(UInt64(lost.clear.count))
    }
    hash.mix(stillSince?.number ?? .max)
    guard rules >= DecisionRules.liveSettings else { return }
    hash.mix(settingsVersion)
    hash.mix(settingsTold)
    guard rules >= DecisionRules.switchTakeover else { return }
    if case .only(let holder) = table.uplinks {
      hash.mix(UInt64(holder?.node.number ?? 0))
      hash.mix(holder?.incarnation.number ?? 0)
    }
    guard rules >= DecisionRules.secondReplica else { return }
    func mix(_ life: NodeLife?) {
      hash.mix(UInt64(life?.node.number ?? 0))
      hash.mix(life?.incarnation.number ?? 0)
    }
    for node in nodes {
      mix(node.protection?.holder)
      mix(node.protection?.second)
      mix(node.protection?.kept)
    }
    for lost in lostLives { mix(lost.standby) }
  }
}
