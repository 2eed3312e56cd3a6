import ControlMessages

// What follows from the end of a runtime's life, from rules 4 on: whose its flows are, and when its share of the address
// pools may be another's.
//
//   serving ──▶ untold ──recover──▶ asked ──completed──▶ settled ──no flow borrows──▶ share free
//
// Flows take the addresses that they were given along with them, when they move and when they are recovered. So a share is
// free only when no runtime counts a flow with an address of it. A flow could hide from counting by moving: the counts of
// different runtimes are only worth something together if each was taken while no flow moved.

extension ClusterState {
  /// A runtime's life that is over.
  public struct LostLife: Hashable, Sendable {
    public enum Progress: Hashable, Sendable {
      /// Nobody has been told yet.
      case untold
      case asked(Slot)
      /// None when there was nothing to recover.
      case settled(Slot)
    }

    public let life: NodeLife
    /// Its share of the address pools; nil when that is free again.
    public package(set) var poolShare: UInt32?
    /// Those who may have its replicas, the best first; from the command on, who was asked.
    public package(set) var heirs: [NodeLife]
    /// Another holder of its flows, who keeps the replicas until the flows have others at the one who was asked, and takes
    /// over what is left should that one end before. nil before rules 8, and when there is nobody who could.
    public package(set) var standby: NodeLife?
    public package(set) var progress: Progress
    /// Flows.
    public package(set) var recovered: UInt64 = 0
    public package(set) var refused: UInt64 = 0
    /// Why flows were lost, if they were.
    public package(set) var problem = ""
    public let endedAt: Timestamp
    /// When it was settled; zero before.
    public package(set) var settledAt = Timestamp.zero
    /// Lives that have counted no flow with an address of the share since none has moved.
    package var clear: [NodeLife] = []

    package init(life: NodeLife, poolShare: UInt32?, heirs: [NodeLife], progress: Progress, endedAt: Timestamp) {
      self.life = life
      self.poolShare = poolShare
      self.heirs = heirs
      self.progress = progress
      self.endedAt = endedAt
    }

    public var by: NodeLife? { heirs.first }
    public var isSettled: Bool { if case .settled = progress { true } else { false } }
  }

  /// A move that was given up without an answer.
  public struct UnansweredMove: Hashable, Sendable {
    public let source: NodeLife
    public let slot: Slot

    package init(source: NodeLife, slot: Slot) {
      self.source = source
      self.slot = slot
    }
  }

  /// How long after a recovery its flows may be without replicas of their own, in milliseconds.
  private static let standbyPatience: UInt64 = 10_000
  /// So many are remembered after their shares are free.
  static let rememberedLostLives = 64

  /// Shares of the address pools that no life holds, and that flows of other runtimes may still use.
  public var retiredShares: [UInt32] { lostLives.compactMap(\.poolShare) }

  // MARK: How it begins

  /// The life of a node that served is over.
  mutating func noteLost(at index: Int) {
    let node = nodes[index]
    guard rules >= DecisionRules.replication, node.kind == .runtime, node.hasServed else { return }
    let wasReplicated = isReplicated && node.canReplicate
    guard wasReplicated || node.poolShare != nil else { return }
    var heirs: [NodeLife] = []
    if let protection = node.protection {
      // An owner that has not said that it began with the new holder is likelier still at the old one.
      switch protection.progress {
      case .asked, .refused: heirs = [protection.previous, protection.holder].compactMap { $0 }
      case .begun, .complete: heirs = [protection.holder].compactMap { $0 }
      }
      if rules >= DecisionRules.secondReplica { heirs = rankHeirs(heirs, of: node.life, protection) }
    }
    // Whoever was to recover others' flows does not any more. From rules 8 on its own heir may go on with them, which is
    // decided when that is asked.
    if rules < DecisionRules.secondReplica || !wasReplicated { giveUpRecoveries(of: node.life) }
    lostLives.append(
      LostLife(
        life: node.life, poolShare: node.poolShare, heirs: heirs, progress: wasReplicated ? .untold : .settled(.none),
        endedAt: clock.now))
    forgetLostLives()
  }

