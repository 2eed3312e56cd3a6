import ControlMessages

/// What the core decides: each is one command. A decision reads the state and changes nothing; ties go to the lower
/// number or name, so that every replica decides alike.
enum Decision: Hashable, Sendable {
  case launch(node: NodeID, host: HostID, poolShare: PoolShare)
  /// A node that is no longer wanted.
  case stop(NodeID)
  /// A life that was given up.
  case stopAbandoned(NodeID, Incarnation)
  case notify(ClusterTable)
  /// One runtime more, because `overloaded` has too much to do.
  case scaleOut(overloaded: NodeID, host: HostID, poolShare: PoolShare)
  /// One runtime fewer.
  case drain(NodeID)
  /// The next flows of a move.
  case move(ClusterState.Move, UInt64)
  case cancelMove(ClusterState.Move)
  /// Runtimes are to take over other settings.
  case changeSettings(UInt64)
  /// A runtime's flows are to have replicas on another, or on two, or nobody is left who could hold them.
  case protect(NodeID, NodeLife?, second: NodeLife?)
  /// A life is over: who has its flows now, and who keeps his replicas of them until they have others.
  case recover(NodeLife, by: NodeLife?, standby: NodeLife?)
}

extension ClusterState {
  /// The most urgent thing to do, if there is any. After it was enacted, there may be another.
  func nextDecision() -> Decision? {
    guard needsNewerVersion == nil else { return nil }
    if rules < DecisionRules.failureDetection { return nextStop() ?? nextLaunch() ?? nextTable().map(Decision.notify) }
    // Flows without an owner come first, then what switches must stop using.
    if let recovery = nextRecovery() { return recovery }
    if lacksServer, let table = nextTable() { return .notify(table) }
    return nextProtection() ?? nextStop() ?? nextLaunch() ?? nextSettings() ?? nextScaling() ?? nextTable().map(Decision.notify)
  }

  // MARK: Stopping

  private func nextStop() -> Decision? {
    for life in abandoned where isDue(life.stop, on: life.host) { return .stopAbandoned(life.node, life.incarnation) }
    for index in nodes.indices {
      if case .stopping(let request) = nodes[index].phase, let host = nodes[index].host, isDue(request, on: host) {
        if request == nil, isAwaited(nodes[index]) { continue }
        return .stop(nodes[index].id)
      }
    }
    return nil
  }

  /// The first request goes out at once, further ones when the last was in vain and somebody is there to hear.
  private func isDue(_ request: StopRequest?, on host: HostID) -> Bool {
    guard let request else { return true }
    return clock.elapsed >= request.retryAt && self.host(host)?.isSilent == false
  }

  // MARK: Launching

  private func nextLaunch() -> Decision? {
    for index in nodes.indices {
      guard case .waiting(let until) = nodes[index].phase, until <= clock.elapsed else { continue }
      let (id, kind) = (nodes[index].id, nodes[index].kind)
      guard abandoned.count(where: { $0.node == id }) < Self.maximumAbandonedLives, let share = freeShare(for: kind),
        let host = bestHost(for: kind)
      else { continue }
      return .launch(node: id, host: host, poolShare: share)
    }
    return nil
  }

  /// The lowest share that no life holds.
  func freeShare(for kind: NodeKind) -> PoolShare? {
    guard kind == .runtime, let spec else { return .whole }
    for index in 0..<min(spec.poolShares, ClusterSpec.maximumPoolShares) {
      let isTaken =
        nodes.contains { $0.poolShare == index } || abandoned.contains { $0.poolShare == index }
        || lostLives.contains { $0.poolShare == index }
      if !isTaken { return PoolShare(index: index, of: spec.poolShares) }
    }
    return nil
  }

  /// The host with the fewest of our nodes among those that have a port left and are not known to refuse.
  func bestHost(for kind: NodeKind) -> HostID? {
    var best: (host: HostID, used: Int)?
    for host in hosts where !host.isSilent {
      let (ports, refusedUntil) =
        switch kind {
        case .runtime: (host.runtimePorts, host.runtimeRefusedUntil)
        case .virtualSwitch: (host.switchPorts, host.switchRefusedUntil)
        }
      guard refusedUntil <= clock.elapsed, used(kind, on: host.id) < Int(ports) else { continue }
      let used = used(.runtime, on: host.id) + used(.virtualSwitch, on: host.id)
      // Hosts are in the order of their names, so the first of equals stays.
      if best.map({ used < $0.used }) ?? true { best = (host.id, used) }
    }
    return best?.host
  }

