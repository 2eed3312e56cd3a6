/// The files that the lab's processes are configured with. A user's own cluster file can take the place of the one
/// here; the agent's has to fit the network that the lab makes.
enum LabConfigurations {
  static let bootstrap = "127.0.0.1:9092"

  /// What `nfvctl apply` gets: `examples/cluster.yaml` without its explanations (a test compares them).
  ///
  /// - Parameter countsPackets: whether a packet counter stands behind the other functions.
  static func cluster(runtimes: Int, replicas: Int = 0, countsPackets: Bool = false) -> String {
    """
    name: web
    runtimes: \(runtimes)
    switches: 1\(replicas == 0 ? "" : "\nreplicas: \(replicas)")
    pool-shares: \(max(8, runtimes))
    polling: adaptive
    heartbeat: 100ms
    workload: 500ms
    chain:
      - firewall:
          default: deny
          rules:
            - {action: allow, protocol: tcp, from: 10.1.0.0/24, to: 10.1.0.100, to-ports: 80}
            - {action: allow, protocol: icmp, from: 10.1.0.0/24, to: 10.1.0.100}
      - nat:
          pool: 10.2.0.200-10.2.0.203
      - load-balancer:
          services:
            - virtual: 10.1.0.100:80/tcp
              backends:
                - 10.2.0.11:80
                - 10.2.0.12:80\(countsPackets ? "\n  - packet-counter" : "")
    flows:
      capacity: 65536
      tcp-transitory: 30s
    network:
      client:
        addresses: [10.1.0.2/24]
        answers-for: [10.1.0.100]
      server:
        addresses: [10.2.0.2/24]
        answers-for: [10.2.0.200-10.2.0.203]

    """
  }

  /// The host's name is the run's own: an agent takes over what runs in its host's name, and another lab's nodes
  /// are not for it.
  ///
  /// - Parameter isApart: the second host's, which has the last runtime's port.
  static func agent(_ network: LabNetwork, processors: Int, program: String, logs: String, isApart: Bool = false) -> String {
    let all = network.runtimeInterfaces
    let ports = isApart ? Array(all.suffix(1)) : network.lastApart ? all.dropLast() : all
    return """
      host: \(isApart ? network.apartHost : network.prefix)
      bootstrap: \(network.bootstrap)
      processors: [\((0..<processors).map(String.init).joined(separator: ", "))]
      runtime-ports: [\(ports.map { "'af_packet:\($0)'" }.joined(separator: ", "))]
      switch-ports: [\(isApart ? "" : "{client: 'af_packet:swc', server: 'af_packet:sws', fabric: 'af_packet:swf'}")]
      program: \(program)
      log-directory: \(logs)

      """
  }
}
