import ControlMessages

// Who keeps the replicas of whose flows, from rules 4 on.
//
//   owner ── all of its flows ──▶ holder, which releases their packets
//     └───── all of its flows ──▶ second holder, from rules 8 on, where two replicas are asked for
//
// A runtime has one holder at a time, or one pair, so that switches can send all flows of a dead one elsewhere with one
// write. It keeps each as long as that serves, since flows are at risk while they are on their way to another; then it is
// given another at once, and goes on without one only when nobody is left.
//
// The second is the holder's own holder where that can be: when the owner ends, the holder has its flows, and the second,
// which stands by, is then the one that has all of the holder's flows, too.
//
//   owner ──▶ holder ──▶ second        owner and holder end: both lives' flows are whole on the second
//     └────────────────────▲

extension ClusterState {
  /// Whom a runtime's life replicates its flows to.
  public struct Protection: Hashable, Sendable {
    public enum Progress: Hashable, Sendable {
      case asked
      /// New packets leave from the holder.
      case begun
      /// Every flow is on the holder.
      case complete
      /// It is not asked again before.
      case refused(String, until: UInt64)
    }

    /// nil: there was nobody left.
    public let holder: NodeLife?
    /// nil: one replica is all that is asked for, or nobody else was left.
    public let second: NodeLife?
    /// The one of the two that had every flow before this command: it has been complete all the time.
    public let kept: NodeLife?
    public let slot: Slot
    /// `clock.elapsed`.
    public let askedAt: UInt64
    /// The holder before, until the owner says that it has begun with this one.
    public package(set) var previous: NodeLife?
    public package(set) var progress: Progress

    package init(
      holder: NodeLife?, second: NodeLife? = nil, kept: NodeLife? = nil, slot: Slot, askedAt: UInt64, previous: NodeLife? = nil,
      progress: Progress = .asked
    ) {
      self.holder = holder
      self.second = second
      self.kept = kept
      self.slot = slot
      self.askedAt = askedAt
      self.previous = previous
      self.progress = progress
    }

    /// Whether all flows of the runtime survive its end.
    public var isComplete: Bool { holder != nil && progress == .complete }
    /// One or two, the preferred first; none when nobody was left.
    public var holders: [NodeLife] { [holder, second].compactMap { $0 } }
    /// Whether every flow of the runtime is on `life`.
    public func isWhole(on life: NodeLife) -> Bool {
      (holder == life || second == life) && (progress == .complete || kept == life)
    }
    /// Holders that do not have every flow yet.
    public var incomplete: [NodeLife] { holders.filter { !isWhole(on: $0) } }
    /// Whether one of the holders did not become one, as far as is known this one.
    func isRefuser(_ life: NodeLife) -> Bool {
      if case .refused = progress { (holder == life || second == life) && kept != life } else { false }
    }
  }

  /// Whether flows of this cluster are to have replicas.
  public var isReplicated: Bool { rules >= DecisionRules.replication && (spec?.replicas ?? 0) > 0 && !isDeleted }

  /// Holders that a runtime's flows are to have, as far as the rules in force go.
  public var replicasWanted: UInt32 {
    isReplicated ? min(spec?.replicas ?? 0, rules >= DecisionRules.secondReplica ? ClusterSpec.maximumReplicas : 1) : 0
  }

  /// Serving runtimes whose flows have fewer replicas than were asked for, and why: they would not all survive its end, or
  /// that of its holder with it. While there are any, the cluster is not what its operator asked for.
  public var unprotected: [(node: NodeID, reason: String)] {
    guard isReplicated else { return [] }
    return nodes.compactMap { node in
      guard node.kind == .runtime, node.isServing else { return nil }
      guard node.canReplicate else { return (node.id, "its program cannot replicate flows") }
      guard let protection = node.protection else { return (node.id, "it has no holder yet") }
      guard let holder = protection.holder else { return (node.id, "no other runtime could hold its replicas") }
      if replicasWanted > 1 { return lack(of: protection).map { (node.id, $0) } }
      switch protection.progress {
      case .asked, .begun: return (node.id, "its flows are on their way to \(holder)")
      case .refused(let reason, _): return (node.id, "it does not replicate to \(holder): \(reason)")
      case .complete: return nil
      }
    }
  }

