import ControlMessages
import FixedContainers
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// Rules that change while flows live, rules that write down what they decide, and limits on what is half open.
@Suite struct FirewallRuleChangeTests {
  static func ruleSet(_ text: String) -> FirewallRuleSet {
    try! FirewallRuleSet(reader: SettingsReader(text: text), compiler: { RuleClassifier.linearScan($0) })
  }

  static func runtime(_ text: String) -> TestRuntime { TestRuntime(try! Firewall(reader: SettingsReader(text: text))) }

  let query = TestPacket.udp("10.0.0.1:1234", "192.0.2.1:53")
  let other = TestPacket.udp("10.0.0.2:1234", "192.0.2.1:53")

  // MARK: Replacement

  @Test func `flows keep their verdict when the rules are replaced`() {
    let runtime = Self.runtime("default: allow")
    #expect(runtime.send(query).packet != nil)
    runtime.chain.betweenBursts(Firewall.self) { firewall, shared in firewall.replaceRules(Self.ruleSet("default: deny"), shared: &shared) }
    #expect(runtime.send(query).packet != nil && runtime.send(query.answered()).packet != nil)
    #expect(runtime.send(other) == .dropped("denied-by-rule"))
    #expect(runtime.observed("firewall.rules.replaced") == 1)
  }

  @Test func `or are asked about once more, as their opener's packet, whoever sends next`() {
    let runtime = Self.runtime("established: re-evaluate\ndefault: allow")
    let third = TestPacket.udp("10.0.0.3:1234", "192.0.2.1:53")
    for packet in [query, other, third] { #expect(runtime.send(packet).packet != nil) }
    let stricter = Self.ruleSet("default: deny\nrules:\n  - {action: allow, protocol: udp, from: 10.0.0.1, to-ports: 53}")
    runtime.chain.betweenBursts(Firewall.self) { firewall, shared in firewall.replaceRules(stricter, shared: &shared) }
    #expect(runtime.send(query.answered()).packet != nil)
    for _ in 0..<3 {
      #expect(runtime.send(other.answered()) == .dropped("denied-by-rule"))
      #expect(runtime.send(other) == .dropped("denied-by-rule"))
      #expect(runtime.send(query).packet != nil)
    }
    #expect(runtime.observed("firewall.revoked") == 1, "a denied flow is not classified per packet")
    #expect(runtime.observed("firewall.allowed") == 4)

    // The rules change back, and the flow is where it was.
    runtime.chain.betweenBursts(Firewall.self) { firewall, shared in firewall.replaceRules(Self.ruleSet("default: allow"), shared: &shared) }
    #expect(runtime.send(other.answered()).packet != nil && runtime.send(third).packet != nil)
  }

  @Test func `a connection goes on where it was when new rules still allow it`() {
    let runtime = Self.runtime("established: re-evaluate\ndefault: allow")
    let syn = TestPacket.tcp("10.0.0.1:1234", "192.0.2.1:80", .syn, seq: 100)
    runtime.send(syn)
    runtime.send(syn.answered([.syn, .ack], seq: 500))
    runtime.chain.betweenBursts(Firewall.self) { firewall, shared in firewall.replaceRules(Self.ruleSet("default: allow"), shared: &shared) }
    #expect(runtime.send(.tcp("10.0.0.1:1234", "192.0.2.1:80", .ack, seq: 101, ack: 501)).packet != nil)
    #expect(runtime.state(ofFlowOf: syn, as: Firewall.FlowState.self)?.connection.state == .established)
  }

  @Test func `a flow that arrives is asked about where rules are looked at again`() {
    let here = TestRuntime(try! Firewall(reader: SettingsReader(text: "established: re-evaluate\ndefault: allow")))
    let there = TestRuntime(try! Firewall(reader: SettingsReader(text: "established: re-evaluate\ndefault: deny")))
    let lenient = TestRuntime(try! Firewall(reader: SettingsReader(text: "default: deny")))
    here.send(query)
    here.send(other)
    #expect(here.migrate(flowOf: query, to: there) && here.migrate(flowOf: other, to: lenient))
    #expect(there.send(query) == .dropped("denied-by-rule"))
    #expect(lenient.send(other).packet != nil)
  }

  @Test func `rule sets can be replaced more often than they can be numbered`() {
    let firewall = try! Firewall(reader: SettingsReader(text: "established: re-evaluate\ndefault: allow"))
    var shared = firewall.makeSharedState(for: .whole)
    var seen: Set<UInt16> = []
    for _ in 0..<40_000 {
      firewall.replaceRules(firewall.ruleSet, shared: &shared)
      seen.insert(shared.generation)
    }
    #expect(seen.min() == 1 && seen.max() == Firewall.RuleGeneration.last)
  }

  // MARK: Log

  @Test func `a rule with a log writes down what it decides, in a ring that does not grow`() throws {
    let runtime = Self.runtime(
      "rules:\n  - {action: allow, protocol: tcp}\n  - {action: deny, protocol: udp, log: true}")
    var ring: RingBuffer<FirewallLogEntry>?
    runtime.chain.betweenBursts(Firewall.self) { _, shared in ring = shared.log.entries }
    runtime.now = Tick(milliseconds: 77)
    runtime.send(query)
    let entry = try #require(ring?.take())
    #expect(entry.time == Tick(milliseconds: 77) && entry.rule == 1 && entry.action == .deny)
    #expect(entry.key.source == query.source.address && entry.key.destinationPort == 53)
    #expect(ring?.take() == nil)
    for _ in 0..<5000 { runtime.send(query) }
    #expect(runtime.observed("firewall.log.lost") == 5000 - 4096)
    #expect(runtime.observed("firewall.log.written") == 4097)
  }

  // MARK: Directions

  @Test func `a rule speaks of flows that the client side opens, unless it says otherwise`() {
    let inbound = TestPacket.udp("192.0.2.1:53", "10.0.0.1:1234")
    let open = { (text: String) in TestRuntime(try! Firewall(reader: SettingsReader(text: text))) }
    #expect(open("rules:\n  - {action: allow}").send(inbound, from: .reverse) == .dropped("denied-by-rule"))
    let both = open("rules:\n  - {action: allow, direction: both}")
    #expect(both.send(inbound, from: .reverse).packet != nil && both.send(query).packet != nil)
    let reverse = open("rules:\n  - {action: allow, direction: reverse}")
    #expect(reverse.send(inbound, from: .reverse).packet != nil && reverse.send(other) == .dropped("denied-by-rule"))
    #expect(reverse.send(inbound.answered()).packet != nil)
  }

  @Test func `a connection opened from the server side is tracked as any other`() {
    let runtime = TestRuntime(try! Firewall(reader: SettingsReader(text: "rules:\n  - {action: allow, direction: reverse}")))
    let syn = TestPacket.tcp("192.0.2.1:80", "10.0.0.1:1234", .syn, seq: 100)
    #expect(runtime.send(syn, from: .reverse).packet != nil)
    #expect(runtime.send(.tcp("192.0.2.1:80", "10.0.0.1:1234", .ack, seq: 101), from: .reverse) == .dropped("invalid-tcp-state"))
    #expect(runtime.send(syn.answered([.syn, .ack], seq: 500)).packet != nil)
    #expect(runtime.send(.tcp("192.0.2.1:80", "10.0.0.1:1234", .ack, seq: 101, ack: 501)).packet != nil)
    #expect(runtime.state(ofFlowOf: syn, as: Firewall.FlowState.self)?.connection.state == .established)
    #expect(runtime.send(.tcp("10.0.0.1:1234", "192.0.2.1:80", .rst, seq: 9_999_999)) == .dropped("rst-out-of-window"))
  }

  @Test func `of a flow without connections it is known whether it was answered`() {
    let runtime = Self.runtime("default: allow")
    let code = { (packet: TestPacket) in
      runtime.state(ofFlowOf: packet, as: Firewall.FlowState.self).flatMap { PseudoState(rawValue: $0.connection.stateCode) }
    }
    for packet in [query, .icmpEchoRequest("10.0.0.1", "192.0.2.1", id: 7)] {
      runtime.send(packet)
      runtime.send(packet)
      #expect(code(packet) == .unanswered)
      runtime.send(packet.answered())
      #expect(code(packet) == .answered)
    }
  }

  // MARK: Half-open connections

  static func syn(_ client: UInt32, port: UInt16 = 1000) -> TestPacket {
    .tcp(Endpoint(IPv4Address(0x0a00_0000 + client), port: port), "192.0.2.1:80", .syn, seq: 100)
  }

  @Test func `a client may have so many half-open connections, and all together so many`() {
    let runtime = Self.runtime("default: allow\nhalf-open: {total: 5, per-client: 3}")
    for port in UInt16(1)...3 { #expect(runtime.send(Self.syn(1, port: port)).packet != nil) }
    #expect(runtime.send(Self.syn(1, port: 4)) == .dropped("half-open-limit"))
    for port in UInt16(1)...2 { #expect(runtime.send(Self.syn(2, port: port)).packet != nil) }
    #expect(runtime.send(Self.syn(3)) == .dropped("half-open-limit"))
    #expect(runtime.flowCount == 5 && runtime.observed("firewall.half-open") == 5)

    // One is completed, one refused, one given up: three may begin.
    let syn = Self.syn(1, port: 1)
    runtime.send(syn.answered([.syn, .ack], seq: 500))
    #expect(runtime.observed("firewall.half-open") == 5, "answered and not completed")
    runtime.send(.tcp(syn.source, syn.destination, .ack, seq: 101, ack: 501))
    runtime.send(.tcp("192.0.2.1:80", Self.syn(1, port: 2).source, [.rst, .ack], seq: 0, ack: 101))
    runtime.expire(flowOf: Self.syn(2, port: 1))
    #expect(runtime.observed("firewall.half-open") == 2)
    for client in UInt32(4)...6 { #expect(runtime.send(Self.syn(client)).packet != nil) }
    #expect(runtime.observed("firewall.half-open.refused") == 2)
    runtime.expireAll()
    #expect(runtime.observed("firewall.half-open") == 0)
  }

  @Test(arguments: 0..<4) func `the count of what is half open is right whatever happens to the flows`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let firewall = try! Firewall(reader: SettingsReader(text: "default: allow\nhalf-open: {per-client: 4}"))
    var runtimes = (0..<3).map { _ in TestRuntime(firewall) }
    var known: [TestPacket: Int] = [:]
    for step in 0..<3000 {
      let packet = Self.syn(.random(in: 0..<10, using: &random), port: .random(in: 1...12, using: &random))
      let target = Int.random(in: 0..<3, using: &random)
      let at = known[packet] ?? target
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<40: if runtimes[at].send(packet).packet != nil { known[packet] = at }
      case 40..<60: runtimes[at].send(packet.answered([.syn, .ack], seq: 500))
      case 60..<75: runtimes[at].send(.tcp(packet.source, packet.destination, .ack, seq: 101, ack: 501))
      case 75..<85: if runtimes[at].expire(flowOf: packet) { known[packet] = nil }
      case 85..<98:
        if at != target, runtimes[at].migrate(flowOf: packet, to: runtimes[target]) { known[packet] = target }
      default:
        let replica = (at + 1) % 3
        runtimes[at].crash(recoveringOn: runtimes[replica])
        runtimes[at] = TestRuntime(firewall)
        for (key, home) in known where home == at { known[key] = replica }
      }
      guard step % 25 == 0 else { continue }
      for (index, runtime) in runtimes.enumerated() {
        let halfOpen = known.count { packet, home in
          home == index && runtime.state(ofFlowOf: packet, as: Firewall.FlowState.self)!.connection.isHalfOpen
        }
        #expect(runtime.observed("firewall.half-open") == UInt64(halfOpen), "seed \(seed) step \(step)")
      }
    }
  }
}
