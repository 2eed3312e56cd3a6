import ControlMessages
import Wire

/// One line of an access list: packets that look like this are allowed, or denied.
///
///     - {action: allow, protocol: tcp, from: 10.0.0.0/8, to: 10.1.0.100, to-ports: 80-443, log: true}
///
/// What is left out matches everything, except the direction: a rule speaks of flows that the client side opens
/// (`forward`) unless it says `reverse` or `both`. A rule with an address matches that address family only; a
/// rule with ports names TCP or UDP. With `log`, every decision of the rule is written down.
public struct FirewallRule: Hashable, Sendable {
  public enum Action: UInt8, Hashable, Sendable, BitwiseCopyable { case allow, deny }

  public enum TransportProtocol: Hashable, Sendable {
    case any, tcp, udp
    /// ICMP and ICMPv6.
    case icmp
  }

  public var action: Action
  public var transport: TransportProtocol
  public var source: AddressBlock?
  public var destination: AddressBlock?
  public var sourcePorts: ClosedRange<UInt16>
  public var destinationPorts: ClosedRange<UInt16>
  /// The side whose flows it speaks of; `nil` for both.
  public var direction: Direction?
  public var isLogged: Bool

  public init(
    _ action: Action, _ transport: TransportProtocol = .any, from source: AddressBlock? = nil,
    to destination: AddressBlock? = nil, fromPorts: ClosedRange<UInt16> = 0...65_535,
    toPorts: ClosedRange<UInt16> = 0...65_535, direction: Direction? = .forward, isLogged: Bool = false
  ) {
    self.action = action
    self.transport = transport
    self.source = source
    self.destination = destination
    sourcePorts = fromPorts
    destinationPorts = toPorts
    self.direction = direction
    self.isLogged = isLogged
  }

  /// What a rule means; classifiers are compared with it.
  public func matches(_ key: ClassificationKey) -> Bool {
    if let direction, direction != key.direction { return false }
    switch transport {
    case .any: break
    case .tcp: guard key.protocolNumber == IPProtocol.tcp else { return false }
    case .udp: guard key.protocolNumber == IPProtocol.udp else { return false }
    case .icmp: guard key.protocolNumber == IPProtocol.icmp || key.protocolNumber == IPProtocol.icmpv6 else { return false }
    }
    if let source, (source.base.ipv4 == nil) != key.isIPv6 || !source.contains(key.source) { return false }
    if let destination, (destination.base.ipv4 == nil) != key.isIPv6 || !destination.contains(key.destination) { return false }
    return sourcePorts.contains(key.sourcePort) && destinationPorts.contains(key.destinationPort)
  }
}

extension FirewallRule {
  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["action", "protocol", "from", "to", "from-ports", "to-ports", "direction", "log"])
    self.init(try reader.required("action").choice(["allow": .allow, "deny": .deny]))
    if let value = try reader.optional("protocol") {
      transport = try value.choice(["any": .any, "tcp": .tcp, "udp": .udp, "icmp": .icmp])
    }
    if let value = try reader.optional("from") { source = try value.addressBlock() }
    if let value = try reader.optional("to") { destination = try value.addressBlock() }
    if let source, let destination, (source.base.ipv4 == nil) != (destination.base.ipv4 == nil) {
      throw reader.error("'from' is \(source) and 'to' is \(destination): no packet has one IPv4 and one IPv6 address")
    }
    if let value = try reader.optional("direction") {
      direction = try value.choice(["forward": .some(.forward), "reverse": .reverse, "both": nil])
    }
    isLogged = try reader.optional("log")?.boolean() ?? false
    for (key, isSource) in [("from-ports", true), ("to-ports", false)] {
      guard let value = try reader.optional(key) else { continue }
      guard transport == .tcp || transport == .udp else { throw value.error("ports need 'protocol: tcp' or 'protocol: udp'") }
      let ports = try value.portRange(lowest: 0)
      if isSource { sourcePorts = ports } else { destinationPorts = ports }
    }
  }
}
