import ControlMessages
import ControlNodes
import ControlPlane

/// A cluster as `nfvctl get clusters` shows it.
struct ClusterListing: Listed, Equatable {
  /// How far what runs is from what is wanted.
  enum Status: String {
    /// It has a partition, and nobody applied a spec.
    case registered
    /// Nodes are missing, or too many, or of an older spec.
    case progressing
    /// Every wanted node serves.
    case complete
    case deleting
    case deleted
    /// The log lost its beginning, or has a record that this version must not pass over: the state is not known.
    case unknown
  }

  let name: ClusterID
  let partition: UInt32
  let status: Status
  /// Why it is not complete; when it is, what it lacks all the same: replicas of its flows.
  let reason: String
  let wanted: [NodeKind: UInt32]
  let serving: [NodeKind: UInt32]
  let chain: [String]
  let activeFlows: UInt64
  let forwardedPacketsPerSecond: UInt64
  let forwardedBitsPerSecond: UInt64
  let droppedPacketsPerSecond: UInt64
  let lastSlot: Slot
  let tableVersion: UInt64
  let logTime: Timestamp

  init(_ cluster: ClusterFollower.Cluster) {
    self.init(cluster.state, partition: cluster.partition, lacksBeginning: cluster.lacksBeginning)
  }

  init(_ state: ClusterState, partition: UInt32, lacksBeginning: Bool = false) {
    name = state.cluster
    self.partition = partition
    wanted = [.runtime: state.wanted(.runtime), .virtualSwitch: state.wanted(.virtualSwitch)]
    var serving: [NodeKind: UInt32] = [:]
    for node in state.nodes where node.memberState == .serving && !node.isSilent { serving[node.kind, default: 0] += 1 }
    self.serving = serving
    chain = state.spec?.chain.functions.map(\.kind) ?? []
    let loads = state.nodes.filter { $0.kind == .runtime && $0.memberState == .serving }.compactMap(\.workload)
    activeFlows = loads.reduce(0) { $0 &+ $1.activeFlows }
    forwardedPacketsPerSecond = loads.reduce(0) { $0 &+ Quantity.perSecond($1.forwardedPackets, interval: $1.interval) }
    forwardedBitsPerSecond = loads.reduce(0) { $0 &+ Quantity.perSecond($1.forwardedBytes, interval: $1.interval) &* 8 }
    droppedPacketsPerSecond = loads.reduce(0) { $0 &+ Quantity.perSecond($1.droppedPackets, interval: $1.interval) }
    lastSlot = state.lastSlot
    tableVersion = state.table.version
    logTime = state.clock.now
    (status, reason) = Self.status(state, wanted: wanted, serving: serving, lacksBeginning: lacksBeginning)
  }

  private static func status(
    _ state: ClusterState, wanted: [NodeKind: UInt32], serving: [NodeKind: UInt32], lacksBeginning: Bool
  ) -> (Status, String) {
    if lacksBeginning { return (.unknown, "the log no longer begins at its beginning") }
    if let body = state.needsNewerVersion { return (.unknown, "the log has a record of a newer version (\(body.name)); \(body.advice)") }
    if state.pendingSpec != nil {
      let changes = state.pendingChanges.joined(separator: "; ")
      return state.isDeleted
        ? (.progressing, changes)
        : (.progressing, "running nodes keep the old spec (\(changes)); delete the cluster and apply it again")
    }
    if state.isDeleted {
      let alive = state.nodes.count(where: \.isAlive) + state.abandoned.count
      return alive == 0 ? (.deleted, "") : (.deleting, "\(alive) nodes are still to end")
    }
    guard state.spec != nil else { return (.registered, "nothing was applied") }
    let missing = NodeKind.allCases.compactMap { kind -> String? in
      let (wanted, serving) = (wanted[kind] ?? 0, serving[kind] ?? 0)
      return serving < wanted ? "\(serving) of \(wanted) \(kind.plural) serve" : nil
    }
    guard missing.isEmpty else { return (.progressing, (missing + obstacles(state)).joined(separator: "; ")) }
    let leaving = state.nodes.count { $0.isAlive && $0.memberState != .serving }
    let unprotected = state.unprotected.map { "runtime \($0.node) is unprotected: \($0.reason)" }
    return leaving == 0 ? (.complete, unprotected.joined(separator: "; ")) : (.progressing, "\(leaving) nodes are starting or stopping")
  }

  /// What stands in the way, as far as the log tells.
  private static func obstacles(_ state: ClusterState) -> [String] {
    if state.hosts.isEmpty { return ["no agent has offered a host"] }
    let refusals = state.hosts.filter { !$0.refusal.isEmpty }.map { "\($0.id) refused: \($0.refusal)" }
    let problems = state.nodes.filter { !$0.lastProblem.isEmpty && $0.memberState != .serving }.map {
      "\($0.kind) \($0.id): \($0.lastProblem)"
    }
    return refusals + problems
  }

  static let columns: [TextTable.Column] = [
    .left("CLUSTER"), .right("PARTITION"), .left("STATUS"), .right("RUNTIMES"), .right("SWITCHES"), .right("FLOWS"),
    .right("PKT/S"),
    .right("MBIT/S"), .right("DROP/S"), .left("CHAIN"), .left("REASON"),
  ]

  var cells: [String] {
    [
      "\(name)", "\(partition)", status.rawValue, share(.runtime), share(.virtualSwitch), "\(activeFlows)",
      "\(forwardedPacketsPerSecond)",
      Quantity.megabits(forwardedBitsPerSecond), "\(droppedPacketsPerSecond)", chain.joined(separator: " -> "), reason,
    ]
  }

  private func share(_ kind: NodeKind) -> String { "\(serving[kind] ?? 0)/\(wanted[kind] ?? 0)" }

  var json: JSON {
    .object([
      "name": .text(name), "partition": .number(partition), "status": .string(status.rawValue), "reason": .string(reason),
      "runtimesWanted": .number(wanted[.runtime] ?? 0), "runtimesServing": .number(serving[.runtime] ?? 0),
      "switchesWanted": .number(wanted[.virtualSwitch] ?? 0), "switchesServing": .number(serving[.virtualSwitch] ?? 0),
      "chain": .array(chain.map { JSON.string($0) }), "activeFlows": .number(activeFlows),
      "forwardedPacketsPerSecond": .number(forwardedPacketsPerSecond), "forwardedBitsPerSecond": .number(forwardedBitsPerSecond),
      "droppedPacketsPerSecond": .number(droppedPacketsPerSecond), "lastSlot": .number(lastSlot.number),
      "tableVersion": .number(tableVersion), "logTime": .string(logTime.iso8601),
    ])
  }
}

extension NodeKind {
  var plural: String { self == .runtime ? "runtimes" : "switches" }
}
