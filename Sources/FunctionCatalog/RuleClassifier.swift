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
  @inline(__always)
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
    let rules = rules.map { MaskedRule($0) }
    return RuleClassifier { key in
      for index in rules.indices where rules[index].matches(key) { return index }
      return nil
    }
  }
}

/// A rule as it is compared: what can be worked out beforehand is.
private struct MaskedRule: BitwiseCopyable {
  private var source: (high: UInt64, low: UInt64)
  private var sourceMask: (high: UInt64, low: UInt64)
  private var destination: (high: UInt64, low: UInt64)
  private var destinationMask: (high: UInt64, low: UInt64)
  private var firstSourcePort: UInt16
  private var lastSourcePort: UInt16
  private var firstDestinationPort: UInt16
  private var lastDestinationPort: UInt16
  /// The protocols it speaks of: a number, or the other one; with `anyProtocol` all.
  private var protocolNumbers: (UInt8, UInt8)
  private var anyProtocol: Bool
  /// Bits of the families and directions it speaks of: IPv4, IPv6; forward, reverse.
  private var families: UInt8
  private var directions: UInt8

  init(_ rule: FirewallRule) {
    func words(_ block: AddressBlock?) -> (address: (UInt64, UInt64), mask: (UInt64, UInt64)) {
      guard let block else { return ((0, 0), (0, 0)) }
      return ((block.base.high, block.base.low), (block.highMask, block.lowMask))
    }
    (source, sourceMask) = words(rule.source)
    (destination, destinationMask) = words(rule.destination)
    (firstSourcePort, lastSourcePort) = (rule.sourcePorts.lowerBound, rule.sourcePorts.upperBound)
    (firstDestinationPort, lastDestinationPort) = (rule.destinationPorts.lowerBound, rule.destinationPorts.upperBound)
    protocolNumbers =
      switch rule.transport {
      case .any: (0, 0)
      case .tcp: (IPProtocol.tcp, IPProtocol.tcp)
      case .udp: (IPProtocol.udp, IPProtocol.udp)
      case .icmp: (IPProtocol.icmp, IPProtocol.icmpv6)
      }
    anyProtocol = rule.transport == .any
    families = [rule.source, rule.destination].reduce(0b11) { $0 & ($1.map { $0.base.ipv4 == nil ? 0b10 : 0b01 } ?? 0b11) }
    directions = rule.direction.map { 1 << $0.rawValue } ?? 0b11
  }

  /// The same as `FirewallRule.matches`.
  @inline(__always)
  func matches(_ key: ClassificationKey) -> Bool {
    guard anyProtocol || key.protocolNumber == protocolNumbers.0 || key.protocolNumber == protocolNumbers.1,
      families >> (key.isIPv6 ? 1 : 0) & directions >> key.direction.rawValue & 1 != 0
    else { return false }
    let differences =
      (key.source.low ^ source.low) & sourceMask.low | (key.source.high ^ source.high) & sourceMask.high
      | (key.destination.low ^ destination.low) & destinationMask.low
      | (key.destination.high ^ destination.high) & destinationMask.high
    return differences == 0 && key.destinationPort >= firstDestinationPort && key.destinationPort <= lastDestinationPort
      && key.sourcePort >= firstSourcePort && key.sourcePort <= lastSourcePort
  }
}

/// The machine has no room for these rules, or cannot express one of them.
public struct RuleCompilationError: Error, CustomStringConvertible, Equatable {
  public let description: String
  public init(_ description: String) { self.description = description }
}
