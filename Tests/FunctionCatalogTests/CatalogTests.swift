import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

@Suite struct CatalogTests {
  @Test func `the standard catalog has the functions of the project`() {
    #expect(Catalog.standard.names.sorted() == ["firewall", "ips", "load-balancer", "nat", "packet-counter", "rate-limiter"])
  }

  @Test func `a frequent chain is one stage, and others are made of what there is`() throws {
    #expect(try names(Example.full) == ["firewall-nat-load-balancer"])
    #expect(try names(Example.full, fusing: false) == ["firewall", "nat", "load-balancer"])
    let counter = ("packet-counter", "")
    #expect(
      try names(Example.spec(counter, ("firewall", Example.firewall), ("nat", Example.nat), counter))
        == ["packet-counter", "firewall-nat", "packet-counter"])
    #expect(try names(Example.spec(("nat", Example.nat), ("firewall", Example.firewall))) == ["nat", "firewall"])
  }

  private func names(_ spec: ServiceChainSpec, fusing: Bool = true) throws -> [String] {
    try Catalog.standard.makeChain(spec: spec, share: .whole, fusing: fusing).stages.map(\.name)
  }

  @Test func `firewall, NAT and load balancer together need 64 bytes per flow`() throws {
    for fusing in [true, false] {
      #expect(try Catalog.standard.makeChain(spec: Example.full, share: .whole, fusing: fusing).stateSize == 64)
    }
  }

  @Test func `every drop reason of a chain has its own name and number`() throws {
    let chain = try Catalog.standard.makeChain(spec: Example.full, share: .whole)
    #expect(Set(chain.dropReasons.map(\.name)).count == chain.dropReasons.count)
    #expect(Set(chain.dropReasons.map(\.reason)).count == chain.dropReasons.count)
    #expect(chain.dropReasons.allSatisfy { $0.sentence.hasSuffix(".") })
  }

  // MARK: Complaints

  @Test func `an unknown function is refused with its line and the nearest name`() {
    let spec = ServiceChainSpec(functions: [.init(kind: "firewal", settings: Settings(.map([]), line: 7))])
    let error = #expect(throws: SettingsError.self) { try Catalog.standard.validate(spec) }
    #expect(
      error?.description == "line 7: chain[0].firewal: unknown network function 'firewal'; did you mean 'firewall'? "
        + "(known: firewall, nat, load-balancer, ips, packet-counter, rate-limiter)")
  }

  @Test func `a wrong setting is named by its place in the chain`() {
    let spec = Example.spec(("firewall", Example.firewall), ("nat", "pool: [10.0.0.300]"))
    let error = #expect(throws: SettingsError.self) { try Catalog.standard.validate(spec) }
    #expect(error?.path == "chain[1].nat.pool[0]" && error?.line == 1)
  }

  @Test func `more runtimes than ports are refused`() {
    let spec = Example.spec(("nat", "pool: 10.2.0.1\nports: 1024-1033"))
    #expect(throws: Never.self) { try Catalog.standard.makeChain(spec: spec, share: RuntimeShare(index: 4, count: 5)) }
    let error = #expect(throws: SettingsError.self) {
      try Catalog.standard.makeChain(spec: spec, share: RuntimeShare(index: 0, count: 6))
    }
    #expect(error?.message == "10 ports are too few for 6 runtimes: each needs at least 2")
  }

  @Test func `no settings, however odd, stop the program`() {
    var random = SeededGenerator(seed: 7)
    let scalars = [
      "", "0", "-1", "tcp", "10.0.0.1", "10.0.0.0/8", "::/0", "1-2", "a:b:c", "999999999999999999999", "10.0.0.1:80/tcp", "allow",
      "both",
      "maglev", "120s", "true", "endpoint-independent", "re-evaluate", "65536",
    ]
    let keys = [
      "default", "rules", "pool", "ports", "mappings", "services", "other", "virtual", "backends", "action", "from", "to",
      "address", "direction", "log", "established", "half-open", "total", "per-client", "filtering", "hold", "policy",
      "per-second",
      "burst", "protocol", "to-ports", "weight",
    ]
    func odd(_ depth: Int) -> Settings {
      switch Int.random(in: 0..<(depth > 3 ? 1 : 3), using: &random) {
      case 0: Settings(.scalar(scalars.randomElement(using: &random)!))
      case 1: Settings(.list((0..<Int.random(in: 0..<4, using: &random)).map { _ in odd(depth + 1) }))
      default:
        Settings(
          .map(
            (0..<Int.random(in: 0..<4, using: &random)).map { _ in .init(keys.randomElement(using: &random)!, odd(depth + 1)) }))
      }
    }
    var refused = 0
    for _ in 0..<4000 {
      let spec = ServiceChainSpec(functions: [
        .init(kind: Catalog.standard.names.randomElement(using: &random)!, settings: odd(0))
      ])
      do { try Catalog.standard.validate(spec) } catch { refused += 1 }
    }
    #expect(refused > 2000)
  }

  // MARK: Others' functions

  struct Reflector: NetworkFunction {
    typealias FlowState = Nothing
    typealias SharedState = Nothing
    func makeFlowState() -> Nothing { Nothing() }
    func process(_ frame: inout Frame, flow: inout Nothing, shared: inout Nothing) -> Verdict { .drop(.noRoute) }
  }

  @Test func `a third party's function joins in one line`() throws {
    var catalog = Catalog.standard
    catalog.register("black-hole") { reader throws(SettingsError) in Reflector() }
    let runtime = TestRuntime(
      try catalog.makeChain(spec: Example.spec(("packet-counter", ""), ("black-hole", "")), share: .whole))
    #expect(runtime.send(.udp("10.0.0.1:1", "10.0.0.2:2")) == .dropped("no-route"))
  }

  @Test func `a replaced function is really replaced, also in chains that are compiled as one`() throws {
    var catalog = Catalog.standard
    catalog.register("nat", stage: { _, share in ServiceStage("nat", Reflector(), share: share) })
    let chain = try catalog.makeChain(spec: Example.full, share: .whole)
    #expect(chain.stages.map(\.name) == ["firewall", "nat", "load-balancer"])
    #expect(TestRuntime(chain).send(.udp("10.0.0.1:1", "10.0.0.2:53")) == .dropped("no-route"))
  }

  // MARK: Fused and not

  @Test(
    arguments: [
      ["firewall", "nat", "load-balancer"], ["firewall", "nat"], ["firewall", "load-balancer"], ["nat", "load-balancer"],
      ["firewall", "nat", "ips"],
    ], 0..<3)
  func `a chain compiled as one does what its functions do one by one`(kinds: [String], seed: Int) throws {
    let texts = ["firewall": Example.firewall, "nat": Example.nat, "load-balancer": Example.loadBalancer, "ips": Example.ips]
    let spec = ServiceChainSpec(functions: kinds.map { .init(kind: $0, settings: Settings(text: texts[$0]!)) })
    let fused = TestRuntime(try Catalog.standard.makeChain(spec: spec, share: .whole))
    let separate = TestRuntime(try Catalog.standard.makeChain(spec: spec, share: .whole, fusing: false))
    #expect(fused.chain.stages.count == 1 && separate.chain.stages.count == kinds.count)

    var conversation = Conversation(seed: UInt64(seed))
    var outcomes: Set<String> = []
    for step in 0..<2500 {
      let packet = conversation.next()
      let (a, b) = (fused.send(packet), separate.send(packet))
      guard a == b else {
        Issue.record("seed \(seed) step \(step): \(packet) became \(a) fused and \(b) separately")
        return
      }
      outcomes.insert(a.reason ?? "forwarded")
      if let sent = a.packet {
        #expect(sent.checksumsHold, "seed \(seed) step \(step): \(packet) became \(sent)")
        conversation.heard(sent)
      }
      if step % 40 == 0 { #expect(fused.expire(flowOf: packet) == separate.expire(flowOf: packet)) }
      #expect(step % 100 > 0 || fused.chain.observe() == separate.chain.observe())
    }
    #expect(outcomes.contains("forwarded") && outcomes.count > 2, "\(outcomes)")
  }
}

