/// The files that the lab's processes are configured with. A user's own cluster file can take the place of the one
/// here; the agent's has to fit the network that the lab makes.
enum LabConfigurations {
  static let bootstrap = "127.0.0.1:9092"
  static let clusterName = "web"

  /// What `nfvctl apply` gets: the same service as in `examples/cluster.yaml`.
  static func cluster(runtimes: Int) -> String {
    """
    name: \(clusterName)
    runtimes: \(runtimes)
    switches: 1
    polling: adaptive
    flows: {capacity: 65536}
    chain:
      - firewall:
          default: deny
          rules:
            - {action: allow, protocol: tcp, from: 10.1.0.0/24, to: \(LabNetwork.virtualAddress), to-ports: 80}
            - {action: allow, protocol: icmp, from: 10.1.0.0/24}
      - nat:
          pool: 10.2.0.200-10.2.0.203
      - load-balancer:
          services:
            - virtual: \(LabNetwork.virtualAddress):80/tcp
              backends: [\(LabNetwork.serverAddresses.map { "\($0):80" }.joined(separator: ", "))]
    network:
      client:
        addresses: [10.1.0.254/24]
        answers-for: [\(LabNetwork.virtualAddress)]
      server:
        addresses: [10.2.0.1/24]
        answers-for: [10.2.0.200-10.2.0.203]

    """
  }

  /// The host's name is the run's own: an agent takes over what runs in its host's name, and another lab's nodes
  /// are not for it.
  static func agent(_ network: LabNetwork, processors: Int, program: String, logs: String) -> String {
    """
    host: \(network.prefix)
    bootstrap: \(bootstrap)
    processors: [\((0..<processors).map(String.init).joined(separator: ", "))]
    runtime-ports: [\(network.runtimeInterfaces.map { "'af_packet:\($0)'" }.joined(separator: ", "))]
    switch-ports:
      - {client: 'af_packet:swc', server: 'af_packet:sws', fabric: 'af_packet:swf'}
    program: \(program)
    log-directory: \(logs)

    """
  }
}
