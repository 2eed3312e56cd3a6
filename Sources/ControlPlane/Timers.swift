import ControlMessages

// When something is due next, so that the thousands of signs of life before it cost next to nothing.

/// A lower bound that can be had again from the rest of the state: two states that differ only in it are equal.
struct Wake: Hashable, Sendable {
  var at: UInt64 = 0

  static func == (a: Self, b: Self) -> Bool { true }
  func hash(into hasher: inout Hasher) {}
}

extension ClusterState {
  /// The earliest `clock.elapsed` at which a timer could fire or time alone could make a decision possible, given that
  /// only signs of life come until then. Too early is harmless: it is computed anew there. A function of the rest of
  /// the state, so that snapshots need not keep it.
  var nextWake: UInt64 {
    var wake = UInt64.max
    func consider(_ time: UInt64) { if time > clock.elapsed { wake = min(wake, time) } }
    let hostPatience = hostPatience, nodePatience = nodePatience
    for host in hosts {
      consider(host.lastHeard + hostPatience + 1)
      consider(host.runtimeRefusedUntil)
      consider(host.switchRefusedUntil)
    }
    for index in nodes.indices {
      switch nodes[index].phase {
      case .waiting(let until): consider(until)
      case .launching(_, let deadline): consider(deadline)
      case .serving: consider(nodes[index].lastHeard + nodePatience + 1)
      case .stopping(let request): if let request { consider(request.retryAt) }
      }
      if let drain = nodes[index].drain { consider(drain.deadline) }
    }
    for life in abandoned { if let stop = life.stop { consider(stop.retryAt) } }
    if let tableDue { consider(tableDue) }
    guard rules >= DecisionRules.failureDetection else { return wake }
    if nodes.indices.contains(where: { nodes[$0].isSilent && nodes[$0].isServing }) {
      consider(clock.lastStall + Patience.afterStall)
      consider(lastDeclared + Patience.massPace)
      if let manySilentSince { consider(manySilentSince + Patience.massHold) }
    }
    considerProtections(consider)
    for move in scaling.moves where move.slot != .none { consider(move.deadline) }
    if let policy = scaling.policy {
      consider(scaling.lastAction + policy.cooldown)
      if let since = scaling.overloadedSince { consider(since + policy.overloadPatience) }
      if let since = scaling.idleSince { consider(since + policy.idlePatience) }
    }
    return wake
  }

  var hostPatience: UInt64 { rules < DecisionRules.failureDetection ? Patience.agentSilence : Patience.hostSilence }

  var nodePatience: UInt64 {
    let interval = spec?.heartbeatInterval ?? 10
    if rules < DecisionRules.failureDetection { return Patience.shownSilence(heartbeatInterval: interval) }
    return rules < DecisionRules.replication
      ? Patience.nodeSilence(heartbeatInterval: interval) : Patience.patientSilence(heartbeatInterval: interval)
  }
}
