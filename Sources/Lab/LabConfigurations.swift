/// The files that the lab's processes are configured with. A user's own cluster file can take the place of the one
/// here; the agent's has to fit the network that the lab makes.
enum LabConfigurations {
  static let bootstrap = "127.0.0.1:9092"

  /// What `nfvctl apply` gets: `examples/cluster.yaml` without its explanations (a test compares them).
  ///
  /// - Parameters:
  ///   - countsPackets: whether a packet counter stands behind the other functions.
  ///   - clients: with IPv6, the NAT translates.
  ///   - replicas: with two, pairs may be killed, whose shares of the pool are not free before their last flow has ended.
  static func cluster(
    runtimes: Int, switches: Int = 1, replicas: Int = 0, countsPackets: Bool = false, clients: LabNetwork.Family = .ipv4
  ) -> String {
    let isIPv6 = clients == .ipv6
    let (network, prefix) = isIPv6 ? ("2001:db8:1::/64", LabNetwork.nat64Prefix) : ("10.1.0.0/24", "")
    return """
    name: web
    runtimes: \(runtimes)
    switches: \(switches)\(replicas == 0 ? "" : "\nreplicas: \(replicas)")
    pool-shares: \(replicas > 1 ? max(16, 4 * runtimes) : max(8, runtimes))
    polling: adaptive
    heartbeat: 100ms
    workload: 500ms
    chain:
      - firewall:
          default: deny
          rules:
            - {action: allow, protocol: tcp, from: \(network), to: \(prefix)10.1.0.100, to-ports: 80}
            - {action: allow, protocol: icmp, from: \(network), to: \(prefix)10.1.0.100}
      - nat:
          pool: 10.2.0.200-10.2.0.203\(isIPv6 ? "\n      nat64: \(prefix)/96" : "")
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
        answers-for: [10.1.0.100]\(isIPv6 ? "\n    ipv6: {addresses: [\(LabNetwork.switchIPv6Address)/64]}" : "")
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
    let switchPorts = isApart ? [] : network.switchInterfaces.map {
      "{client: 'af_packet:\($0.client)', server: 'af_packet:\($0.server)', fabric: 'af_packet:\($0.fabric)\(network.impairment)'}"
    }
    return """
      host: \(isApart ? network.apartHost : network.prefix)
      bootstrap: \(network.bootstrap)
      processors: [\((0..<processors).map(String.init).joined(separator: ", "))]
      runtime-ports: [\(ports.map { "'af_packet:\($0)\(network.impairment)'" }.joined(separator: ", "))]
      switch-ports: [\(switchPorts.joined(separator: ", "))]
      program: \(program)
      log-directory: \(logs)

      """
  }
}
