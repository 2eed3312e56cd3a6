import ControlMessages

// What operators ask about flows: "move so many from here to there", "this runtime is to have none". A request is taken
// or refused at once, with a reason; one that is taken stays open until it is done or cannot be any more.

extension ClusterState {
  public struct FlowRequest: Hashable, Sendable {
    public enum Wish: Hashable, Sendable {
      case move(MoveRequest)
      case drain(DrainRequest)
    }

    public enum Outcome: Hashable, Sendable {
      case open
      case completed
      case failed(String)
    }

    /// Of the operator's event: what it is known by.
    public let offset: Offset
    public let correlation: String
    public let wish: Wish
    public let askedAt: Timestamp
    /// Flows that runtimes say they have moved for it so far.
    public package(set) var moved: UInt64 = 0
    public package(set) var outcome = Outcome.open
    /// Zero while it is open.
    public package(set) var endedAt = Timestamp.zero

    package init(offset: Offset, correlation: String, wish: Wish, askedAt: Timestamp) {
      self.offset = offset
      self.correlation = correlation
      self.wish = wish
      self.askedAt = askedAt
    }
  }

  /// The last ones are remembered; so many can be open.
  public static let maximumRequests = 32
  /// Beyond this many moves no drain plans more.
  private static let maximumMoves = 512

  public func request(at offset: Offset) -> FlowRequest? { requests.first { $0.offset == offset } }

  mutating func take(_ wish: FlowRequest.Wish, correlation: String, at offset: Offset) {
    guard rules >= DecisionRules.flowRequests else { return misdirected() }
    if requests.count == Self.maximumRequests {
      guard let closed = requests.firstIndex(where: { $0.outcome != .open }) else { return misdirected() }
      requests.remove(at: closed)
    }
    requests.append(FlowRequest(offset: offset, correlation: correlation, wish: wish, askedAt: clock.now))
    if let objection = objection(to: wish) { return end(offset, .failed(objection)) }
    switch wish {
    case .move(let move):
      guard let source = node(move.source), let target = node(move.target) else { return }
      scaling.moves.append(
        Move(
          source: source.id, sourceIncarnation: source.incarnation, target: target.id, targetIncarnation: target.incarnation,
          goal: move.flows, request: offset))
    case .drain(let drain): take(drain, at: offset)
    }
  }

  /// A runtime that does not drain yet is told to by the decision that this request leads to.
  private mutating func take(_ request: DrainRequest, at offset: Offset) {
    guard let index = nodeIndex(request.node) else { return }
    switch request.afterwards {
    case .keep: break
    case .stop: nodes[index].drain?.isKept = false
    case .undo:
      nodes[index].drain = nil
      scaling.moves.removeAll { $0.source == request.node && $0.drains && $0.slot == .none }
      for move in scaling.moves.indices where scaling.moves[move].source == request.node && scaling.moves[move].drains {
        scaling.moves[move].goal = scaling.moves[move].asked
      }
      if let earlier = openDrain(of: request.node, before: offset) { end(earlier.offset, .failed("it was taken back")) }
      end(offset, .completed)
    }
  }

  /// Why a request cannot be carried out, for the operator.
  private func objection(to wish: FlowRequest.Wish) -> String? {
    guard spec != nil, !isDeleted else { return "the cluster is not deployed" }
    switch wish {
    case .move(let move):
      if move.source == move.target { return "source and target are the same" }
      if move.flows == 0 { return "no flows were asked for" }
      if scaling.moves.count >= Self.maximumMoves { return "\(scaling.moves.count) moves are under way" }
      if let objection = objection(toMoving: move.source) ?? objection(toMoving: move.target) { return objection }
      return node(move.target)?.drain == nil ? nil : "node \(move.target) drains"
    case .drain(let request):
      if let objection = objection(toMoving: request.node) { return objection }
      let drain = node(request.node)?.drain
      switch request.afterwards {
      case .undo where drain == nil: return "node \(request.node) does not drain"
      case .undo where drain?.isKept == false, .keep where drain?.isKept == false:
        return "node \(request.node) is going to stop, and that is not taken back"
      case .keep, .stop:
        return carriers.contains { $0.id != request.node } ? nil : "no other runtime serves"
      case .undo: return nil
      }
    }
  }

  private func objection(toMoving id: NodeID) -> String? {
    guard let node = node(id) else { return "there is no node \(id)" }
    guard node.kind == .runtime else { return "node \(id) is a \(node.kind)" }
    guard node.isServing, !node.isLeaving else { return "node \(id) does not serve" }
    return node.canMigrate ? nil : "node \(id) cannot migrate flows"
  }

  // MARK: Until it is done

  mutating func end(_ request: Offset, _ outcome: FlowRequest.Outcome) {
    guard let index = requests.firstIndex(where: { $0.offset == request && $0.outcome == .open }) else { return }
    requests[index].outcome = outcome
    requests[index].endedAt = clock.now
  }

  /// The open request, if there is one, for a runtime without flows; the last before `offset`.
  func openDrain(of node: NodeID, before offset: Offset = Offset(.max)) -> FlowRequest? {
    requests.last { request in
      guard case .drain(let drain) = request.wish else { return false }
      return request.outcome == .open && drain.node == node && request.offset < offset
    }
  }

  /// A runtime that is to drain by an operator's request and was not told yet.
  var nextRequestedDrain: NodeID? {
    for request in requests where request.outcome == .open {
      if case .drain(let drain) = request.wish, let node = node(drain.node), node.isServing, node.drain == nil { return node.id }
    }
    return nil
  }

  /// Requests for a drain of a runtime that no longer serves.
  mutating func settleDrains() {
    for request in requests where request.outcome == .open {
      if case .drain(let drain) = request.wish, node(drain.node)?.isServing != true {
        end(request.offset, .failed("node \(drain.node) no longer serves"))
      }
    }
  }

  /// Nothing is left on a draining runtime.
  mutating func endDrains(of node: NodeID) {
    while let request = openDrain(of: node) { end(request.offset, .completed) }
  }

  mutating func endRequests(_ reason: String) {
    for request in requests { end(request.offset, .failed(reason)) }
  }

  /// Spreads what a draining runtime still holds over those that take flows, in equal parts.
  mutating func planDrain(at index: Int) {
    let node = nodes[index]
    guard rules >= DecisionRules.flowRequests, node.canMigrate, let flows = node.workload?.activeFlows, flows > 0,
      !scaling.moves.contains(where: { $0.source == node.id && $0.drains })
    else { return }
    let targets = carriers.filter { $0.canMigrate && $0.id != node.id }
    guard !targets.isEmpty, scaling.moves.count + targets.count <= Self.maximumMoves else { return }
    let share = (flows - 1) / UInt64(targets.count) + 1
    var rest = flows
    for target in targets where rest > 0 {
      scaling.moves.append(
        Move(
          source: node.id, sourceIncarnation: node.incarnation, target: target.id, targetIncarnation: target.incarnation,
          goal: min(share, rest), drains: true, request: openDrain(of: node.id)?.offset))
      rest -= min(share, rest)
    }
  }
}
