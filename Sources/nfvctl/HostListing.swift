import ControlMessages
import ControlPlane

/// A host as one cluster's log knows it. A host that offers itself to two clusters is listed twice: each log has
/// its own words about it.
struct HostListing: Listed, Equatable {
  let cluster: ClusterID
  let host: ClusterState.Host
  let usedRuntimePorts: Int
  let usedSwitchPorts: Int
  /// Milliseconds of log time since its agent was heard.
  let heardAgo: UInt64

  init(_ host: ClusterState.Host, of state: ClusterState) {
    func used(_ kind: NodeKind) -> Int {
      state.nodes.count { $0.kind == kind && $0.isAlive && $0.host == host.id }
        + state.abandoned.count { $0.kind == kind && $0.host == host.id }
    }
    cluster = state.cluster
    self.host = host
    usedRuntimePorts = used(.runtime)
    usedSwitchPorts = used(.virtualSwitch)
    heardAgo = state.clock.elapsed - min(state.clock.elapsed, host.lastHeard)
  }

  static let columns: [TextTable.Column] = [
    .left("HOST"), .left("CLUSTER"), .left("STATE"), .right("CORES"), .right("RUNTIMES"), .right("SWITCHES"), .right("HEARD"),
    .left("REFUSAL"),
  ]

  private var state: String { host.isSilent ? "silent" : "ready" }

  var cells: [String] {
    [
      "\(host.id)", "\(cluster)", state, "\(host.cores)", "\(usedRuntimePorts)/\(host.runtimePorts)",
      "\(usedSwitchPorts)/\(host.switchPorts)", "\(Quantity.span(milliseconds: heardAgo)) ago", host.refusal,
    ]
  }

  var json: JSON {
    .object([
      "host": .text(host.id), "cluster": .text(cluster), "state": .string(state), "cores": .number(host.cores),
      "runtimePorts": .number(host.runtimePorts), "runtimePortsUsed": .number(usedRuntimePorts),
      "switchPorts": .number(host.switchPorts), "switchPortsUsed": .number(usedSwitchPorts),
      "agentIncarnation": .number(host.agentIncarnation.number), "heardMillisecondsAgo": .number(heardAgo),
      "refusal": .string(host.refusal),
    ])
  }
}
