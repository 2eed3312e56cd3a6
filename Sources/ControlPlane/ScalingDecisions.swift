import ControlMessages

// What is done about load and flows, by a policy or at an operator's request: one runtime more, one that drains, flows
// that move. Each command says why:
// the policy and its version, what was measured and the threshold it was held against.

extension ClusterState {
  func nextScaling() -> Decision? {
    guard rules >= DecisionRules.failureDetection, spec != nil, !isDeleted else { return nil }
    if let node = nextRequestedDrain { return .drain(node) }
    let policy = scaling.policy.flatMap { $0.kind == .manual ? nil : $0 }
    if let move = nextMove(policy) { return move }
    guard let policy else { return nil }
    guard clock.elapsed >= scaling.lastAction + policy.cooldown, !hasRuntimeOnTheWay else { return nil }
    let carriers = self.carriers
    if let since = scaling.overloadedSince, clock.elapsed - since >= policy.overloadPatience, let limit = spec?.poolShares,
      wanted(.runtime) < min(policy.maximumRuntimes, limit, ClusterSpec.maximumRuntimes), let share = freeShare(for: .runtime),
      let host = bestHost(for: .runtime), let busiest = mostLoaded(carriers, policy)
    {
      return .scaleOut(overloaded: busiest.id, host: host, poolShare: share)
    }
    if let since = scaling.idleSince, clock.elapsed - since >= policy.idlePatience, wanted(.runtime) > policy.minimumRuntimes,
      carriers.count > 1, !nodes.contains(where: { $0.drain?.isKept == false }), let least = leastLoaded(carriers)
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

  /// How far moves go at a time where no policy says it.
  private static let concurrentMoves = 8
  private static let flowsPerMove: UInt64 = 100_000

  private func nextMove(_ policy: ScalingPolicy?) -> Decision? {
    guard policy != nil || rules >= DecisionRules.flowRequests else { return nil }
    var underWay = 0
    for move in scaling.moves where move.slot != .none {
      if clock.elapsed >= move.deadline { return .cancelMove(move) }
      underWay += 1
    }
    guard underWay < policy.map({ Int($0.concurrentMoves) }) ?? Self.concurrentMoves else { return nil }
    for move in scaling.moves where move.slot == .none && move.asked < move.goal && canBegin(move) {
      return .move(move, min(policy.map { UInt64($0.flowsPerMove) } ?? Self.flowsPerMove, move.goal - move.asked))
    }
    return nil
  }

  private func canBegin(_ move: Move) -> Bool {
    guard let target = node(move.target), target.isServing, target.canMigrate else { return false }
    guard rules >= DecisionRules.flowRequests else { return true }
    // A runtime is at one migration at a time, and refuses a target that no table has named.
    return !scaling.moves.contains { $0.source == move.source && $0.slot != .none }
      && table.members.contains {
        $0.node == move.target && $0.incarnation == move.targetIncarnation && $0.state == .serving
      }
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
    guard let index = nodeIndex(id) else { return nil }
    if let request = openDrain(of: id), case .drain(let wish) = request.wish {
      nodes[index].drain = Drain(since: clock.elapsed, deadline: .max, isKept: wish.afterwards == .keep)
      planDrain(at: index)
      return Order(
        target: .node(id, nodes[index].incarnation), patience: Patience.stop,
        reason: "an operator's request\(wish.afterwards == .keep ? "" : "; it stops when it is empty")",
        correlation: request.correlation, body: .drainRuntime(id, nodes[index].incarnation))
    }
    guard let policy = scaling.policy else { return nil }
    let count = wanted(.runtime)
    let why = reason("\(count) -> \(count - min(count, 1)) runtimes, the least loaded drains", nodes[index])
    nodes[index].drain = Drain(since: clock.elapsed, deadline: clock.elapsed + policy.drainTimeout)
    planDrain(at: index)
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
    flowsMove()
    let share = move.drains || move.request != nil ? "" : ", half the load of node \(move.source)"
    return Order(
      target: .node(move.source, move.sourceIncarnation), patience: Patience.move,
      reason: "\(cause(of: move)): \(move.asked + flows) of \(move.goal) flows\(share)", correlation: correlation(of: move),
      body: .setMigrationTarget(
        FlowMove(
          source: move.source, sourceIncarnation: move.sourceIncarnation, target: move.target,
          targetIncarnation: move.targetIncarnation,
          flows: UInt32(clamping: flows))))
  }

  mutating func cancel(_ move: Move) -> Order? {
    guard let index = scaling.moves.firstIndex(of: move) else { return nil }
    let problem = "no answer within \(Patience.move) ms"
    ended(scaling.moves.remove(at: index), .failed(problem))
    if rules >= DecisionRules.replication {
      unansweredMoves.append(UnansweredMove(source: NodeLife(move.source, move.sourceIncarnation), slot: move.slot))
    }
    return Order(
      target: .node(move.source, move.sourceIncarnation), patience: Patience.stop, reason: "\(cause(of: move)): \(problem)",
      correlation: correlation(of: move), body: .cancelMigration(move.slot))
  }

  private func correlation(of move: Move) -> String? { move.request.flatMap { request(at: $0)?.correlation } }

  /// Who wants the flows moved.
  private func cause(of move: Move) -> String {
    move.drains ? "node \(move.source) drains" : move.request != nil ? "an operator's request" : scaling.name
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
