/// What the operator wants: a service chain, how many runtimes and switches carry it, and between which networks.
///
/// `nfvctl apply` reads it from YAML and publishes it as an event; the core compares it with what is running.
public struct ClusterSpec: Hashable, Sendable {
  /// How a worker waits for packets: with a core of its own, or sharing one.
  public enum Polling: UInt8, Hashable, Sendable {
    case busy = 1
    case adaptive = 2
  }

  public var name: ClusterID
  public var chain: ServiceChainSpec
  public var runtimes: UInt32
  public var switches: UInt32
  /// Into how many disjoint shares the address pools of the chain (NAT) are cut. Each living runtime holds one,
  /// so this is also the most runtimes the cluster can have. It cannot change while runtimes live: the shares
  /// of two different cuts overlap.
  public var poolShares: UInt32 = 8
  /// Milliseconds between two heartbeats of a node.
  public var heartbeatInterval: UInt64 = 10
  /// Milliseconds between two workload events of a node.
  public var workloadInterval: UInt64 = 500
  public var polling: Polling = .busy
  /// Replicas of each flow on other runtimes: 0, 1 or 2. With one, no packet leaves before the state that it changed is
  /// there, and a runtime that dies loses no flow; with two, neither do two runtimes that die at once.
  public var replicas: UInt32 = 0
  public var network: NetworkSpec

  public init(name: ClusterID, chain: ServiceChainSpec, runtimes: UInt32, switches: UInt32, network: NetworkSpec = NetworkSpec()) {
    self.name = name
    self.chain = chain
    self.runtimes = runtimes
    self.switches = switches
    self.network = network
    poolShares = max(poolShares, runtimes)
  }
}

extension ClusterSpec {
  /// Nodes of a kind that one cluster may ask for. Tables and messages are sized for it.
  public static let maximumRuntimes: UInt32 = 64
  public static let maximumSwitches: UInt32 = 8
  public static let maximumPoolShares: UInt32 = 256
  public static let maximumReplicas: UInt32 = 2

  /// What is wrong with a spec that did not come from a file; nil when nothing is.
  public var problem: String? {
    if chain.functions.isEmpty { return "the chain is empty" }
    if !(1...Self.maximumRuntimes).contains(runtimes) { return "\(runtimes) runtimes; it must be 1 to \(Self.maximumRuntimes)" }
    if switches > Self.maximumSwitches { return "\(switches) switches; it must be 0 to \(Self.maximumSwitches)" }
    if !(runtimes...Self.maximumPoolShares).contains(poolShares) {
      return "\(poolShares) pool shares; it must be \(runtimes) to \(Self.maximumPoolShares)"
    }
    if !(1...60_000).contains(heartbeatInterval) { return "heartbeats every \(heartbeatInterval) ms; it must be 1 to 60000" }
    if replicas > Self.maximumReplicas { return "\(replicas) replicas of each flow; it must be 0, 1 or 2" }
    if !(10...60_000).contains(workloadInterval) { return "workload every \(workloadInterval) ms; it must be 10 to 60000" }
    return nil
  }

  /// Reads the top level of a cluster file.
  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow([
      "name", "chain", "flows", "runtimes", "switches", "pool-shares", "heartbeat", "workload", "polling", "network",
      "replicas",
    ])
    let nameReader = try reader.required("name")
    guard let name = ClusterID(try nameReader.string()) else {
      throw nameReader.error("a cluster's name is 1 to 63 of a-z, 0-9 and '-'")
    }
    self.init(
      name: name,
      chain: try ServiceChainSpec(reader: reader),
      runtimes: UInt32(try reader.required("runtimes").integer(in: 1...Int(Self.maximumRuntimes))),
      switches: UInt32(try reader.optional("switches")?.integer(in: 0...Int(Self.maximumSwitches)) ?? 1),
      network: try NetworkSpec(reader: reader.required("network")))
    if let value = try reader.optional("pool-shares") {
      poolShares = UInt32(try value.integer(in: 1...Int(Self.maximumPoolShares)))
      guard poolShares >= runtimes else {
        throw value.error("\(runtimes) runtimes need at least as many pool shares, not \(poolShares)")
      }
    }
    if let value = try reader.optional("heartbeat") { heartbeatInterval = try value.interval(in: 1...60_000) }
    if let value = try reader.optional("workload") { workloadInterval = try value.interval(in: 10...60_000) }
    if let value = try reader.optional("polling") { polling = try value.choice(["busy": .busy, "adaptive": .adaptive]) }
    if let value = try reader.optional("replicas") {
      replicas = UInt32(try value.integer(in: 0...255))
      guard replicas <= Self.maximumReplicas else {
        throw value.error("\(replicas) replicas of each flow were asked for; it must be 0, 1 or 2")
      }
    }
  }
}

extension SettingsReader {
  /// A duration in milliseconds that has to lie in `range`.
  func interval(in range: ClosedRange<UInt64>) throws(SettingsError) -> UInt64 {
    let value = try milliseconds()
    guard range.contains(value) else {
      throw error("\(value)ms is out of range; it must be from \(range.lowerBound)ms to \(range.upperBound)ms")
    }
    return value
  }
}