  /// What is missing of a pair of holders; nil when nothing is.
  private func lack(of protection: Protection) -> String? {
    let whole = protection.holders.filter { protection.isWhole(on: $0) }
    let replicas = whole.isEmpty ? "no replica" : "only \(whole.count) replica"
    let others = protection.incomplete.map(\.description).joined(separator: " and ")
    switch protection.progress {
    case .refused(let reason, _) where !others.isEmpty: return "\(replicas) of its flows; it does not replicate to \(others): \(reason)"
    case .asked where !others.isEmpty, .begun where !others.isEmpty: return "\(replicas) of its flows; they are on their way to \(others)"
    case .asked, .begun, .complete, .refused:
      return protection.second == nil ? "\(replicas) of its flows; no other runtime could hold the second" : nil
    }
  }

  /// Milliseconds before a runtime that refused is asked again.
  private static let refusal: UInt64 = 1_000
  /// How long others' protection that is on its way keeps a runtime from being stopped.
  static let protectionPatience: UInt64 = 10_000

  // MARK: Deciding

  func nextProtection() -> Decision? {
    guard isReplicated else { return nil }
    if replicasWanted > 1 { return nextPair() }
    for owner in nodes where isOwner(owner) {
      let current = owner.protection
      switch current?.progress {
      case .refused(_, let until) where until > clock.elapsed: continue
      case .refused: break
      case .asked, .begun, .complete, nil: if let holder = current?.holder, canHold(holder) { continue }
      }
      let candidates = nodes.filter { $0.id != owner.id && $0.canHold && !$0.isSilent }
      if let holder = bestHolder(of: owner, among: candidates.filter { isTold($0) }) {
        return .protect(owner.id, holder, second: nil)
      }
      // One that the next table names is worth the wait.
      if candidates.isEmpty, current?.holder != nil { return .protect(owner.id, nil, second: nil) }
    }
    return nil
  }

  /// The next runtime that lacks one of its two holders and could have another.
  private func nextPair() -> Decision? {
    for owner in nodes where isOwner(owner) {
      let current = owner.protection
      var isRefused = false
      if case .refused(_, let until) = current?.progress {
        // While the one that has every flow is there, nothing is lost by waiting; without it no packet leaves.
        if until > clock.elapsed, current?.kept.map(canHold) ?? true { continue }
        isRefused = true
      } else if let holder = current?.holder, let second = current?.second, canHold(holder), canHold(second) {
        continue
      }
      let staying = stayingHolders(of: owner)
      let candidates = nodes.filter { $0.id != owner.id && $0.canHold && !$0.isSilent }
      let told = candidates.filter { isTold($0) }
      guard let holder = staying.first ?? firstHolder(of: owner, among: told) else {
        // One that the next table names is worth the wait.
        if candidates.isEmpty, current?.holder != nil { return .protect(owner.id, nil, second: nil) }
        continue
      }
      let second = staying.dropFirst().first ?? secondHolder(of: owner, besides: holder, among: told)
      if !isRefused, let current, current.holder == holder, current.second == second { continue }
      return .protect(owner.id, holder, second: second)
    }
    return nil
  }

  /// Who of a runtime's holders goes on to be one, those that have every flow first.
  private func stayingHolders(of owner: Node) -> [NodeLife] {
    guard let protection = owner.protection else { return [] }
    let able = protection.holders.filter { canHold($0) && !protection.isRefuser($0) }
    return able.filter { protection.isWhole(on: $0) } + able.filter { !protection.isWhole(on: $0) }
  }

  /// Those who have not just refused, if there are any.
  private func willing(_ candidates: [Node], for owner: Node) -> [Node] {
    let willing = candidates.filter { owner.protection?.isRefuser($0.life) != true }
    return willing.isEmpty ? candidates : willing
  }

