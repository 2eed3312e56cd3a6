import Wire

/// What an access list is asked about: the packet that opened a flow, or would.
public struct ClassificationKey: Hashable, Sendable, BitwiseCopyable {
  public var source: IPAddress
  public var destination: IPAddress
  public var sourcePort: UInt16
  public var destinationPort: UInt16
  public var protocolNumber: UInt8
  /// What the packet is, not what its addresses look like: `::ffff:10.0.0.1` in an IPv6 packet is no IPv4 address.
  public var isIPv6: Bool
  /// The side that opens the flow: `forward` for the client side.
  public var direction: Direction

  public init(
    source: IPAddress, destination: IPAddress, sourcePort: UInt16, destinationPort: UInt16, protocolNumber: UInt8, isIPv6: Bool,
    direction: Direction = .forward
  ) {
    self.isIPv6 = isIPv6
    self.source = source
    self.destination = destination
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.protocolNumber = protocolNumber
    self.direction = direction
  }

  /// The key of the packet that opened the frame's flow: the frame's own, or its reverse when it is an answer.
  public init(_ frame: borrowing Frame, openedFrom side: Direction) {
    // The identifier of an echo is nobody's port.
    let hasPorts = frame.protocolNumber == IPProtocol.tcp || frame.protocolNumber == IPProtocol.udp
    let isOpener = frame.direction == side
    self.init(
      source: isOpener ? frame.sourceAddress : frame.destinationAddress,
      destination: isOpener ? frame.destinationAddress : frame.sourceAddress,
      sourcePort: !hasPorts ? 0 : isOpener ? frame.sourcePort : frame.destinationPort,
      destinationPort: !hasPorts ? 0 : isOpener ? frame.destinationPort : frame.sourcePort,
      protocolNumber: frame.protocolNumber, isIPv6: frame.family == .ipv6, direction: side)
  }
}

/// Finds the rule for a flow, however the machine does that best.
///
/// A value that is handed in, because what is fast belongs to the machine (`rte_acl` on the wire) and what
/// is obviously right belongs to everyone: `linearScan` runs where nothing else is given and is what any
/// other classifier is compared with. Asked once per flow: one indirect call.
public struct RuleClassifier: Sendable {
  /// The position of the first rule that matches; `nil` when none does.
  public let firstMatch: @Sendable (ClassificationKey) -> Int?

  public init(_ firstMatch: @escaping @Sendable (ClassificationKey) -> Int?) { self.firstMatch = firstMatch }

  /// Makes a classifier of an ordered list of rules. May take a second for ten thousand: never on the worker.
  public typealias Compiler = @Sendable (_ rules: [FirewallRule]) throws(RuleCompilationError) -> RuleClassifier

  /// First match wins, rule after rule.
  public static func linearScan(_ rules: [FirewallRule]) -> RuleClassifier {
    RuleClassifier { key in rules.firstIndex { $0.matches(key) } }
  }
}

/// The machine has no room for these rules, or cannot express one of them.
public struct RuleCompilationError: Error, CustomStringConvertible, Equatable {
  public let description: String
  public init(_ description: String) { self.description = description }
}
