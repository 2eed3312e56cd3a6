import ControlMessages
import Wire

/// One virtual address with the servers behind it.
public struct LoadBalancerService: Hashable, Sendable {
  /// How the first packet of a flow chooses.
  public enum Policy: UInt8, Hashable, Sendable, BitwiseCopyable {
    /// The backend with the fewest flows for its weight, of this runtime's own.
    case leastLoaded
    /// The same on every runtime, from the five-tuple alone: see `MaglevTable`.
    case maglev
  }

  public struct Backend: Hashable, Sendable, CustomStringConvertible {
    public var address: IPAddress
    public var port: UInt16
    /// How many flows it gets compared with the others; with 0 it gets none, and keeps what it has.
    public var weight: UInt16
    /// It gets no new flows, and keeps what it has until they end.
    public var isDraining: Bool

    public init(_ address: IPAddress, port: UInt16, weight: UInt16 = 1, isDraining: Bool = false) {
      self.isDraining = isDraining
      self.address = address
      self.port = port
      self.weight = weight
    }

    public init(_ address: IPv4Address, port: UInt16, weight: UInt16 = 1, isDraining: Bool = false) {
      self.init(IPAddress(address), port: port, weight: weight, isDraining: isDraining)
    }

    public var description: String { address.description(withPort: port) }

    var isIPv6: Bool { address.ipv4 == nil }

    func isSameServer(as other: Backend) -> Bool { address == other.address && port == other.port }
  }

  public var address: IPAddress
  public var port: UInt16
  public var protocolNumber: UInt8
  public var backends: [Backend]
  public var policy: Policy
  /// How its backends are checked; `nil`: they are not.
  public var health: HealthCheck?

  public init(
    _ address: IPv4Address, port: UInt16, protocolNumber: UInt8 = IPProtocol.tcp, backends: [Backend],
    policy: Policy = .leastLoaded, health: HealthCheck? = nil
  ) {
    self.init(
      IPAddress(address), port: port, protocolNumber: protocolNumber, backends: backends, policy: policy, health: health)
  }

  /// Backends are of the family of `address`.
  public init(
    _ address: IPAddress, port: UInt16, protocolNumber: UInt8 = IPProtocol.tcp, backends: [Backend],
    policy: Policy = .leastLoaded, health: HealthCheck? = nil
  ) {
    precondition(backends.allSatisfy { $0.isIPv6 == (address.ipv4 == nil) }, "backends are of their service's address family")
    self.health = health
    self.address = address
    self.port = port
    self.protocolNumber = protocolNumber
    self.backends = backends
    self.policy = policy
  }

  public var name: String { "\(address.description(withPort: port))/\(protocolNumber == IPProtocol.tcp ? "tcp" : "udp")" }

  var isIPv6: Bool { address.ipv4 == nil }
}

extension LoadBalancerService {
  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["virtual", "backends", "policy", "health"])
    let virtual = try reader.required("virtual")
    let text = try virtual.string()
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, parts[1] == "tcp" || parts[1] == "udp" else {
      throw virtual.error("'\(text)' is not an address, a port and a protocol, such as 10.1.0.100:80/tcp")
    }
    let endpoint = try SettingsReader(Settings(.scalar(String(parts[0])), line: virtual.settings.line), path: virtual.path)
      .endpoint()
    var backends: [Backend] = []
    for item in try reader.required("backends").items() {
      let backend = try Backend(reader: item)
      guard !backends.contains(where: { $0.address == backend.address && $0.port == backend.port }) else {
        throw item.error("\(backend) is a backend of \(text) twice")
      }
      guard backend.isIPv6 == (endpoint.address.ipv4 == nil) else {
        throw item.error("\(backend) is not of the address family of \(text): a load balancer does not translate between the two")
      }
      backends.append(backend)
    }
    self.init(
      endpoint.address, port: endpoint.port, protocolNumber: parts[1] == "tcp" ? IPProtocol.tcp : IPProtocol.udp,
      backends: backends,
      policy: try reader.optional("policy")?.choice(["least-loaded": .leastLoaded, "maglev": .maglev]) ?? .leastLoaded,
      health: try reader.optional("health").map { reader throws(SettingsError) in try HealthCheck(reader: reader) })
    if let health = try reader.optional("health"), parts[1] == "udp", self.health?.port == nil {
      throw health.error("backends of a UDP service are checked by connecting to a TCP port of theirs: say which with 'port'")
    }
  }
}

extension LoadBalancerService.Backend {
  /// `10.2.0.11:80`, `"[2001:db8::11]:80"`, or `{address: 10.2.0.11:80, weight: 2}`.
  init(reader: SettingsReader) throws(SettingsError) {
    if case .scalar = reader.settings.value {
      let endpoint = try reader.endpoint()
      self.init(endpoint.address, port: endpoint.port)
      return
    }
    try reader.allow(["address", "weight", "drain"])
    let endpoint = try reader.required("address").endpoint()
    let weight = try reader.optional("weight")?.integer(in: 0...1000) ?? 1
    self.init(
      endpoint.address, port: endpoint.port, weight: UInt16(weight),
      isDraining: try reader.optional("drain")?.boolean() ?? false)
  }
}
