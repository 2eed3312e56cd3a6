import ControlMessages
import FixedContainers
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// Who may come in, how long an endpoint rests, how much one client may have, and what is written down (RFC 4787,
/// RFC 6888).
@Suite struct NATOutsideTests {
  static func runtime(_ more: String) -> TestRuntime {
    TestRuntime(try! NAT(reader: SettingsReader(text: "pool: 10.2.0.200\nports: 1024-1535\n\(more)")))
  }

  // MARK: Filtering (RFC 4787 §5)

  @Test(arguments: [
    ("address-and-port-dependent", false, false), ("address-dependent", true, false), ("endpoint-independent", true, true),
  ])
  func `who may come in is a setting`(filtering: String, knownAddress: Bool, stranger: Bool) {
    let runtime = Self.runtime("filtering: \(filtering)")
    let sent = runtime.send(.udp("10.0.0.1:1100", "192.0.2.1:53")).packet!
    #expect(runtime.send(sent.answered()).packet != nil, "an answer always")
    for (from, isAllowed) in [("192.0.2.1:54" as Endpoint, knownAddress), ("198.51.100.9:99", stranger)] {
      let outcome = runtime.send(.udp(from, sent.source), from: .reverse)
      #expect(outcome == (isAllowed ? .forwarded(.udp(from, "10.0.0.1:1100")) : .dropped("nat-filtered")))
      guard isAllowed else { continue }
      #expect(runtime.send(.udp("10.0.0.1:1100", from)).packet?.source == sent.source, "the mapping is the same one")
    }
    #expect(runtime.send(.udp("192.0.2.1:53", "10.2.0.200:1500"), from: .reverse) == .dropped("nat-filtered"), "nobody's port")
    #expect(runtime.observed("nat.mappings") == 1)
    runtime.expireAll()
    #expect(runtime.send(.udp("198.51.100.9:99", sent.source), from: .reverse) == .dropped("nat-filtered"))
  }

  @Test(arguments: ["address-dependent", "endpoint-independent"]) func `two clients of one NAT meet at their external endpoints`(
    filtering: String
  ) throws {
    let nat = try NAT(reader: SettingsReader(text: "pool: 10.2.0.200\nports: 1024-1535\nfiltering: \(filtering)"))
    let runtime = TestRuntime(nat)
    let b = try #require(runtime.send(.udp("10.0.0.2:1200", "192.0.2.1:53")).packet).source
    let a = try #require(runtime.send(.udp("10.0.0.1:1100", "192.0.2.1:53")).packet).source
    if filtering == "address-dependent" { runtime.send(.udp("10.0.0.2:1200", a)) }  // b has spoken to a's address
    let out = try #require(runtime.send(.udp("10.0.0.1:1100", b, payload: [7])).packet)
    #expect(out == .udp(a, b, payload: [7]))
    #expect(nat.serverSideEndpoints?.addresses.contains(b.address.ipv4!) == true)
    // What the platform does then: in again as from outside. The client sees the other's external endpoint (REQ-9).
    #expect(runtime.send(out, from: .reverse) == .forwarded(.udp(a, "10.0.0.2:1200", payload: [7])))
    let back = try #require(runtime.send(.udp("10.0.0.2:1200", a, payload: [8])).packet)
    #expect(runtime.send(back, from: .reverse) == .forwarded(.udp(b, "10.0.0.1:1100", payload: [8])))
  }

  // MARK: Ports

  @Test func `the two ports of a pair stay neighbours`() {
    let runtime = Self.runtime("")
    for (even, odd): (UInt16, UInt16) in [(5000, 5001), (40_000, 40_001), (1300, 1301)] {
      let rtp = runtime.send(.udp(Endpoint(IPv4Address("10.0.0.1"), port: even), "192.0.2.1:53")).packet!.source
      let rtcp = runtime.send(.udp(Endpoint(IPv4Address("10.0.0.1"), port: odd), "192.0.2.1:53")).packet!.source
      #expect(rtp.port % 2 == 0 && rtcp.port == rtp.port + 1 && rtcp.address == rtp.address)
    }
  }

