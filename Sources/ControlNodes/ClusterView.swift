import ControlMessages
import ControlPlane

/// A cluster at one place of its log, as the dashboard shows it. Rates are per second, over the last workload interval.
struct ClusterView: Encodable, Sendable {
  struct Node: Encodable, Sendable {
    var id: UInt32
    var kind: String
    var state: String
    var host: String?
    var incarnation: UInt64
    var flows: UInt64
    var received: UInt64
    var forwarded: UInt64
    var dropped: UInt64
    var bits: UInt64
    /// Parts per million.
    var busy: UInt32
    var isSilent: Bool
    var problem: String
    /// The nodes that have replicas of its flows or are going to, and why these are not enough.
    var holders: [UInt32]
    var unprotected: String?
  }

  struct Host: Encodable, Sendable {
    var id: String
    var isSilent: Bool
    var runtimePorts: UInt32
    var switchPorts: UInt32
  }

  struct Move: Encodable, Sendable {
    var source: UInt32
    var target: UInt32
    var goal: UInt64
    var asked: UInt64
    var isUnderWay: Bool
  }

  var cluster: String
  var offset: UInt64?
  var milliseconds: UInt64
  var hash: String
  var slot: UInt64
  var rules: UInt32
  var policy: String
  var runtimesWanted: UInt32
  var switchesWanted: UInt32
  /// So many nodes are silent that nothing is declared dead.
  var holdsBack: Bool
  /// Why nothing is decided any more, if so.
  var obstacle: String?
  var nodes: [Node]
  var hosts: [Host]
  var moves: [Move]
  var replicas: [String]
  var lines: [Chronicle.Line]
  var spans: [Chronicle.Span]

  init(_ core: ClusterCore, _ chronicle: Chronicle) {
    let state = core.state
    cluster = state.cluster.name
    offset = core.position?.value
    milliseconds = state.clock.now.milliseconds
    hash = "\(core.hash)"
    slot = state.lastSlot.number
    rules = state.rules
    policy = state.scaling.policy.map { "\($0.name)@\(state.scaling.version)" } ?? "manual"
    runtimesWanted = state.wanted(.runtime)
    switchesWanted = state.wanted(.virtualSwitch)
    holdsBack = state.manySilentSince != nil
    obstacle = state.needsNewerVersion.map { "\($0.name): \($0.advice)" }
    let unprotected = state.unprotected
    nodes = state.nodes.map { node in
      let load = node.workload ?? NodeWorkload(node: node.id, interval: 0)
      func rate(_ count: UInt64) -> UInt64 { count.multipliedReportingOverflow(by: 1_000).partialValue / max(1, load.interval) }
      return Node(
        id: node.id.number, kind: "\(node.kind)", state: "\(node.memberState)", host: node.host?.name,
        incarnation: node.incarnation.number, flows: load.activeFlows, received: rate(load.receivedPackets),
        forwarded: rate(load.forwardedPackets), dropped: rate(load.droppedPackets), bits: rate(load.forwardedBytes &* 8),
        busy: load.busyShare, isSilent: node.isSilent, problem: node.lastProblem,
        holders: node.protection?.holders.map(\.node.number) ?? [], unprotected: unprotected.first { $0.node == node.id }?.reason)
    }
    hosts = state.hosts.map {
      Host(id: $0.id.name, isSilent: $0.isSilent, runtimePorts: $0.runtimePorts, switchPorts: $0.switchPorts)
    }
    moves = state.scaling.moves.map {
      Move(
        source: $0.source.number, target: $0.target.number, goal: $0.goal, asked: $0.asked, isUnderWay: $0.slot != .none)
    }
    replicas = state.liveReplicas.map(\.producer.name)
    lines = chronicle.lines
    spans = chronicle.spans
  }
}
