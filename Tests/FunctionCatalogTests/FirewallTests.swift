import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

@Suite struct FirewallTests {
  let runtime = TestRuntime(try! Firewall(reader: SettingsReader(text: Example.firewall)))

  @Test func `an allowed connection passes both ways`() {
    let syn = TestPacket.tcp("10.0.0.1:1234", "192.0.2.1:80", .syn, seq: 100)
    #expect(runtime.send(syn) == .forwarded(syn))
    let answer = syn.answered([.syn, .ack], seq: 500)
    #expect(runtime.send(answer) == .forwarded(answer))
    #expect(runtime.send(.tcp("10.0.0.1:1234", "192.0.2.1:80", .ack, seq: 101, ack: 501)).packet != nil)
    #expect(runtime.state(ofFlowOf: syn, as: Firewall.FlowState.self)?.connection.state == .established)
    #expect(runtime.observed("firewall.allowed") == 1)
  }

  @Test func `what the rules deny does not become a flow`() {
    #expect(runtime.send(.tcp("10.0.0.1:1234", "192.0.2.1:22", .syn)) == .dropped("denied-by-rule"))
    #expect(runtime.send(.tcp("10.0.0.66:1234", "192.0.2.1:80", .syn)) == .dropped("denied-by-rule"))
    #expect(runtime.send(.udp("10.0.0.66:1234", "192.0.2.1:53")) == .dropped("denied-by-rule"))
    #expect(runtime.send(.udp("10.0.0.1:1234", "192.0.2.1:54")) == .dropped("denied-by-rule"))
    #expect(runtime.flowCount == 0)
    #expect(runtime.observed("firewall.denied") == 4)
  }

  @Test func `a flow once allowed is not classified again`() {
    let query = TestPacket.udp("10.0.0.1:1234", "192.0.2.1:53")
    for _ in 0..<5 {
      #expect(runtime.send(query).packet != nil)
      #expect(runtime.send(query.answered()).packet != nil)
    }
    #expect(runtime.observed("firewall.allowed") == 1)
    #expect(runtime.flowCount == 1)
  }

  @Test func `TCP that does not begin with a SYN belongs to nothing`() {
    #expect(runtime.send(.tcp("10.0.0.1:1", "192.0.2.1:80", .ack)) == .dropped("not-connection-start"))
    #expect(runtime.send(.tcp("10.0.0.1:1", "192.0.2.1:80", [.syn, .ack])) == .dropped("not-connection-start"))
    #expect(runtime.send(.tcp("10.0.0.1:1", "192.0.2.1:80", [.syn, .fin])) == .dropped("invalid-tcp-flags"))
    #expect(runtime.send(.tcp("10.0.0.1:1", "192.0.2.1:80", [])) == .dropped("invalid-tcp-flags"))
    #expect(runtime.flowCount == 0)
  }

  @Test func `a forged reset is dropped and the connection lives`() {
    let syn = TestPacket.tcp("10.0.0.1:1234", "192.0.2.1:80", .syn, seq: 100)
    _ = runtime.send(syn)
    _ = runtime.send(syn.answered([.syn, .ack], seq: 500))
    _ = runtime.send(.tcp("10.0.0.1:1234", "192.0.2.1:80", .ack, seq: 101, ack: 501))
    #expect(runtime.send(.tcp("192.0.2.1:80", "10.0.0.1:1234", .rst, seq: 9_999_999)) == .dropped("rst-out-of-window"))
    #expect(runtime.send(.tcp("10.0.0.1:1234", "192.0.2.1:80", .ack, seq: 101, ack: 501, payload: [1])).packet != nil)
    #expect(runtime.send(.tcp("192.0.2.1:80", "10.0.0.1:1234", .rst, seq: 501)).packet != nil)
    #expect(runtime.send(.tcp("192.0.2.1:80", "10.0.0.1:1234", .ack, seq: 501, ack: 102)) == .dropped("invalid-tcp-state"))
  }

  @Test func `of ICMP, only an echo request opens a flow`() {
    let ping = TestPacket.icmpEchoRequest("10.0.0.1", "192.0.2.1", id: 7)
    #expect(runtime.send(.icmpEchoReply("192.0.2.1", "10.0.0.1", id: 7)) == .dropped("icmp-not-echo"))
    #expect(runtime.send(.icmp("10.0.0.1", "192.0.2.1", type: 3)) == .dropped("icmp-not-echo"))
    #expect(runtime.send(ping).packet == ping)
    #expect(runtime.send(ping.answered()).packet == ping.answered())
    #expect(runtime.send(.icmp("2001:db8::1", "2001:db8::2", type: 135)) == .dropped("icmp-not-echo"))
    #expect(runtime.send(.icmpEchoRequest("2001:db8::1", "2001:db8::2", id: 1)).packet != nil)
  }