  /// Who stands by for flows that the owner has taken over; whom others whose flows the owner holds were given as a second
  /// in expectation of this; else the best.
  private func firstHolder(of owner: Node, among candidates: [Node]) -> NodeLife? {
    let candidates = willing(candidates, for: owner)
    if let standby = candidates.first(where: { standsBy($0.life, for: owner.life) }) { return standby.life }
    let expected = candidates.first { candidate in
      nodes.contains { $0.isServing && $0.protection?.holder == owner.life && $0.protection?.second == candidate.life }
    }
    return expected?.life ?? bestHolder(of: owner, among: candidates)
  }

  /// Who stands by for flows that the owner has taken over; the holder's own holder, also the one that it is going to be
  /// given; else the best.
  private func secondHolder(of owner: Node, besides holder: NodeLife, among told: [Node]) -> NodeLife? {
    let others = told.filter { $0.id != holder.node }
    let candidates = willing(others, for: owner)
    if let standby = candidates.first(where: { standsBy($0.life, for: owner.life) }) { return standby.life }
    let next = node(holder.node).flatMap { first in
      stayingHolders(of: first).first { $0.node != owner.id } ?? firstHolder(of: first, among: others)
    }
    if let next, candidates.contains(where: { $0.life == next }) { return next }
    return bestHolder(of: owner, among: candidates)
  }

  /// When time alone makes a decision about replicas possible.
  func considerProtections(_ consider: (UInt64) -> Void) {
    guard isReplicated else { return }
    for index in nodes.indices {
      guard let protection = nodes[index].protection else { continue }
      switch protection.progress {
      case .refused(_, let until): consider(until)
      case .asked, .begun: consider(protection.askedAt + Self.protectionPatience)
      case .complete: break
      }
    }
  }

  /// Whether a runtime that has flows needs another holder, and a given life could be it.
  func canBecomeHolder(_ life: NodeLife, of owner: Node) -> Bool {
    replicasWanted > 1 && life.node != owner.id && isOwner(owner) && canHold(life) && stayingHolders(of: owner).count < 2
  }

  private func isOwner(_ node: Node) -> Bool {
    node.kind == .runtime && node.isServing && node.canReplicate && !node.isLeaving && isTold(node)
  }

  /// Whether the last table names this life as one that lives: nobody has a channel to any other.
  private func isTold(_ node: Node) -> Bool {
    table.members.contains {
      $0.node == node.id && $0.incarnation == node.incarnation && ($0.state == .serving || $0.state == .stopping)
    }
  }

  private func canHold(_ life: NodeLife) -> Bool {
    nodeIndex(life.node, life.incarnation).map { nodes[$0].canHold } ?? false
  }

  /// Owners whose replicas a node keeps.
  private func held(by holder: Node) -> Int {
    nodes.count { $0.isServing && ($0.protection?.holder == holder.life || $0.protection?.second == holder.life) }
  }

  /// The one that holds least; of equals one on another host; of equals the next after the owner, around the ring.
  private func bestHolder(of owner: Node, among candidates: [Node]) -> NodeLife? {
    var best: (life: NodeLife, rank: (Int, Int, Int))?
    for node in candidates {
      let others = held(by: node) - (owner.protection?.holders.contains(node.life) == true ? 1 : 0)
      let rank = (owner.protection?.isRefuser(node.life) == true ? Int.max : others, node.host == owner.host ? 1 : 0, owner.id < node.id ? 0 : 1)
      // Nodes ascend by number, so the first of equals is the next around the ring.
      if best.map({ rank < $0.rank }) ?? true { best = (node.life, rank) }
    }
    return best?.life
  }

