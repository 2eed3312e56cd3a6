import ControlMessages

// What a policy does about the load: launches one runtime more, lets one drain, moves flows. Each command says why:
// the policy and its version, what was measured and the threshold it was held against.

extension ClusterState {
  func nextScaling() -> Decision? {
    guard rules >= DecisionRules.failureDetection, let policy = scaling.policy, policy.kind != .manual, spec != nil, !isDeleted
    else {
      return nil
    }
    if let move = nextMove(policy) { return move }
    guard clock.elapsed >= scaling.lastAction + policy.cooldown, !hasRuntimeOnTheWay else { return nil }
    let carriers = self.carriers
    if let since = scaling.overloadedSince, clock.elapsed - since >= policy.overloadPatience, let limit = spec?.poolShares,
      wanted(.runtime) < min(policy.maximumRuntimes, limit, ClusterSpec.maximumRuntimes), let share = freeShare(for: .runtime),
      let host = bestHost(for: .runtime), let busiest = mostLoaded(carriers, policy)
    {
      return .scaleOut(overloaded: busiest.id, host: host, poolShare: share)
    }
    if let since = scaling.idleSince, clock.elapsed - since >= policy.idlePatience, wanted(.runtime) > policy.minimumRuntimes,
      carriers.count > 1, !nodes.contains(where: { $0.drain != nil }), let least = leastLoaded(carriers)
    {
      return .drain(least.id)
    }
    return nil
  }

  /// Capacity that was asked for and does not serve yet: its effect is waited for.
  private var hasRuntimeOnTheWay: Bool {
    nodes.contains { node in
      guard node.kind == .runtime else { return false }
      switch node.phase {
      case .waiting, .launching: return true
      case .serving, .stopping: return false
      }
    }
  }

  private func mostLoaded(_ carriers: [Node], _ policy: ScalingPolicy) -> Node? {
    func load(_ node: Node) -> UInt64 {
      guard let workload = node.workload else { return 0 }
      if case .dropThreshold(let rule) = policy.kind { return rule.counts(workload) }
      return UInt64(workload.busyShare)
    }
    var best: Node?
    for node in carriers where best.map({ load(node) > load($0) }) ?? true { best = node }
    return best
  }

  /// The paper's choice: the smallest throughput. Of equals the youngest.
  private func leastLoaded(_ carriers: [Node]) -> Node? {
    func throughput(_ node: Node) -> UInt64 {
      guard let load = node.workload else { return 0 }
      return load.forwardedPackets / max(1, load.interval)
    }
    var best: Node?
    for node in carriers where best.map({ throughput(node) <= throughput($0) }) ?? true { best = node }
    return best
  }

  private func nextMove(_ policy: ScalingPolicy) -> Decision? {
    var underWay = 0
    for move in scaling.moves where move.slot != .none {
      if clock.elapsed >= move.deadline { return .cancelMove(move) }
      underWay += 1
    }
    guard underWay < Int(policy.concurrentMoves) else { return nil }
    for move in scaling.moves where move.slot == .none && move.asked < move.goal {
      if let target = node(move.target), target.isServing, target.canMigrate {
        return .move(move, min(UInt64(policy.flowsPerMove), move.goal - move.asked))
      }
    }
    return nil
  }

  // MARK: Enacting

  mutating func scaleOut(_ overloaded: NodeID, on host: HostID, _ share: PoolShare, _ slot: Slot) -> Order? {
    guard let id = NodeID(nextNode), let source = node(overloaded) else { return nil }
    let count = wanted(.runtime)
    let why = reason("\(count) -> \(count + 1) runtimes", source)
    nodes.append(Node(id: id, kind: .runtime, waitingUntil: clock.elapsed))
    nextNode &+= 1
    noteAction(target: count + 1)
    guard var order = launch(id, on: host, share, slot) else { return nil }
    order.reason = why
    if source.canMigrate, let flows = source.workload?.activeFlows, let target = node(id) {
      scaling.moves.append(
        Move(
          source: source.id, sourceIncarnation: source.incarnation, target: id, targetIncarnation: target.incarnation,
          goal: flows / 2))
    }
    return order
  }

