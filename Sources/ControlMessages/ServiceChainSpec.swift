/// What a runtime is asked to run: network functions in order, and the rules of its flow table.
///
/// The functions are named, not typed: the control plane carries the settings of a function that only
/// the catalog of the runtime understands.
public struct ServiceChainSpec: Hashable, Sendable {
  public struct Function: Hashable, Sendable {
    /// The name the function has in the catalog, such as `firewall`.
    public var kind: String
    public var settings: Settings

    public init(kind: String, settings: Settings) {
      self.kind = kind
      self.settings = settings
    }
  }

  public var functions: [Function]
  public var flows: FlowTableSpec

  public init(functions: [Function], flows: FlowTableSpec = FlowTableSpec()) {
    self.functions = functions
    self.flows = flows
  }
}

/// Size and timeouts of a runtime's flow table.
public struct FlowTableSpec: Hashable, Sendable {
  /// What happens to a TCP packet that belongs to no flow and opens none (no SYN).
  public enum Midstream: UInt8, Hashable, Sendable { case drop, accept }

  /// Flows a runtime can hold; memory for all of them is set aside at start.
  public var capacity: UInt32 = 65_536
  /// How many of them can be IPv6 flows, whose keys do not fit into a flow's own cache line.
  public var ipv6Capacity: UInt32 = 16_384
  public var midstream: Midstream = .drop

  // Idle timeouts in milliseconds.
  /// TCP before both sides have been heard, and after FIN or RST: RFC 5382 REQ-5 (4 minutes).
  public var tcpTransitoryTimeout: UInt64 = 240_000
  /// TCP between: RFC 5382 REQ-5 (2 hours 4 minutes).
  public var tcpEstablishedTimeout: UInt64 = 7_440_000
  /// UDP: RFC 4787 REQ-5 (5 minutes).
  public var udpTimeout: UInt64 = 300_000
  /// ICMP queries: RFC 5508 REQ-1 (60 seconds).
  public var icmpTimeout: UInt64 = 60_000
  /// Any other protocol.
  public var otherTimeout: UInt64 = 60_000

  public init() {}
}

extension ServiceChainSpec {
  /// Reads the keys `chain` and `flows` of a map. The settings of each function are only carried here;
  /// the catalog reads them.
  public init(reader: SettingsReader) throws(SettingsError) {
    functions = []
    for item in try reader.required("chain").items() {
      // `- firewall` alone, or `- firewall: {...}`.
      if case .scalar(let kind) = item.settings.value, !kind.isEmpty {
        functions.append(Function(kind: kind, settings: Settings(.map([]), line: item.settings.line)))
        continue
      }
      let entries = try item.entries()
      guard entries.count == 1, let (kind, settings) = entries.first else {
        throw item.error("a function is its name with its settings below it, such as '- firewall: {...}'")
      }
      functions.append(Function(kind: kind, settings: settings.settings))
    }
    guard !functions.isEmpty else { throw try reader.required("chain").error("a chain needs at least one function") }
    flows = try reader.optional("flows").map { reader throws(SettingsError) in try FlowTableSpec(reader: reader) } ?? FlowTableSpec()
  }
}

extension FlowTableSpec {
  public init(reader: SettingsReader) throws(SettingsError) {
    self.init()
    try reader.allow([
      "capacity", "ipv6-capacity", "midstream", "tcp-transitory", "tcp-established", "udp", "icmp", "other",
    ])
    for (key, value) in try reader.entries() {
      switch key {
      case "capacity": capacity = UInt32(try value.integer(in: 64...16_777_216))
      case "ipv6-capacity": ipv6Capacity = UInt32(try value.integer(in: 0...16_777_216))
      case "midstream": midstream = try value.choice(["drop": .drop, "accept": .accept])
      case "tcp-transitory": tcpTransitoryTimeout = try value.milliseconds()
      case "tcp-established": tcpEstablishedTimeout = try value.milliseconds()
      case "udp": udpTimeout = try value.milliseconds()
      case "icmp": icmpTimeout = try value.milliseconds()
      default: otherTimeout = try value.milliseconds()
      }
    }
  }
}
