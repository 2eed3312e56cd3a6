import CChain
import Configuration
import ControlMessages
import Dataplane
import FunctionCatalog
import NetworkFunctions

/// A chain that is measured: its configuration for the worker, and the same for the C loop where that has the functions.
///
/// Four services, so that which backend a flow gets is known beforehand (three of each four are being drained): frames of the
/// server side can be prepared, and the choice costs what it costs.
struct ChainUnderTest {
  let name: String
  /// Names in the catalog.
  let functions: [String]
  var isFused = true

  static let whole = ChainUnderTest(name: "fw-nat-lb", functions: ["firewall", "nat", "load-balancer"])
  /// What any chain from a configuration gets: a stage per function.
  static let perFunction = ChainUnderTest(name: "fw-nat-lb-per-function", functions: whole.functions, isFused: false)
  static let singleFunctions = [
    ChainUnderTest(name: "fw", functions: ["firewall"]), ChainUnderTest(name: "nat", functions: ["nat"]),
    ChainUnderTest(name: "lb", functions: ["load-balancer"]),
  ]
  static let intrusionPrevention = ChainUnderTest(name: "fw-nat-ips", functions: ["firewall", "nat", "ips"])

  static let firstVirtual: UInt32 = 0x0a01_ff64  // 10.1.255.100
  static let firstBackend: UInt32 = 0x0a02_000b  // 10.2.0.11
  static let firstExternal: UInt32 = 0x0a02_0100  // 10.2.1.0
  static let services: UInt32 = 4
  static let externals: UInt32 = 64
  static let port: UInt16 = 80

  /// What the chain needs that the catalog does not have.
  var missing: [String] { functions.filter { !Catalog.standard.names.contains($0) } }

  /// Whether it matters what is in packets, and that none is sent again.
  var readsPayloads: Bool { functions.contains("ips") }

  // MARK: For the worker

  /// - Parameter mappings: clients' ports that the NAT can map.
  func makeChain(mappings: Int, share: RuntimeShare = .whole) throws -> ServiceChain {
    let spec = try chainSpec(YAMLFile.settings(text: text(mappings), name: name), file: name)
    return try Catalog.standard.makeChain(spec: spec, share: share, fusing: isFused)
  }

  private func text(_ mappings: Int) -> String {
    "chain:\n" + functions.map { Self.settings(of: $0, mappings) }.joined(separator: "\n")
  }

  private static func settings(of function: String, _ mappings: Int) -> String {
    switch function {
    case "firewall":
      return """
          - firewall:
              default: deny
              rules:
                - {action: deny, protocol: tcp, from: 10.9.0.0/16, to: 10.0.0.0/8}
                - {action: deny, protocol: udp, from: 10.0.0.0/8, to: 10.0.0.0/8}
                - {action: allow, protocol: tcp, from: 10.0.0.0/8, to: 10.1.255.100/30, to-ports: 80}
        """
    case "nat":
      return """
          - nat:
              pool: 10.2.1.0/26
              mappings: \(mappings)
        """
    case "load-balancer":
      let services = (0..<services).map { service in
        let backends = (0..<4).map { "{address: 10.2.0.\(11 + $0):80, weight: \($0 == service ? 1 : 0)}" }
        return "        - {virtual: 10.1.255.\(100 + service):80/tcp, backends: [\(backends.joined(separator: ", "))]}"
      }
      return "  - load-balancer:\n      services:\n" + services.joined(separator: "\n")
    case "ips":
      return "  - ips:\n      rules: |\n" + IntrusionRules.lines.map { "        " + $0 }.joined(separator: "\n")
    default: return "  - \(function)"
    }
  }

  // MARK: For the C loop

  /// Whether the C loop has this chain.
  var isInC: Bool {
    [["firewall", "nat", "load-balancer"], ["firewall", "nat"], ["firewall"], ["nat"], ["load-balancer"]].contains(functions)
  }

  func makeCLoop(rules: FlowRules, mappings: Int, address: FabricAddress, now: UInt64) -> OpaquePointer {
    let access = [
      cchain_rule(
        allows: false, protocol: 6, from: 0x0a09_0000, from_mask: 0xffff_0000, to: 0x0a00_0000, to_mask: 0xff00_0000,
        first_port: 0, last_port: 65_535),
      cchain_rule(
        allows: false, protocol: 17, from: 0x0a00_0000, from_mask: 0xff00_0000, to: 0x0a00_0000, to_mask: 0xff00_0000,
        first_port: 0, last_port: 65_535),
      cchain_rule(
        allows: true, protocol: 6, from: 0x0a00_0000, from_mask: 0xff00_0000, to: Self.firstVirtual, to_mask: 0xffff_fffc,
        first_port: 80, last_port: 80),
    ]
    let services = (0..<Self.services).map {
      cchain_service(address: Self.firstVirtual + $0, port: Self.port, protocol: 6, first_backend: $0 * 4, backend_count: 4)
    }
    let backends = (0..<Self.services).flatMap { service in
      (0..<4).map { cchain_backend(address: Self.firstBackend + $0, port: Self.port, weight: $0 == service ? 1 : 0) }
    }
    let pool = (0..<Self.externals).map { Self.firstExternal + $0 }
    var settings = cchain_settings()
    settings.firewall = functions.contains("firewall")
    settings.nat = functions.contains("nat")
    settings.balancer = functions.contains("load-balancer")
    settings.capacity = UInt64(rules.capacity)
    settings.timeouts = (rules.timeouts[0], rules.timeouts[1], rules.timeouts[2])
    settings.client_mac = address.address(of: .client).value
    settings.server_mac = address.address(of: .server).value
    settings.mappings = UInt32(mappings)
    (settings.first_port, settings.last_port) = (1_024, 65_535)
    return access.withUnsafeBufferPointer { access in
      services.withUnsafeBufferPointer { services in
        backends.withUnsafeBufferPointer { backends in
          pool.withUnsafeBufferPointer { pool in
            (settings.rules, settings.rule_count) = (access.baseAddress, UInt32(access.count))
            (settings.services, settings.service_count) = (services.baseAddress, UInt32(services.count))
            (settings.backends, settings.backend_count) = (backends.baseAddress, UInt32(backends.count))
            (settings.pool, settings.pool_count) = (pool.baseAddress, UInt32(pool.count))
            return cchain_make(&settings, now)
          }
        }
      }
    }
  }
}
