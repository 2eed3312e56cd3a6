import ControlMessages

// What a scaling policy sees and remembers. It looks at every workload event; what it then decides is in
// `ScalingDecisions.swift`.

extension ClusterState {
  public struct Scaling: Hashable, Sendable {
    /// nil: the counts are the operator's.
    public package(set) var policy: ScalingPolicy?
    /// Where the policy was activated: its version.
    public package(set) var version = Offset(0)
    /// Runtimes that the policy wants; nil: as many as the operator.
    public package(set) var target: UInt32?
    /// `clock.elapsed` of the last action, and since when there has been reason for one.
    public package(set) var lastAction: UInt64 = 0
    public package(set) var overloadedSince: UInt64?
    public package(set) var idleSince: UInt64?
    public package(set) var moves: [Move] = []

    package init() {}

    func runtimes(of spec: ClusterSpec, under rules: UInt32) -> UInt32 {
      guard rules >= DecisionRules.failureDetection, let policy, policy.kind != .manual else { return spec.runtimes }
      return min(max(target ?? spec.runtimes, policy.minimumRuntimes), policy.maximumRuntimes)
    }
  }

  /// Flows on their way from one runtime to another, one command at a time: from an overloaded one to one launched for
  /// them, from one that drains, or because an operator asked.
  public struct Move: Hashable, Sendable {
    public let source: NodeID
    public let sourceIncarnation: Incarnation
    public let target: NodeID
    public let targetIncarnation: Incarnation
    /// Flows. A policy's: half of what the source carried when this was decided.
    public package(set) var goal: UInt64
    /// The source is to have no flows.
    public let drains: Bool
    /// The operator's request that it belongs to.
    public let request: Offset?
    /// Flows asked for so far.
    public package(set) var asked: UInt64 = 0
    /// The command under way, and when it is cancelled.
    public package(set) var slot = Slot.none
    public package(set) var deadline: UInt64 = 0
    /// Flows that the command under way has moved so far.
    public package(set) var done: UInt64 = 0

    package init(
      source: NodeID, sourceIncarnation: Incarnation, target: NodeID, targetIncarnation: Incarnation, goal: UInt64,
      drains: Bool = false, request: Offset? = nil
    ) {
      self.source = source
      self.sourceIncarnation = sourceIncarnation
      self.target = target
      self.targetIncarnation = targetIncarnation
      self.goal = goal
      self.drains = drains
      self.request = request
    }
  }

  enum LoadJudgement: Hashable { case overloaded, fine, idle }

  mutating func activate(_ policy: ScalingPolicy, at offset: Offset) -> Bool {
    guard policy.problem == nil else { return false }
    let current = wanted(.runtime)
    let moves = scaling.moves
    scaling = Scaling()
    scaling.policy = policy
    scaling.version = offset
    scaling.moves = moves
    scaling.lastAction = clock.elapsed
    if policy.kind != .manual, spec != nil, !isDeleted { scaling.target = current }
    return true
  }

  /// Notes since when there has been too much or too little to do.
  mutating func judgeLoad() {
    guard let policy = scaling.policy else { return }
    let judgement = judge(policy)
    scaling.overloadedSince = judgement == .overloaded ? scaling.overloadedSince ?? clock.elapsed : nil
    scaling.idleSince = judgement == .idle ? scaling.idleSince ?? clock.elapsed : nil
  }

  private func judge(_ policy: ScalingPolicy) -> LoadJudgement {
    let loads = carriers.map(\.workload)
    let known = loads.compactMap { $0 }
    let busy = known.reduce(0) { $0 + UInt64($1.busyShare) }
    let count = UInt64(known.count)
    let isKnown = known.count == loads.count && count > 0
    switch policy.kind {
    case .manual: return .fine
    case .dropThreshold(let rule):
      if known.contains(where: { rule.counts($0) > rule.drops }) { return .overloaded }
      return isKnown && count > 1 && busy < UInt64(rule.idleBusyShare) * (count - 1) ? .idle : .fine
    case .targetUtilisation(let rule):
      guard isKnown else { return .fine }
      if busy > UInt64(rule.busyShare + rule.tolerance) * count { return .overloaded }
      return count > 1 && busy < UInt64(rule.busyShare - rule.tolerance) * (count - 1) ? .idle : .fine
    }
  }