  /// Whether stopping a runtime now could lose flows of others: some of them are still on their way to another holder.
  func isAwaited(_ holder: Node) -> Bool {
    guard isReplicated, holder.kind == .runtime else { return false }
    return nodes.contains { owner in
      guard owner.id != holder.id, isOwner(owner), let protection = owner.protection, protection.holder != nil else { return false }
      if protection.holders.contains(holder.life) { return true }
      switch protection.progress {
      case .asked, .begun: return clock.elapsed < protection.askedAt + Self.protectionPatience
      case .complete, .refused: return false
      }
    }
  }

  // MARK: Enacting

  mutating func protect(_ id: NodeID, by holder: NodeLife?, _ second: NodeLife?, _ slot: Slot) -> Order? {
    guard let index = nodeIndex(id) else { return nil }
    let owner = nodes[index]
    let last = owner.protection
    let previous = last.flatMap { $0.progress == .asked ? $0.previous ?? $0.holder : $0.holder }
    let isPair = replicasWanted > 1
    let kept = isPair ? [holder, second].compactMap { $0 }.first { last?.isWhole(on: $0) == true } : nil
    let next = Protection(
      holder: holder, second: second, kept: kept, slot: slot, askedAt: clock.elapsed, previous: previous)
    nodes[index].protection = next
    return Order(
      target: .node(id, owner.incarnation), patience: Patience.stop,
      reason: isPair ? reason(for: next, after: last, of: id) : reason(to: holder, after: last, of: id),
      body: .setReplicas(ReplicaAssignment(owner: owner.life, holder: holder, second: second)))
  }

  /// Why a pair of holders changes, or is incomplete.
  private func reason(for next: Protection, after last: Protection?, of owner: NodeID) -> String {
    var causes: [String] = []
    if let last {
      let refusers = last.holders.filter(last.isRefuser)
      if case .refused(let reason, _) = last.progress {
        causes.append("\(refusers.map(\.description).joined(separator: " or ")) did not become a holder: \(reason)")
      }
      for former in last.holders where !next.holders.contains(former) && !refusers.contains(former) { causes.append(end(of: former)) }
      if causes.isEmpty { causes.append("somebody can hold \(last.holders.isEmpty ? "replicas again" : "the second replica")") }
    } else {
      causes.append("node \(owner) has no holder yet")
    }
    switch next.holders.count {
    case 0: causes.append("no other runtime is left: the flows of node \(owner) go unprotected")
    case 1: causes.append("no other runtime is left for the second replica")
    default: break
    }
    return causes.joined(separator: "; ")
  }

  private func end(of holder: NodeLife) -> String {
    guard let node = node(holder.node), node.incarnation == holder.incarnation, node.isAlive else { return "\(holder) has ended" }
    return "\(holder) is going to stop"
  }

  private func reason(to holder: NodeLife?, after last: Protection?, of owner: NodeID) -> String {
    let change =
      switch (last?.progress, last?.holder) {
      case (nil, _): "node \(owner) has no holder yet"
      case (_, nil): "somebody can hold replicas again"
      case (.refused(let reason, _), let old?): "\(old) did not become the holder: \(reason)"
      case (_, let old?): end(of: old)
      }
    return holder == nil ? "\(change); no other runtime is left: the flows of node \(owner) go unprotected" : change
  }

  // MARK: Answers

  mutating func protectionAnswered(by id: NodeID, _ acknowledgement: CommandAcknowledgement) {
    guard let index = nodeIndex(id), var protection = nodes[index].protection, protection.slot == acknowledgement.slot else {
      return
    }
    switch acknowledgement.outcome {
    case .received, .applied:
      if protection.progress == .asked { protection.progress = .begun }
      protection.previous = nil
    case .completed:
      protection.progress = .complete
      protection.previous = nil
    case .rejected(let reason): protection.progress = .refused(reason, until: clock.elapsed + Self.refusal)
    case .progress: return
    }
    nodes[index].protection = protection
  }
}

extension ClusterState.Node {
  /// Of the current or last life.
  public var life: NodeLife { NodeLife(id, incarnation) }

  /// Whether it can be given replicas to hold.
  var canHold: Bool { kind == .runtime && canReplicate && memberState == .serving }
}