  /// With two holders: whoever stands by for flows that the life had taken over itself and has all of its own, too, then
  /// the one that never was incomplete. Of two who have every flow, the one whose own flows are all on the other: that one
  /// can stand by.
  private func rankHeirs(_ heirs: [NodeLife], of life: NodeLife, _ protection: Protection) -> [NodeLife] {
    let takenOver = lostLives.reversed().filter { $0.by == life && isStandingBy($0) }
    let standbys = (takenOver.filter { !$0.isSettled } + takenOver.filter(\.isSettled)).compactMap(\.standby)
    func has(_ heir: NodeLife, allFlowsOf other: NodeLife) -> Bool {
      nodeIndex(other.node, other.incarnation).flatMap { nodes[$0].protection?.isWhole(on: heir) } ?? false
    }
    var heirs = heirs
    if protection.progress == .complete, let holder = protection.holder, let second = protection.second,
      !has(second, allFlowsOf: holder), has(holder, allFlowsOf: second)
    {
      heirs = [second, holder]
    }
    var ranked: [NodeLife] = []
    for heir in standbys.filter(protection.isWhole) + [protection.kept].compactMap({ $0 }) + heirs
      + [protection.second].compactMap({ $0 }) where !ranked.contains(heir)
    {
      ranked.append(heir)
    }
    return ranked
  }

  /// Recoveries that were asked of a life that is over are settled: well if `heir`, who recovers its flows, stood by for them.
  private mutating func giveUpRecoveries(of life: NodeLife, unless heir: NodeLife? = nil) {
    for other in lostLives.indices where lostLives[other].by == life {
      guard case .asked(let slot) = lostLives[other].progress else { continue }
      let goesOn = heir != nil && lostLives[other].standby == heir
      settle(other, slot, problem: goesOn ? "" : "\(life) ended before it had recovered all flows")
    }
  }

  /// Whether somebody lives who keeps replicas of a lost life for the case that the one who took its flows over ends.
  private func isStandingBy(_ lost: LostLife) -> Bool {
    guard let standby = lost.standby, isHeir(standby) else { return false }
    switch lost.progress {
    case .untold: return false
    case .asked: return true
    case .settled: return clock.now.since(lost.settledAt) < Self.standbyPatience
    }
  }

  /// Whether `life` stands by for flows that `heir` takes over, or has taken over lately.
  func standsBy(_ life: NodeLife, for heir: NodeLife) -> Bool {
    lostLives.contains { $0.standby == life && $0.by == heir && isStandingBy($0) }
  }

  private mutating func forgetLostLives() {
    while lostLives.count > Self.rememberedLostLives,
      let oldest = lostLives.firstIndex(where: { $0.isSettled && $0.poolShare == nil })
    {
      lostLives.remove(at: oldest)
    }
  }

  // MARK: Recovering

  func nextRecovery() -> Decision? {
    guard rules >= DecisionRules.replication else { return nil }
    for lost in lostLives where lost.progress == .untold {
      let heir = lost.heirs.first(where: isHeir)
      return .recover(lost.life, by: heir, standby: heir.flatMap { standby(of: lost, besides: $0) })
    }
    return nil
  }

  /// From rules 8 on: another one who has replicas of a lost life. He is of use only if he has those of its heir as well, or
  /// is going to: it is he who recovers them if the heir ends, too.
  private func standby(of lost: LostLife, besides heir: NodeLife) -> NodeLife? {
    guard replicasWanted > 1, let index = nodeIndex(heir.node, heir.incarnation) else { return nil }
    return lost.heirs.first { other in
      other != heir && isHeir(other)
        && (nodes[index].protection?.holders.contains(other) == true || canBecomeHolder(other, of: nodes[index]))
    }
  }

  /// Whether a life can still take over what it holds replicas of.
  private func isHeir(_ life: NodeLife) -> Bool {
    guard let index = nodeIndex(life.node, life.incarnation) else { return false }
    switch nodes[index].phase {
    case .serving: return true
    case .stopping: return nodes[index].hasServed
    case .waiting, .launching: return false
    }
  }