  mutating func drain(_ id: NodeID) -> Order? {
    guard let index = nodeIndex(id), let policy = scaling.policy else { return nil }
    let count = wanted(.runtime)
    let why = reason("\(count) -> \(count - min(count, 1)) runtimes, the least loaded drains", nodes[index])
    nodes[index].drain = Drain(since: clock.elapsed, deadline: clock.elapsed + policy.drainTimeout)
    noteAction(target: count - min(count, 1))
    return Order(
      target: .node(id, nodes[index].incarnation), patience: Patience.stop, reason: why,
      body: .drainRuntime(id, nodes[index].incarnation))
  }

  mutating func moveFlows(_ move: Move, _ flows: UInt64, _ slot: Slot) -> Order? {
    guard let index = scaling.moves.firstIndex(of: move) else { return nil }
    scaling.moves[index].asked += flows
    scaling.moves[index].slot = slot
    scaling.moves[index].deadline = clock.elapsed + Patience.move
    return Order(
      target: .node(move.source, move.sourceIncarnation), patience: Patience.move,
      reason: "\(scaling.name): \(move.asked + flows) of \(move.goal) flows, half the load of node \(move.source)",
      body: .setMigrationTarget(
        FlowMove(
          source: move.source, sourceIncarnation: move.sourceIncarnation, target: move.target,
          targetIncarnation: move.targetIncarnation,
          flows: UInt32(clamping: flows))))
  }

  mutating func cancel(_ move: Move) -> Order? {
    guard let index = scaling.moves.firstIndex(of: move) else { return nil }
    scaling.moves.remove(at: index)
    return Order(
      target: .node(move.source, move.sourceIncarnation), patience: Patience.stop,
      reason: "\(scaling.name): no answer within \(Patience.move) ms", body: .cancelMigration(move.slot))
  }

  private mutating func noteAction(target: UInt32) {
    scaling.target = target
    scaling.lastAction = clock.elapsed
    scaling.overloadedSince = nil
    scaling.idleSince = nil
  }

  /// Inputs, thresholds, policy and its version in one sentence.
  private func reason(_ effect: String, _ node: Node) -> String {
    let load = node.workload ?? NodeWorkload(node: node.id, interval: 0)
    let since = clock.elapsed - (scaling.overloadedSince ?? scaling.idleSince ?? clock.elapsed)
    let isOverload = scaling.overloadedSince != nil
    let measured: String
    switch scaling.policy?.kind {
    case .dropThreshold(let rule) where isOverload:
      measured = "node \(node.id) lost \(rule.counts(load)) packets in \(load.interval) ms, more than \(rule.drops)"
    case .dropThreshold(let rule):
      measured = "\(busySentence), less than \(rule.idleBusyShare / 10_000) % for one fewer"
    case .targetUtilisation(let rule):
      measured =
        "\(busySentence), \(isOverload ? "above" : "one fewer would stay below") "
        + "\((isOverload ? rule.busyShare + rule.tolerance : rule.busyShare - rule.tolerance) / 10_000) %"
    case .manual, nil:
      measured = ""
    }
    return "\(scaling.name): \(measured), for \(since) ms; \(effect)"
  }

  private var busySentence: String {
    let loads = carriers.compactMap(\.workload)
    let busy = loads.reduce(0) { $0 + UInt64($1.busyShare) }
    return "\(loads.count) runtimes are \(busy / max(1, UInt64(loads.count)) / 10_000) % busy on average"
  }
}

extension ClusterState.Scaling {
  /// The policy and the offset that activated it.
  var name: String { "policy \(policy?.name ?? "manual")@\(version)" }
}