  @Test func `a flow keeps its state when it moves`() {
    let other = TestRuntime(try! Firewall(reader: SettingsReader(text: "default: deny")))
    let syn = TestPacket.tcp("10.0.0.1:1234", "192.0.2.1:80", .syn, seq: 100)
    _ = runtime.send(syn)
    #expect(runtime.migrate(flowOf: syn, to: other))
    #expect(other.send(syn.answered([.syn, .ack], seq: 500)).packet != nil)
    other.crash(recoveringOn: runtime)
    #expect(runtime.send(.tcp("10.0.0.1:1234", "192.0.2.1:80", .ack, seq: 101, ack: 501)).packet != nil)
    #expect(runtime.state(ofFlowOf: syn, as: Firewall.FlowState.self)?.connection.state == .established)
  }

  @Test func `IPv6 has rules of its own`() throws {
    let firewall = try Firewall(
      reader: SettingsReader(
        text: """
          default: deny
          rules:
            - {action: deny, from: 2001:db8:bad::/48}
            - {action: allow, protocol: udp, from: 2001:db8::/32, to: ::/0}
          """))
    let runtime = TestRuntime(firewall)
    #expect(runtime.send(.udp("[2001:db8::1]:1", "[2001:db8::2]:2")).packet != nil)
    #expect(runtime.send(.udp("[2001:db8:bad::1]:1", "[2001:db8::2]:2")) == .dropped("denied-by-rule"))
    #expect(runtime.send(.udp("10.0.0.1:1", "10.0.0.2:2")) == .dropped("denied-by-rule"))
  }

  @Test func `an IPv4 rule does not match an IPv6 packet with IPv4 addresses in it, nor the other way round`() {
    let everythingIPv6 = FirewallRule(.allow, from: AddressBlock("::/0"))
    let everythingIPv4 = FirewallRule(.allow, from: AddressBlock("0.0.0.0/0"))
    var key = ClassificationKey(
      source: IPAddress("10.0.0.1")!, destination: IPAddress("10.0.0.2")!, sourcePort: 1, destinationPort: 2, protocolNumber: 17,
      isIPv6: false)
    #expect(everythingIPv4.matches(key) && !everythingIPv6.matches(key))
    key.isIPv6 = true
    #expect(!everythingIPv4.matches(key) && everythingIPv6.matches(key))
  }