  mutating func recover(_ life: NodeLife, by heir: NodeLife?, standby: NodeLife?, _ slot: Slot) -> Order? {
    guard let index = lostLives.firstIndex(where: { $0.life == life && $0.progress == .untold }) else { return nil }
    let told = lostLives[index].heirs
    lostLives[index].heirs = heir.map { [$0] } ?? []
    lostLives[index].standby = standby
    lostLives[index].progress = .asked(slot)
    if rules >= DecisionRules.secondReplica { giveUpRecoveries(of: life, unless: heir) }
    var reason = "\(life) has ended"
    if let problem = node(life.node)?.lastProblem, node(life.node)?.incarnation == life.incarnation, !problem.isEmpty {
      reason = "\(life) \(problem)"
    }
    if let heir {
      reason += "; \(heir) holds its replicas"
      if let standby { reason += "; \(standby) stands by" }
    } else {
      let holders = rules >= DecisionRules.secondReplica ? told : Array(told.prefix(1))
      let why =
        switch holders.count {
        case 0: "its flows had no replicas"
        case 1: "\(holders[0]), which held its replicas, has ended too"
        default: "\(holders.map(\.description).joined(separator: ", ")), which held its replicas, have ended too"
        }
      settle(index, slot, problem: why)
      settleShares()
      reason += "; \(why)"
    }
    return Order(
      target: .cluster, patience: Patience.recovery, reason: reason, body: .recover(Recovery(lost: life, by: heir, standby: standby)))
  }

  private mutating func settle(_ index: Int, _ slot: Slot, problem: String = "") {
    lostLives[index].progress = .settled(slot)
    lostLives[index].settledAt = clock.now
    lostLives[index].problem = problem
  }

  // MARK: Answers

  mutating func take(_ end: RecoveryFinished) {
    guard let index = lostLives.firstIndex(where: { $0.progress == .asked(end.slot) && $0.by?.node == end.node }) else { return }
    lostLives[index].recovered = end.recovered
    lostLives[index].refused = end.refused
  }

  mutating func recoveryAnswered(by node: NodeID, _ acknowledgement: CommandAcknowledgement) {
    guard
      let index = lostLives.firstIndex(where: { $0.progress == .asked(acknowledgement.slot) && $0.by?.node == node })
    else { return }
    switch acknowledgement.outcome {
    case .completed: settle(index, acknowledgement.slot)
    case .rejected(let reason): settle(index, acknowledgement.slot, problem: reason)
    case .progress(let done, _): lostLives[index].recovered = done
    case .received, .applied: break
    }
  }

  // MARK: Shares

  /// What a runtime counted of the flows with others' addresses.
  mutating func noteBorrowed(by life: NodeLife, _ load: NodeWorkload) {
    guard rules >= DecisionRules.replication else { return }
    for index in lostLives.indices {
      guard let share = lostLives[index].poolShare else { continue }
      lostLives[index].clear.removeAll { $0 == life }
      guard let stillSince, load.lastSlot > stillSince else { continue }
      if !load.borrowed.contains(where: { $0.share == share && $0.flows > 0 }) { lostLives[index].clear.append(life) }
    }
  }

  /// Frees the shares that no flow uses any more.
  mutating func settleShares() {
    guard rules >= DecisionRules.replication else { return }
    if !unansweredMoves.isEmpty {
      unansweredMoves = unansweredMoves.filter { nodeIndex($0.source.node, $0.source.incarnation) != nil }
    }
    let isWaiting = lostLives.contains { $0.poolShare != nil }
    let isStill = unansweredMoves.isEmpty && !scaling.moves.contains { $0.slot != .none } && lostLives.allSatisfy(\.isSettled)
    guard isWaiting, isStill else { return flowsMove() }
    if stillSince == nil { stillSince = lastSlot }
    let counting = nodes.filter { $0.hasServed && $0.canReplicate }.map(\.life)
    for index in lostLives.indices where lostLives[index].poolShare != nil {
      guard counting.allSatisfy({ lostLives[index].clear.contains($0) }) else { continue }
      lostLives[index].poolShare = nil
      lostLives[index].clear = []
    }
    forgetLostLives()
  }

  /// What was counted before is worth nothing any more.
  mutating func flowsMove() {
    guard stillSince != nil else { return }
    stillSince = nil
    for index in lostLives.indices { lostLives[index].clear = [] }
  }

  /// Nothing has been said since flows stand still, so that no count could be told from an older one.
  var lacksCount: Bool { stillSince == lastSlot && lostLives.contains { $0.poolShare != nil } }
}

extension ClusterState.Node {
  /// Whether its current life is or was one that takes flows.
  var hasServed: Bool {
    switch phase {
    case .serving: kind == .runtime
    case .stopping: kind == .runtime && ports != nil
    case .waiting, .launching: false
    }
  }
}
