import Wire

/// What an access list is asked about: the first packet of a flow.
public struct ClassificationKey: Hashable, Sendable {
  public var source: IPAddress
  public var destination: IPAddress
  public var sourcePort: UInt16
  public var destinationPort: UInt16
  public var protocolNumber: UInt8
  /// What the packet is, not what its addresses look like: `::ffff:10.0.0.1` in an IPv6 packet is no IPv4 address.
  public var isIPv6: Bool

  public init(
    source: IPAddress, destination: IPAddress, sourcePort: UInt16, destinationPort: UInt16, protocolNumber: UInt8, isIPv6: Bool
  ) {
    self.isIPv6 = isIPv6
    self.source = source
    self.destination = destination
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.protocolNumber = protocolNumber
  }

  @inlinable
  public init(_ frame: borrowing Frame) {
    source = frame.sourceAddress
    destination = frame.destinationAddress
    // The identifier of an echo is nobody's port.
    let hasPorts = frame.protocolNumber == IPProtocol.tcp || frame.protocolNumber == IPProtocol.udp
    sourcePort = hasPorts ? frame.sourcePort : 0
    destinationPort = hasPorts ? frame.destinationPort : 0
    protocolNumber = frame.protocolNumber
    isIPv6 = frame.family == .ipv6
  }
}

/// Finds the rule for a packet, however the machine does that best.
///
/// A value that is handed in, because what is fast belongs to the machine (`rte_acl` on the wire) and what
/// is obviously right belongs to everyone: `linearScan` runs where nothing else is given and is what any
/// other classifier is compared with. Asked once per flow: one indirect call.
public struct RuleClassifier: Sendable {
  /// The action of the first rule that matches, or the default.
  public let action: @Sendable (ClassificationKey) -> FirewallRule.Action

  public init(_ action: @escaping @Sendable (ClassificationKey) -> FirewallRule.Action) { self.action = action }

  /// Makes a classifier of an ordered list of rules and a default.
  public typealias Compiler = @Sendable (_ rules: [FirewallRule], _ otherwise: FirewallRule.Action) -> RuleClassifier

  /// First match wins, rule after rule.
  public static func linearScan(_ rules: [FirewallRule], otherwise: FirewallRule.Action) -> RuleClassifier {
    RuleClassifier { key in
      for rule in rules where rule.matches(key) { return rule.action }
      return otherwise
    }
  }
}