  /// `linearScan` compares words that it has worked out beforehand; `FirewallRule.matches` says what a rule means.
  @Test(arguments: 0..<10) func `scanning prepared rules finds what the rules mean`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    func blocks(_ random: inout SeededGenerator) -> AddressBlock? {
      [nil, "0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0", "2001:db8::/32", "2001:db8::1", "::ffff:0:0/96"]
        .randomElement(using: &random)!.flatMap { AddressBlock($0) }
    }
    func ports(_ random: inout SeededGenerator) -> ClosedRange<UInt16> {
      [0...65_535, 80...80, 0...1_023, 1_024...65_535].randomElement(using: &random)!
    }
    let rules = (0..<40).map { _ in
      FirewallRule(
        Bool.random(using: &random) ? .allow : .deny,
        ([.any, .tcp, .udp, .icmp] as [FirewallRule.TransportProtocol]).randomElement(using: &random)!,
        from: blocks(&random), to: blocks(&random), fromPorts: ports(&random), toPorts: ports(&random),
        direction: [.forward, .reverse, nil].randomElement(using: &random)!)
    }
    let addresses = ["10.1.2.3", "10.1.9.9", "10.9.9.9", "11.0.0.1", "2001:db8::1", "2001:db8:1::1", "2001:db9::1", "::1"]
    var found = 0
    for _ in 0..<5_000 {
      let key = ClassificationKey(
        source: IPAddress(addresses.randomElement(using: &random)!)!,
        destination: IPAddress(addresses.randomElement(using: &random)!)!,
        sourcePort: [0, 80, 1_023, 1_024, 65_535].randomElement(using: &random)!,
        destinationPort: [0, 79, 80, 81, 1_024].randomElement(using: &random)!,
        protocolNumber: [1, 6, 17, 47, 58].randomElement(using: &random)!, isIPv6: Bool.random(using: &random),
        direction: Bool.random(using: &random) ? .forward : .reverse)
      for count in [1, 2, 5, 40] {
        let some = Array(rules.prefix(count))
        let first = some.firstIndex { $0.matches(key) }
        if first != nil { found += 1 }
        #expect(RuleClassifier.linearScan(some).firstMatch(key) == first, "seed \(seed): \(key)")
      }
    }
    #expect(found > 100)
  }

  /// The firewall against the rules read aloud: first match over text, nothing shared with its code.
  @Test(arguments: 0..<20) func `the rules decide as they read`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    struct Plain {
      var allow: Bool, number: UInt8?, network: UInt32, bits: UInt32, low: UInt16, high: UInt16
    }
    let plain = (0..<12).map { _ in
      let number: UInt8? = [nil, 6, 17].randomElement(using: &random)!
      let low = UInt16.random(in: 0...9, using: &random)
      return Plain(
        allow: .random(using: &random), number: number, network: .random(in: 0...15, using: &random),
        bits: .random(in: 24...32, using: &random), low: number == nil ? 0 : low,
        high: number == nil ? 65_535 : .random(in: low...9, using: &random))
    }
    let otherwise = Bool.random(using: &random)
    let rules = plain.map { rule in
      let base = (0x0a00_0000 | rule.network) & UInt32.max << (32 - rule.bits)
      return FirewallRule(
        rule.allow ? .allow : .deny, rule.number == nil ? .any : rule.number == 6 ? .tcp : .udp,
        from: AddressBlock("\(IPv4Address(base))/\(rule.bits)"), toPorts: rule.low...rule.high)
    }
    let firewall = Firewall(rules: rules, otherwise: otherwise ? .allow : .deny)
    for _ in 0..<500 {
      let source = 0x0a00_0000 | UInt32.random(in: 0...15, using: &random)
      let port = UInt16.random(in: 0...9, using: &random)
      let number: UInt8 = Bool.random(using: &random) ? 6 : 17
      var expected = otherwise
      for rule in plain {
        let isInBlock = (0..<rule.bits).allSatisfy { (source ^ (0x0a00_0000 | rule.network)) >> (31 - $0) & 1 == 0 }
        if isInBlock, rule.number == nil || rule.number == number, port >= rule.low, port <= rule.high {
          expected = rule.allow
          break
        }
      }
      let from = Endpoint(IPv4Address(source), port: 1)
      let to = Endpoint(IPv4Address("192.0.2.1"), port: port)
      let packet = number == 6 ? TestPacket.tcp(from, to, .syn) : .udp(from, to)
      #expect(TestRuntime(firewall).send(packet) == (expected ? .forwarded(packet) : .dropped("denied-by-rule")), "seed \(seed)")
    }
  }

  @Test(arguments: [
    (
      "defualt: deny",
      "line 1: defualt: unknown key 'defualt'; did you mean 'default'? (known: default, rules, established, half-open)"
    ),
    ("half-open: {total: 0}", "line 1: half-open.total: 0 is out of range; it must be from 1 to 16777216"),
    ("rules:\n  - {action: allow, direction: up}", "line 2: rules[0].direction: 'up' is not one of: forward, reverse, both"),
    ("default: maybe", "line 1: default: 'maybe' is not one of: allow, deny"),
    ("rules:\n  - {from: 10.0.0.0/8}", "line 2: rules[0]: 'action' is missing"),
    (
      "rules:\n  - {action: allow, from: 10.0.0.1/8}",
      "line 2: rules[0].from: '10.0.0.1/8' is not an address block such as 10.0.0.0/8 (with no bits set behind the prefix)"
    ),
    ("rules:\n  - {action: allow, to-ports: 80}", "line 2: rules[0].to-ports: ports need 'protocol: tcp' or 'protocol: udp'"),
    (
      "rules:\n  - {action: allow, protocol: tcp, to-ports: 90-80}",
      "line 2: rules[0].to-ports: '90-80' is not a port or a range of ports such as 1024-65535 (from 0)"
    ),
    (
      "rules:\n  - {action: allow, from: 10.0.0.0/8, to: 2001:db8::/32}",
      "line 2: rules[0]: 'from' is 10.0.0.0/8 and 'to' is 2001:db8::/32: no packet has one IPv4 and one IPv6 address"
    ),
  ])
  func `a wrong setting is refused with its line`(text: String, message: String) {
    #expect(throws: SettingsError.self) { try Firewall(reader: SettingsReader(text: text)) }
    do throws(SettingsError) { _ = try Firewall(reader: SettingsReader(text: text)) } catch { #expect("\(error)" == message) }
  }
}
