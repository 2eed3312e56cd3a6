import ControlMessages

/// The chains that captures are run through, as a configuration would say them.
enum CaptureChains {
  /// Counts and passes on everything, connections that began before the capture included.
  static let passThrough: ServiceChainSpec = {
    var spec = ServiceChainSpec(functions: [.init(kind: "packet-counter", settings: map([:]))])
    spec.flows = flows
    spec.flows.midstream = .accept
    return spec
  }()

  /// Everything is allowed and translated; what goes to 10.1.0.100:80 goes to two servers, the rest passes.
  static let firewallNATLoadBalancer = ServiceChainSpec(
    functions: [
      .init(kind: "firewall", settings: map(["default": scalar("allow")])),
      .init(
        kind: "nat",
        settings: map(["pool": scalar("203.0.113.1-203.0.113.2"), "ports": scalar("20000-21999"), "mappings": scalar("4096")])),
      .init(
        kind: "load-balancer",
        settings: map([
          "services": Settings(.list([service("10.1.0.100:80/tcp")])), "other": scalar("forward"),
        ])),
    ], flows: flows)

  /// As above, with connections accepted in their middle: more of a capture gets through to be judged.
  static let lenientNATLoadBalancer: ServiceChainSpec = {
    var spec = ServiceChainSpec(functions: Array(firewallNATLoadBalancer.functions.dropFirst()))
    spec.flows = flows
    spec.flows.midstream = .accept
    return spec
  }()

  /// Room enough for the captures, and little to set aside for each of the many runs.
  private static let flows: FlowTableSpec = {
    var flows = FlowTableSpec()
    flows.capacity = 4_096
    flows.ipv6Capacity = 512
    return flows
  }()

  private static func service(_ virtual: String) -> Settings {
    map(["virtual": scalar(virtual), "backends": Settings(.list([scalar("10.2.0.11:80"), scalar("10.2.0.12:80")]))])
  }

  private static func scalar(_ text: String) -> Settings { Settings(.scalar(text)) }
  private static func map(_ entries: KeyValuePairs<String, Settings>) -> Settings {
    Settings(.map(entries.map { Settings.Entry($0.key, $0.value) }))
  }
}
