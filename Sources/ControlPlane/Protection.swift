import ControlMessages

// Who keeps the replicas of whose flows, from rules 4 on.
//
//   owner ── all of its flows ──▶ holder, which releases their packets
//
// A runtime has one holder at a time, so that switches can send all flows of a dead one elsewhere with one write. It keeps
// it as long as the holder serves, since flows are at risk while they are on their way to another; then it is given another
// at once, and goes on without one only when nobody is left.

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
    public let slot: Slot
    /// `clock.elapsed`.
    public let askedAt: UInt64
    /// The holder before, until the owner says that it has begun with this one.
    public package(set) var previous: NodeLife?
    public package(set) var progress: Progress

    package init(holder: NodeLife?, slot: Slot, askedAt: UInt64, previous: NodeLife? = nil, progress: Progress = .asked) {
      self.holder = holder
      self.slot = slot
      self.askedAt = askedAt
      self.previous = previous
      self.progress = progress
    }

    /// Whether all flows of the runtime survive its end.
    public var isComplete: Bool { holder != nil && progress == .complete }
  }

  /// Whether flows of this cluster are to have replicas.
  public var isReplicated: Bool { rules >= DecisionRules.replication && (spec?.replicas ?? 0) > 0 && !isDeleted }

  /// Serving runtimes whose flows would not all survive their end, and why. While there are any, the cluster is not what
  /// its operator asked for.
  public var unprotected: [(node: NodeID, reason: String)] {
    guard isReplicated else { return [] }
    return nodes.compactMap { node in
      guard node.kind == .runtime, node.isServing else { return nil }
      guard node.canReplicate else { return (node.id, "its program cannot replicate flows") }
      guard let protection = node.protection else { return (node.id, "it has no holder yet") }
      guard let holder = protection.holder else { return (node.id, "no other runtime could hold its replicas") }
      switch protection.progress {
      case .asked, .begun: return (node.id, "its flows are on their way to \(holder)")
      case .refused(let reason, _): return (node.id, "it does not replicate to \(holder): \(reason)")
      case .complete: return nil
      }
    }
  }

  /// Milliseconds before a runtime that refused is asked again.
  private static let refusal: UInt64 = 1_000
  /// How long others' protection that is on its way keeps a runtime from being stopped.
  static let protectionPatience: UInt64 = 10_000

  // MARK: Deciding

  func nextProtection() -> Decision? {
    guard isReplicated else { return nil }
    for owner in nodes where isOwner(owner) {
      let current = owner.protection
      switch current?.progress {
      case .refused(_, let until) where until > clock.elapsed: continue
      case .refused: break
      case .asked, .begun, .complete, nil: if let holder = current?.holder, canHold(holder) { continue }
      }
      let candidates = nodes.filter { $0.id != owner.id && $0.canHold && !$0.isSilent }
      if let holder = bestHolder(of: owner, among: candidates.filter { isTold($0) }) {
        return .protect(owner.id, holder)
      }
      // One that the next table names is worth the wait.
      if candidates.isEmpty, current?.holder != nil { return .protect(owner.id, nil) }
    }
    return nil
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
  private func held(by holder: Node) -> Int { nodes.count { $0.isServing && $0.protection?.holder == holder.life } }

  /// The one that holds least; of equals one on another host; of equals the next after the owner, around the ring.
  private func bestHolder(of owner: Node, among candidates: [Node]) -> NodeLife? {
    var best: (life: NodeLife, rank: (Int, Int, Int))?
    for node in candidates {
      let others = held(by: node) - (owner.protection?.holder == node.life ? 1 : 0)
      let isRefuser = if case .refused = owner.protection?.progress { owner.protection?.holder == node.life } else { false }
      let rank = (isRefuser ? Int.max : others, node.host == owner.host ? 1 : 0, owner.id < node.id ? 0 : 1)
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
      if protection.holder == holder.life { return true }
      switch protection.progress {
      case .asked, .begun: return clock.elapsed < protection.askedAt + Self.protectionPatience
      case .complete, .refused: return false
      }
    }
  }

  // MARK: Enacting

  mutating func protect(_ id: NodeID, by holder: NodeLife?, _ slot: Slot) -> Order? {
    guard let index = nodeIndex(id) else { return nil }
    let owner = nodes[index]
    let last = owner.protection
    let previous = last.flatMap { $0.progress == .asked ? $0.previous ?? $0.holder : $0.holder }
    nodes[index].protection = Protection(holder: holder, slot: slot, askedAt: clock.elapsed, previous: previous)
    return Order(
      target: .node(id, owner.incarnation), patience: Patience.stop, reason: reason(to: holder, after: last, of: id),
      body: .setReplicas(ReplicaAssignment(owner: owner.life, holder: holder)))
  }

  private func reason(to holder: NodeLife?, after last: Protection?, of owner: NodeID) -> String {
    let change =
      switch (last?.progress, last?.holder) {
      case (nil, _): "node \(owner) has no holder yet"
      case (_, nil): "somebody can hold replicas again"
      case (.refused(let reason, _), let old?): "\(old) did not become the holder: \(reason)"
      case (_, let old?):
        if let node = node(old.node), node.incarnation == old.incarnation, node.isAlive {
          "\(old) is going to stop"
        } else {
          "\(old) has ended"
        }
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