/// Packets as a network sees them: clients that open, servers that answer what they got, and noise.
struct Conversation {
  var random: SeededGenerator
  /// Packets that left the chain, to be answered.
  var heardPackets: [TestPacket] = []
  var said: [TestPacket] = []

  init(seed: UInt64) { random = SeededGenerator(seed: seed) }

  mutating func heard(_ packet: TestPacket) {
    heardPackets.append(packet)
    if heardPackets.count > 50 { heardPackets.removeFirst(10) }
  }

  mutating func next() -> TestPacket {
    let packet = draw()
    said.append(packet)
    if said.count > 50 { said.removeFirst(10) }
    return packet
  }

  private mutating func draw() -> TestPacket {
    let flags: [TCPFlags] = [.syn, [.syn, .ack], .ack, [.fin, .ack], .rst, [.psh, .ack], [.syn, .fin], []]
    let client = Endpoint(
      IPv4Address(0x0a00_0000 + .random(in: 60..<70, using: &random)), port: .random(in: 1000..<1010, using: &random))
    let server = Endpoint(
      Bool.random(using: &random) ? IPv4Address(0x0a01_0064) : IPv4Address(0xc000_0201),
      port: ([80, 443, 53, 22] as [UInt16]).randomElement(using: &random)!)
    let payload = (0..<Int.random(in: 0..<40, using: &random)).map { UInt8(truncatingIfNeeded: $0 &* 37) }
    let seq = UInt32.random(in: 0..<5, using: &random)
    switch Int.random(in: 0..<14, using: &random) {
    case 0..<4: return .tcp(client, server, .syn, seq: seq)
    case 4: return .tcp(client, server, flags.randomElement(using: &random)!, seq: seq, ack: seq, payload: payload)
    case 5: return .udp(client, server, payload: payload)
    case 6: return .icmpEchoRequest(client, server, id: client.port, payload: payload)
    case 7: return TestPacket.udpWithoutChecksum(client, server, payload: payload).vlan(9)
    case 8:
      return [.udp("[2001:db8::1]:1", "[2001:db8::2]:53"), .icmp("10.0.0.61", "192.0.2.1", type: 11)].randomElement(
        using: &random)!
    case 9: return said.randomElement(using: &random) ?? .tcp(client, server, .syn)
    default:
      guard let packet = heardPackets.randomElement(using: &random), packet.protocolNumber != 1 || packet.bytes[34] == 8 else {
        return .tcp(client, server, .syn)
      }
      let isSYN = packet.tcpFlags == .syn
      return packet.answered(
        isSYN ? [.syn, .ack] : flags.randomElement(using: &random)!, seq: seq, payload: isSYN ? [] : payload)
    }
  }
}
