import ControlMessages
import ControlPlane

/// A runtime or a switch as `nfvctl get` shows it.
struct NodeListing: Listed, Equatable {
  let cluster: ClusterID
  let node: ClusterState.Node
  /// How many shares the pools of its cluster are cut into.
  let poolShares: UInt32?
  /// Milliseconds of log time since it was heard.
  let heardAgo: UInt64
  /// Why its flows would not all survive its end; nil when they would, or are not to.
  let unprotected: String?
  /// Of a switch: whether it has the uplinks; nil where nobody has chosen.
  let hasUplinks: Bool?

  init(_ node: ClusterState.Node, of state: ClusterState) {
    cluster = state.cluster
    self.node = node
    poolShares = state.spec?.poolShares
    unprotected = state.unprotected.first { $0.node == node.id }?.reason
    if node.kind == .virtualSwitch, case .only(let holder) = state.table.uplinks {
      hasUplinks = holder == node.life
    } else {
      hasUplinks = nil
    }
    heardAgo = state.clock.elapsed - min(state.clock.elapsed, node.lastHeard)
  }

  static func all(_ kind: NodeKind, of state: ClusterState) -> [NodeListing] {
    state.nodes.filter { $0.kind == kind }.map { NodeListing($0, of: state) }
  }

  /// One word for the phase of its life and what is wrong with it.
  var state: String {
    switch node.phase {
    case .waiting: "waiting"
    case .launching: "launching"
    case .serving: node.isSilent ? "silent" : node.isLeaving ? "leaving" : node.drain != nil ? "draining" : "serving"
    case .stopping: "stopping"
    }
  }

  private var isRunning: Bool { node.isAlive && node.processID != 0 }
  private var load: NodeWorkload? { node.isAlive ? node.workload : nil }
  private func rate(_ count: KeyPath<NodeWorkload, UInt64>) -> UInt64? {
    load.map { Quantity.perSecond($0[keyPath: count], interval: $0.interval) }
  }

  static let columns: [TextTable.Column] = [
    .left("CLUSTER"), .right("ID"), .left("STATE"), .left("HOST"), .right("LIFE"), .right("SHARE"), .right("FLOWS"),
    .right("PKT/S"),
    .right("MBIT/S"), .right("DROP/S"), .right("BUSY%"), .left("REPLICAS"), .right("HEARD"), .left("PROBLEM"),
  ]

  var cells: [String] {
    let bits = rate(\.forwardedBytes).map { Quantity.megabits($0 &* 8) }
    return [
      "\(cluster)", "\(node.id)", state, node.host.map { "\($0)" } ?? "-", "\(node.incarnation)", share ?? "-",
      load.map { "\($0.activeFlows)" } ?? "-", rate(\.forwardedPackets).map { "\($0)" } ?? "-", bits ?? "-",
      rate(\.droppedPackets).map { "\($0)" } ?? "-", load.map { Quantity.percent($0.busyShare) } ?? "-",
      replicas, isRunning ? "\(Quantity.span(milliseconds: heardAgo)) ago" : "-", node.lastProblem,
    ]
  }

  /// Where the replicas of its flows are; of a switch, whether another would have to take over from it.
  private var replicas: String {
    if let hasUplinks { return hasUplinks ? "has the uplinks" : "stands by" }
    guard let protection = node.protection, protection.holder != nil else { return unprotected == nil ? "-" : "none" }
    func words(_ verb: String, _ lives: [NodeLife]) -> String? {
      lives.isEmpty ? nil : "\(verb) \(lives.map { "\($0.node)" }.joined(separator: " and "))"
    }
    let whole = protection.holders.filter { protection.isWhole(on: $0) }
    return [words("on", whole), words("going to", protection.incomplete)].compactMap { $0 }.joined(separator: ", ")
  }

  private var share: String? {
    guard let index = node.poolShare, let poolShares else { return nil }
    return "\(index)/\(poolShares)"
  }

  var json: JSON {
    let ports = node.ports
    let share: JSON? = node.poolShare.map { JSON.number($0) }
    let shares: JSON? = node.poolShare == nil ? nil : poolShares.map { JSON.number($0) }
    let host: JSON? = node.host.map { JSON.text($0) }
    let workload: JSON? = load.map { Self.json($0) }
    return .object([
      "cluster": .text(cluster), "id": .number(node.id.number), "kind": .text(node.kind), "state": .string(state),
      "host": host, "incarnation": .number(node.incarnation.number), "processId": running(node.processID),
      "startupMilliseconds": running(node.startup), "poolShare": share, "poolShares": shares,
      "inputAddress": address(ports?.input), "outputAddress": address(ports?.output), "controlAddress": address(ports?.control),
      "heardMillisecondsAgo": running(heardAgo), "workerLoops": running(node.workerLoops),
      "acknowledgedSlot": .number(node.acknowledged.number), "failures": .number(node.failures),
      "lastProblem": .string(node.lastProblem), "workload": workload, "settingsVersion": .number(node.settingsVersion),
      "settingsProblem": .string(node.settingsProblem),
      "backends": .array(
        node.backends.map {
          .object([
            "service": .string($0.service), "backend": .string($0.backend), "up": .bool($0.isUp), "reason": .string($0.reason),
            "since": .string($0.since.iso8601),
          ])
        }),
      "replicasOn": node.protection?.holder.map { JSON.number($0.node.number) },
      "secondReplicaOn": node.protection?.second.map { JSON.number($0.node.number) },
      "hasUplinks": hasUplinks.map { JSON.bool($0) }, "protected": node.protection.map { JSON.bool($0.isComplete) }, "unprotected": unprotected.map { JSON.string($0) },
    ])
  }

  private func running(_ value: some BinaryInteger) -> JSON? { isRunning ? JSON.number(value) : nil }
  private func address(_ address: HardwareAddress?) -> JSON? { address.map { JSON.text($0) } }

  /// Counts are of the last interval; rates follow from them.
  static func json(_ load: NodeWorkload) -> JSON {
    let drops: [JSON] = load.drops.map { drop -> JSON in
      .object(["reason": .string(drop.reason), "packets": .number(drop.packets)])
    }
    return .object([
      "intervalMilliseconds": .number(load.interval), "receivedPackets": .number(load.receivedPackets),
      "forwardedPackets": .number(load.forwardedPackets), "droppedPackets": .number(load.droppedPackets),
      "drops": .array(drops), "receivedBytes": .number(load.receivedBytes), "forwardedBytes": .number(load.forwardedBytes),
      "activeFlows": .number(load.activeFlows), "flowsCreated": .number(load.flowsCreated),
      "flowsExpired": .number(load.flowsExpired), "flowCapacity": .number(load.capacity),
      "busyPartsPerMillion": .number(load.busyShare), "unprotectedFlows": .number(load.unprotectedFlows),
      "replicasHeld": .number(load.replicasHeld), "packetsReplicated": .number(load.packetsReplicated),
      "packetsReleased": .number(load.packetsReleased),
    ])
  }
}
