import ControlMessages
import DPDKPorts
import Foundation
import FunctionCatalog
import Testing
import Wire

/// Once per process, on ordinary pages; no port is opened.
enum TestEnvironment {
  nonisolated(unsafe) static let started = try? Environment(
    name: "access-lists", processors: Array(0..<ProcessInfo.processInfo.activeProcessorCount),
    memory: .ordinaryPages(megabytes: 256))
}

/// DPDK's classifier against the linear scan, which is the rules read aloud.
@Suite(.serialized, .enabled(if: TestEnvironment.started != nil, "DPDK cannot be started in this process"))
struct AccessListTests {
  struct Chance: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9e37_79b9_7f4a_7c15
      var z = state
      z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
      z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
      return z ^ (z >> 31)
    }
  }

  /// Addresses and ports of so few that rules and keys meet often.
  static func address(_ isIPv6: Bool, _ chance: inout Chance) -> IPAddress {
    isIPv6
      ? IPAddress(
        high: 0x2001_0db8_0000_0000 | .random(in: 0...3, using: &chance),
        low: [0, 0xffff_0a00_0001, .random(in: 0...3, using: &chance) << 62 | 5].randomElement(using: &chance)!)
      : IPAddress(IPv4Address(0x0a00_0000 | .random(in: 0...15, using: &chance) << [0, 8, 20].randomElement(using: &chance)!))
  }

  static func block(_ isIPv6: Bool, _ chance: inout Chance) -> AddressBlock? {
    let base = address(isIPv6, &chance)
    let length = Int.random(in: 0...(isIPv6 ? 128 : 32), using: &chance)
    let bits = isIPv6 ? length : length + 96
    let high = bits >= 64 ? base.high : bits == 0 ? 0 : base.high & .max << UInt64(64 - bits)
    let low = bits <= 64 ? 0 : base.low & .max << UInt64(128 - bits)
    // A prefix that cuts into ::ffff: would read as another family.
    let masked = IPAddress(high: high, low: low)
    return AddressBlock(isIPv6 && masked.ipv4 != nil ? "::/0" : "\(masked)/\(length)")
  }

  static func ports(_ chance: inout Chance) -> ClosedRange<UInt16> {
    let low = UInt16.random(in: 0...9, using: &chance)
    return [0...65_535, low...low, low...UInt16.random(in: low...9, using: &chance)].randomElement(using: &chance)!
  }

  static func rule(_ chance: inout Chance) -> FirewallRule {
    let transport: FirewallRule.TransportProtocol = [.any, .tcp, .udp, .icmp].randomElement(using: &chance)!
    let isIPv6 = Bool.random(using: &chance)
    let hasPorts = transport == .tcp || transport == .udp
    return FirewallRule(
      .random(using: &chance) ? .allow : .deny, transport, from: .random(using: &chance) ? block(isIPv6, &chance) : nil,
      to: .random(using: &chance) ? block(isIPv6, &chance) : nil, fromPorts: hasPorts ? ports(&chance) : 0...65_535,
      toPorts: hasPorts ? ports(&chance) : 0...65_535, direction: [.forward, .reverse, nil].randomElement(using: &chance)!)
  }

  static func key(_ chance: inout Chance) -> ClassificationKey {
    let isIPv6 = Bool.random(using: &chance)
    return ClassificationKey(
      source: address(isIPv6, &chance), destination: address(isIPv6, &chance), sourcePort: .random(in: 0...10, using: &chance),
      destinationPort: .random(in: 0...10, using: &chance),
      protocolNumber: [1, 6, 17, 47, 58].randomElement(using: &chance)!, isIPv6: isIPv6,
      direction: .random(using: &chance) ? .forward : .reverse)
  }

  @Test(arguments: [0, 1, 2, 3, 10, 50, 200, 1000], 0..<4) func `it decides as the rules read`(count: Int, seed: Int) throws {
    var chance = Chance(state: UInt64(seed * 10_000 + count))
    let rules = (0..<count).map { _ in Self.rule(&chance) }
    let (fast, plain) = (try AccessLists.compiler(rules), RuleClassifier.linearScan(rules))
    var matched = 0
    for _ in 0..<2000 {
      let key = Self.key(&chance)
      let expected = plain.firstMatch(key)
      #expect(fast.firstMatch(key) == expected, "seed \(seed), \(count) rules: \(key)")
      matched += expected == nil ? 0 : 1
    }
    #expect(count < 10 || matched > 200)
  }

  @Test func `ten thousand rules cost a new flow hardly more than ten`() throws {
    func instantPerKey(_ count: Int) throws -> (compiling: Duration, asking: Duration, scanning: Duration) {
      var chance = Chance(state: 9)
      let rules = (0..<count).map { number in
        FirewallRule(
          .deny, .tcp, from: AddressBlock("10.\(number >> 8 & 255).\(number & 255).0/24"),
          toPorts: UInt16(number % 1000)...UInt16(number % 1000 + 50))
      }
      let keys = (0..<1000).map { _ in
        ClassificationKey(
          source: IPAddress(IPv4Address(0x0a00_0000 | .random(in: 0...0xff_ffff, using: &chance))),
          destination: IPAddress("192.0.2.1")!,
          sourcePort: 1, destinationPort: .random(in: 0...1100, using: &chance), protocolNumber: 6, isIPv6: false)
      }
      let clock = ContinuousClock()
      var fast: RuleClassifier?
      let compiling = try clock.measure { fast = try AccessLists.compiler(rules) }
      let plain = RuleClassifier.linearScan(rules)
      var (a, b) = ([Int?](), [Int?]())
      let asking = clock.measure { a = keys.map { fast!.firstMatch($0) } }
      let scanning = clock.measure { b = keys.map { plain.firstMatch($0) } }
      #expect(a == b)
      return (compiling, asking / 1000, scanning / 1000)
    }
    for count in [10, 10_000] {
      let (compiling, asking, scanning) = try instantPerKey(count)
      print("\(count) rules: compiled in \(compiling); a new flow \(asking) with rte_acl, \(scanning) with the linear scan")
    }
  }

  @Test func `the catalog's firewall takes it`() throws {
    let catalog = Catalog.standard(classifyingBy: AccessLists.compiler)
    let rule = Settings(.map([.init("action", Settings(.scalar("allow"))), .init("protocol", Settings(.scalar("tcp")))]))
    let spec = ServiceChainSpec(functions: [
      .init(kind: "firewall", settings: Settings(.map([.init("rules", Settings(.list([rule])))])))
    ])
    #expect(throws: Never.self) { try catalog.makeChain(spec: spec, share: .whole) }
  }
}