  @Test func `an endpoint rests before another client gets it, and its own has it back at once`() {
    let runtime = Self.runtime("hold: 120s")
    let first = TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53")
    let other = TestPacket.udp("10.0.0.2:1100", "192.0.2.1:53")
    func at(_ seconds: UInt64, _ packet: TestPacket) -> UInt16? {
      runtime.now = Tick(milliseconds: seconds * 1000)
      return runtime.send(packet).packet?.source.port
    }
    #expect(at(0, first) == 1100)
    runtime.expire(flowOf: first)
    #expect(at(10, other) != 1100)
    runtime.expire(flowOf: other)
    #expect(at(20, first) == 1100, "it is the client's own")
    runtime.expire(flowOf: first)
    #expect(at(139, other) != 1100)
    #expect(at(140, .udp("10.0.0.4:1100", "192.0.2.1:53")) == 1100)
  }

  // MARK: Limits and log

  @Test func `a client may have so many mappings, others are not concerned`() {
    let runtime = Self.runtime("per-client: 3")
    func send(_ client: UInt32, _ port: UInt16) -> TestRuntime.Outcome {
      runtime.send(.udp(Endpoint(IPv4Address(0x0a00_0000 + client), port: port), "192.0.2.1:53"))
    }
    for port in UInt16(1)...3 { #expect(send(1, port).packet != nil) }
    #expect(send(1, 4) == .dropped("nat-client-limit"))
    #expect(send(1, 2).packet != nil, "a mapping that it has")
    #expect(send(2, 1).packet != nil)
    #expect(runtime.observed("nat.client-limit.refused") == 1)
    runtime.expire(flowOf: .udp("10.0.0.1:1", "192.0.2.1:53"))
    #expect(send(1, 4).packet != nil && send(1, 5) == .dropped("nat-client-limit"))
  }

  @Test func `the log says who was behind an endpoint and when, and nothing of whom they spoke to`() throws {
    let nat = try NAT(reader: SettingsReader(text: "pool: 10.2.0.200\nports: 1024-1025\nlog: true"))
    let runtime = TestRuntime(nat)
    var ring: RingBuffer<NATLogEntry>?
    runtime.chain.betweenBursts(NAT.self) { _, shared in ring = shared.log.entries }
    runtime.now = Tick(milliseconds: 1000)
    let query = TestPacket.udp("10.0.0.1:7000", "192.0.2.1:53")
    let sent = try #require(runtime.send(query).packet)
    let created = try #require(ring?.take())
    #expect(created.event == .created && created.time == Tick(milliseconds: 1000) && created.protocolNumber == 17)
    #expect(created.client.ipv4 == "10.0.0.1" && created.clientPort == 7000)
    #expect(created.external == "10.2.0.200" && created.externalPort == sent.source.port)
    runtime.send(.udp("10.0.0.1:7000", "192.0.2.2:53"))
    runtime.send(.udp("10.0.0.2:7000", "192.0.2.1:53"))
    for client in UInt32(3)..<8 {
      #expect(
        runtime.send(.udp(Endpoint(IPv4Address(0x0a00_0000 + client), port: 1), "192.0.2.1:53")).reason == "nat-pool-exhausted")
    }
    runtime.expireAll()
    var events: [NATLogEntry.Event] = []
    while let entry = ring?.take() { events.append(entry.event) }
    #expect(events == [.created, .exhausted, .removed, .removed], "exhaustion once, not per packet")
  }

  @Test(arguments: 0..<5) func `clients are counted as a dictionary counts them`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let counts = NATClientCounts(capacity: 60)
    var expected: [UInt64: Int] = [:]
    for _ in 0..<5000 {
      let client = UInt64.random(in: 0..<55, using: &random)
      if Bool.random(using: &random) {
        counts.add(client)
        expected[client, default: 0] += 1
      } else if expected[client, default: 0] > 0 {
        counts.remove(client)
        expected[client]! -= 1
      }
      let other = UInt64.random(in: 0..<55, using: &random)
      #expect(counts[other] == expected[other, default: 0])
    }
  }
}