  /// Runtimes that take new flows.
  var carriers: [Node] { nodes.filter { $0.kind == .runtime && $0.memberState == .serving } }

  // MARK: Draining

  /// What a draining runtime still holds moves on; when nothing is left it stops, or is kept. Two intervals are given, so
  /// that switches have heard of it first.
  mutating func noteDrained(at index: Int, _ load: NodeWorkload) {
    guard let drain = nodes[index].drain, nodes[index].isServing else { return }
    guard load.activeFlows == 0 else { return planDrain(at: index) }
    guard clock.elapsed - drain.since >= 2 * (spec?.workloadInterval ?? 500) else { return }
    if !drain.isKept { nodes[index].phase = .stopping(nil) }
    endDrains(of: nodes[index].id)
  }

  mutating func expireDrains() {
    for index in nodes.indices {
      guard let drain = nodes[index].drain, nodes[index].isServing, clock.elapsed >= drain.deadline else { continue }
      nodes[index].phase = .stopping(nil)
    }
  }

  // MARK: Moving flows

  mutating func answered(by node: NodeID, _ acknowledgement: CommandAcknowledgement) {
    switch acknowledgement.outcome {
    case .completed, .rejected:
      unansweredMoves.removeAll { $0.source.node == node && $0.slot == acknowledgement.slot }
    case .progress, .received, .applied: break
    }
    guard
      let index = scaling.moves.firstIndex(where: {
        $0.source == node && $0.slot == acknowledgement.slot && $0.slot != .none
      })
    else { return }
    switch acknowledgement.outcome {
    case .completed:
      scaling.moves[index].slot = .none
      scaling.moves[index].done = 0
      // A source that moved fewer than it was asked to has no more that can go.
      if !scaling.moves[index].drains, let moved = scaling.moves[index].request.flatMap(request(at:))?.moved,
        moved < scaling.moves[index].asked
      {
        scaling.moves[index].goal = scaling.moves[index].asked
      }
    case .rejected(let reason): ended(scaling.moves.remove(at: index), .failed(reason))
    case .progress(let done, _):
      let news = done - min(done, scaling.moves[index].done)
      scaling.moves[index].done += news
      if let request = requests.firstIndex(where: { $0.offset == scaling.moves[index].request }) {
        requests[request].moved &+= news
      }
    case .received, .applied: break
    }
  }

  mutating func settleMoves() {
    guard !scaling.moves.isEmpty else { return }
    let moves = scaling.moves
    scaling.moves = moves.filter { ending(of: $0) == nil }
    for move in moves { if let outcome = ending(of: move) { ended(move, outcome) } }
  }

  /// A move ends when it is done, or when one of its two ends is no longer the life it was, or takes no more.
  private func ending(of move: Move) -> FlowRequest.Outcome? {
    guard nodeIndex(move.source, move.sourceIncarnation) != nil else { return .failed("node \(move.source) has ended") }
    guard let target = nodeIndex(move.target, move.targetIncarnation) else { return .failed("node \(move.target) has ended") }
    guard move.slot == .none else { return nil }
    if move.asked >= move.goal { return .completed }
    guard rules >= DecisionRules.flowRequests, nodes[target].memberState == .stopping else { return nil }
    return .failed("node \(move.target) takes no flows any more")
  }

  /// A drain goes on without the move: what is left is planned anew.
  mutating func ended(_ move: Move, _ outcome: FlowRequest.Outcome) {
    if let request = move.request, !move.drains { end(request, outcome) }
  }
}

extension ScalingPolicy.DropThreshold {
  /// The drops of one interval that speak of overload.
  func counts(_ load: NodeWorkload) -> UInt64 {
    if reasons.isEmpty { return load.droppedPackets }
    return load.drops.reduce(0) { sum, drops in
      guard reasons.contains(drops.reason) else { return sum }
      let (total, overflow) = sum.addingReportingOverflow(drops.packets)
      return overflow ? .max : total
    }
  }
}
