// What the tests of the catalog share: settings written as literals, chains by name, chance from a seed.

import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Wire

@testable import FunctionCatalog

enum Example {
  static let firewall = """
    default: deny
    rules:
      - {action: deny, from: 10.0.0.66}
      - {action: allow, protocol: tcp, from: 10.0.0.0/8, to-ports: 80-443}
      - {action: allow, protocol: udp, to-ports: 53}
      - {action: allow, protocol: icmp}
    """
  static let nat = """
    pool: [10.2.0.200-10.2.0.201]
    ports: 1024-1535
    """
  static let loadBalancer = """
    services:
      - virtual: 10.1.0.100:80/tcp
        backends: [10.2.0.11:8080, {address: 10.2.0.12:8080, weight: 2}]
      - virtual: 10.1.0.100:53/udp
        backends: [10.2.0.13:53]
    other: forward
    """
  static let ips = """
    rules:
      - drop udp any any -> any 53 (content:"|00 25 4a|"; sid:1;)
      - alert tcp any any -> any any (flags:S; sid:2;)
    """

  static func spec(_ functions: (String, String)...) -> ServiceChainSpec {
    ServiceChainSpec(functions: functions.map { .init(kind: $0.0, settings: Settings(text: $0.1)) })
  }

  static let full = spec(("firewall", firewall), ("nat", nat), ("load-balancer", loadBalancer))
}

extension SettingsReader {
  init(text: String) { self.init(Settings(text: text)) }
}

/// SplitMix64: small, and the same everywhere.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

extension IPv4Address: ExpressibleByUnicodeScalarLiteral {}
extension IPv4Address: ExpressibleByExtendedGraphemeClusterLiteral {}
extension IPv4Address: ExpressibleByStringLiteral {
  public init(stringLiteral text: String) { self = IPv4Address(text)! }
}