  // MARK: Telling

  /// Least time between two tables, in milliseconds: after a change of members, after a change of loads.
  private static let memberPace: UInt64 = 100
  private static let loadPace: UInt64 = 1_000

  private func nextTable() -> ClusterTable? {
    guard let due = tableDue, due <= clock.elapsed else { return nil }
    return ClusterTable(version: table.version &+ 1, members: members, uplinks: uplinkHolder)
  }

  /// When the next table may go out; nil while there is nothing new to tell.
  var tableDue: UInt64? {
    if table.version == 0 { return nodes.contains { $0.memberState == .serving } ? clock.elapsed : nil }
    if !hasSameMembers { return lacksServer ? clock.elapsed : tableSent + Self.memberPace }
    return hasMovedLoads || lacksCount ? tableSent + Self.loadPace : nil
  }

  /// Whether the last table sends packets to a node that does not serve any more. From rules 2 on that is not kept back.
  private var lacksServer: Bool {
    guard rules >= DecisionRules.failureDetection else { return false }
    for index in table.members.indices where table.members[index].state == .serving {
      guard let node = nodeIndex(table.members[index].node), nodes[node].memberState == .serving,
        nodes[node].incarnation == table.members[index].incarnation
      else { return true }
    }
    return false
  }

  /// Everybody who has started once, and those who are starting.
  var members: [ClusterTable.Member] {
    nodes.compactMap { node in
      guard let host = node.host else { return nil }
      var member = ClusterTable.Member(
        node: node.id, kind: node.kind, incarnation: node.incarnation, host: host, state: node.memberState,
        ports: node.memberState == .starting ? nil : node.ports)
      if let load = node.workload { member.load = ClusterTable.Load(load) }
      if rules >= DecisionRules.liveSettings {
        member.poolShare = node.poolShare.flatMap { PoolShare(index: $0, of: spec?.poolShares ?? 0) }
      }
      return member
    }
  }

  /// Whether a table would tell the same about who is there. Those still starting are of no use to anybody yet.
  private var hasSameMembers: Bool {
    guard table.uplinks == uplinkHolder else { return false }
    // By index: members and nodes are large, and this is asked after every word of a load.
    var told = table.members.startIndex
    func passOverStarting() { while told < table.members.endIndex, table.members[told].state == .starting { told += 1 } }
    for index in nodes.indices {
      let state = nodes[index].memberState
      guard let host = nodes[index].host, state != .starting else { continue }
      passOverStarting()
      guard told < table.members.endIndex, table.members[told].node == nodes[index].id, table.members[told].state == state,
        table.members[told].incarnation == nodes[index].incarnation, table.members[told].kind == nodes[index].kind,
        table.members[told].ports == nodes[index].ports, table.members[told].host == host
      else { return false }
      told += 1
    }
    passOverStarting()
    return told == table.members.endIndex
  }

  private var hasMovedLoads: Bool {
    // Both ascend by node.
    var told = table.members.startIndex
    for index in nodes.indices where nodes[index].memberState == .serving {
      while told < table.members.endIndex, table.members[told].node < nodes[index].id { told += 1 }
      guard told < table.members.endIndex else { return false }
      guard table.members[told].node == nodes[index].id else { continue }
      let load = nodes[index].workload.map(ClusterTable.Load.init) ?? ClusterTable.Load()
      if load.isFar(from: table.members[told].load) { return true }
    }
    return false
  }
}

extension ClusterTable.Load {
  init(_ load: NodeWorkload) {
    let perSecond = load.droppedPackets.multipliedReportingOverflow(by: 1_000)
    self.init(
      activeFlows: load.activeFlows, busyShare: load.busyShare,
      dropsPerSecond: load.interval == 0 || perSecond.overflow ? load.droppedPackets : perSecond.partialValue / load.interval)
  }

  /// Far enough to tell: a tenth and at least 16 flows, 5 % of a core, or drops that doubled, halved, began or ended.
  func isFar(from last: ClusterTable.Load) -> Bool {
    func distance(_ a: UInt64, _ b: UInt64) -> UInt64 { a > b ? a - b : b - a }
    if distance(activeFlows, last.activeFlows) > max(16, last.activeFlows / 10) { return true }
    if distance(UInt64(busyShare), UInt64(last.busyShare)) > 50_000 { return true }
    if (dropsPerSecond == 0) != (last.dropsPerSecond == 0) { return true }
    return dropsPerSecond / 2 > last.dropsPerSecond || last.dropsPerSecond / 2 > dropsPerSecond
  }
}
