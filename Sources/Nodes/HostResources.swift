import Configuration
import ControlMessages

/// What of a host is taken: ports, one holder each; processors, one holder each for busy polling.
///
/// A value without I/O: the agent asks it, and tells it who has gone.
struct HostResources {
  struct Holder: Hashable {
    let cluster: ClusterID
    let node: NodeID
  }

  /// What a node gets.
  struct Grant: Equatable {
    enum Ports: Equatable {
      case runtime(String)
      case virtualSwitch(AgentConfiguration.SwitchPorts)
    }

    let ports: Ports
    let processors: [Int]

    /// Whether a port is one of DPDK's af_packet driver.
    var usesPacketSockets: Bool {
      switch ports {
      case .runtime(let port): port.hasPrefix("af_packet:")
      case .virtualSwitch(let ports): [ports.client, ports.server, ports.fabric].contains { $0.hasPrefix("af_packet:") }
      }
    }
  }

  private let configuration: AgentConfiguration
  private var grants: [Holder: Grant] = [:]

  init(_ configuration: AgentConfiguration) { self.configuration = configuration }

  /// Ports and processors for a node, or why there are none.
  mutating func grant(_ kind: NodeKind, polling: ClusterSpec.Polling, to holder: Holder) -> Result<Grant, Refusal> {
    let ports: Grant.Ports
    switch kind {
    case .runtime:
      let taken = grants.values.map(\.ports)
      guard let port = configuration.runtimePorts.first(where: { !taken.contains(.runtime($0)) }) else {
        return .failure(Refusal("all \(configuration.runtimePorts.count) runtime ports of \(configuration.host) are taken"))
      }
      ports = .runtime(port)
    case .virtualSwitch:
      let taken = grants.values.map(\.ports)
      guard let found = configuration.switchPorts.first(where: { !taken.contains(.virtualSwitch($0)) }) else {
        return .failure(Refusal("all \(configuration.switchPorts.count) sets of switch ports of \(configuration.host) are taken"))
      }
      ports = .virtualSwitch(found)
    }
    var processors = configuration.processors
    if polling == .busy {
      let dedicated = Set(grants.values.filter { $0.processors.count == 1 }.flatMap(\.processors))
      guard let free = processors.first(where: { !dedicated.contains($0) }) else {
        return .failure(
          Refusal("all \(processors.count) processors of \(configuration.host) are taken by busy-polling nodes; use 'polling: adaptive' to share them"))
      }
      processors = [free]
    }
    let grant = Grant(ports: ports, processors: processors)
    grants[holder] = grant
    return .success(grant)
  }

  /// Notes what a process that was found running already holds.
  mutating func adopt(_ grant: Grant, by holder: Holder) { grants[holder] = grant }

  mutating func release(_ holder: Holder) { grants[holder] = nil }

  struct Refusal: Error, Equatable {
    let reason: String
    init(_ reason: String) { self.reason = reason }
  }
}
