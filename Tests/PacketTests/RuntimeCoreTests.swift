import Dataplane
import FunctionCatalog
import ModuleGraphs
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

/// Flows of a runtime: what opens one, what belongs to one, and what ends one.
@Suite struct RuntimeCoreTests {
  let books = CountingFunction.Books()

  func runtime(_ change: (inout FlowRules) -> Void = { _ in }) -> CoreUnderTest {
    var rules = FlowRules()
    rules.capacity = 256
    rules.ipv6Capacity = 64
    change(&rules)
    return CoreUnderTest(CountingFunction(books: books), rules: rules)
  }

  // MARK: Conversations

  @Test(
    arguments: [
      ("10.0.0.1:1234", "10.0.0.2:80"), ("[2001:db8::1]:1234", "[2001:db8::2]:80"),
    ] as [(Endpoint, Endpoint)])
  func `a handshake in one burst is one flow`(client: Endpoint, server: Endpoint) {
    let runtime = runtime()
    let syn = TestPacket.tcp(client, server, .syn, seq: 100)
    let outcomes = runtime.send([
      syn, syn.answered([.syn, .ack], seq: 900), .tcp(client, server, .ack, seq: 101, ack: 901),
      .tcp(server, client, [.psh, .ack], seq: 901, ack: 101, payload: [1, 2, 3]),
    ])
    #expect(outcomes.map(\.direction) == [.forward, .reverse, .forward, .reverse])
    #expect(runtime.flowCount == 1)
    #expect(runtime.booksBalance)
  }

  @Test func `a query and its answer in one burst are one flow`() {
    let runtime = runtime()
    let query = TestPacket.udp("10.0.0.1:5000", "10.0.0.2:53", payload: [1])
    let echo = TestPacket.icmpEchoRequest("10.0.0.1", "10.0.0.2", id: 77)
    let outcomes = runtime.send([query, echo, query.answered(payload: [2]), echo.answered(), query])
    #expect(outcomes.map(\.direction) == [.forward, .forward, .reverse, .reverse, .forward])
    #expect(runtime.flowCount == 2)
  }

  @Test func `an ICMP error goes back with the flow it is about, and opens none`() {
    let runtime = runtime()
    let query = TestPacket.udp("10.0.0.1:5000", "10.0.0.2:53", payload: [1])
    let error = TestPacket.icmpError(from: "10.0.0.254", about: query)
    #expect(runtime.send([query, error]).map(\.direction) == [.forward, .reverse])
    #expect(runtime.flowCount == 1)
    let stranger = TestPacket.icmpError(from: "10.0.0.254", about: .udp("10.0.0.9:1", "10.0.0.2:53"))
    #expect(runtime.send([stranger]).map(\.reason) == ["icmp-error-without-flow"])
    #expect(runtime.flowCount == 1)
    #expect(runtime.booksBalance)
  }

  @Test func `flows differ by VLAN`() {
    let runtime = runtime()
    let query = TestPacket.udp("10.0.0.1:5000", "10.0.0.2:53")
    runtime.send([query, query.vlan(7), query.vlan(8), query.vlan(7)])
    #expect(runtime.flowCount == 3)
  }

  @Test func `an answer needs its flow and its side`() {
    let runtime = runtime()
    let syn = TestPacket.tcp("10.0.0.1:1234", "10.0.0.2:80", .syn)
    #expect(runtime.send(syn, from: .server).reason == "no-flow")
    #expect(runtime.send(syn, from: .client).direction == .forward)
    #expect(
      runtime.send(syn.answered([.syn, .ack]), from: .client).reason == "no-flow", "the server's packets come from its side")
    #expect(runtime.send(syn, from: .server).reason == "no-flow")
    #expect(runtime.send(syn.answered([.syn, .ack]), from: .server).direction == .reverse)
  }

  // MARK: What opens a flow

  @Test(
    arguments: [
      (.syn, true), ([.syn, .psh], true), (.ack, false), ([.syn, .ack], false), (.rst, false), (.fin, false), ([], false),
      ([.syn, .fin], false), ([.syn, .rst], false), ([.psh, .ack], false),
    ] as [(TCPFlags, Bool)])
  func `only a SYN opens a connection, unless midstream is accepted`(flags: TCPFlags, opens: Bool) {
    let packet = TestPacket.tcp("10.0.0.1:1234", "10.0.0.2:80", flags)
    let strict = runtime()
    let outcome = strict.send(packet)
    #expect(outcome.reason == (opens ? nil : "not-connection-start"))
    #expect(strict.flowCount == (opens ? 1 : 0))
    let lenient = runtime { $0.acceptsMidstream = true }
    #expect(lenient.send(packet).direction == .forward)
    #expect(lenient.flowCount == 1)
  }

  @Test func `a flow whose first packet is dropped does not come to be`() {
    let runtime = runtime()
    let outcomes = runtime.send([
      .tcp("10.0.0.1:1234", "10.0.0.2:666", .syn), .udp("10.0.0.1:1234", "10.0.0.2:666"),
      .tcp("10.0.0.1:1234", "10.0.0.2:80", .syn), .tcp("10.0.0.1:1234", "10.0.0.2:666", .syn),
    ])
    #expect(outcomes.map(\.reason) == ["refused", "refused", nil, "refused"])
    #expect(runtime.flowCount == 1)
    #expect(books.expired == books.freed)
    #expect(books.begun - books.expired == 1)
  }

  @Test func `a packet dropped later does not end its flow`() {
    let runtime = runtime()
    runtime.send(.udp("10.0.0.1:666", "10.0.0.2:80"))
    #expect(runtime.send(.udp("10.0.0.2:80", "10.0.0.1:666")).reason == "refused")
    #expect(runtime.flowCount == 1)
    #expect(books.expired == 0)
  }

  @Test func `a packet that answers itself gets no flow`() {
    let runtime = runtime()
    #expect(runtime.send(.tcp("10.0.0.1:80", "10.0.0.1:80", .syn)).reason == "key-taken")
    #expect(runtime.flowCount == 0)
    #expect(books.begun == books.freed)
  }

  @Test func `two flows whose answers are the same: the second is refused`() {
    let runtime = CoreUnderTest(SameSource(), rules: FlowRules())
    #expect(runtime.send(.udp("10.0.0.1:5000", "10.0.0.9:53")).direction == .forward)
    #expect(runtime.send(.udp("10.0.0.2:5000", "10.0.0.9:53")).reason == "key-taken")
    #expect(runtime.send(.udp("10.0.0.2:5000", "10.0.0.8:53")).direction == .forward)
    #expect(runtime.flowCount == 2)
    // In one burst the same.
    let other = CoreUnderTest(SameSource(), rules: FlowRules())
    let outcomes = other.send([
      .udp("10.0.0.1:5000", "10.0.0.9:53"), .udp("10.0.0.2:5000", "10.0.0.9:53"), .udp("10.0.0.2:5000", "10.0.0.9:53"),
      .udp("10.0.0.1:5000", "10.0.0.9:53"),
    ])
    #expect(outcomes.map(\.reason) == [nil, "key-taken", "key-taken", nil])
    #expect(other.flowCount == 1)
    #expect(other.booksBalance)
  }

  // MARK: A full table

  @Test func `a full table takes no datagram flow but what it has`() {
    let runtime = runtime { $0.capacity = 64 }
    let queries = (0..<65).map { TestPacket.udp(endpoint("10.0.0.1", 5000 + $0), "10.0.0.2:53") }
    let outcomes = runtime.send(queries)
    #expect(outcomes.prefix(64).allSatisfy { $0.direction == .forward })
    #expect(outcomes[64].reason == "flow-table-full")
    #expect(runtime.core.counters.flowsRefused == 1)
    #expect(runtime.send(queries[0].answered()).direction == .reverse)
    #expect(runtime.flowCount == 64)
  }

  @Test func `a full table lets half open connections go for new flows`() {
    let runtime = runtime { $0.capacity = 64 }
    let syns = (0..<200).map { TestPacket.tcp(endpoint("10.0.0.1", 5000 + $0), "10.0.0.2:80", .syn) }
    for syn in syns {
      #expect(runtime.send(syn).direction == .forward)
      runtime.wait(milliseconds: 16, step: 16)
    }
    #expect(runtime.flowCount == 64)
    #expect(runtime.core.counters.flowsEvicted == 136)
    #expect(books.begun - books.freed == 64)
    #expect(runtime.send(.udp("10.0.0.7:1", "10.0.0.2:53")).direction == .forward)
  }

  @Test func `a half open connection has a second before it must make room, a closing one has not`() {
    let runtime = runtime { $0.capacity = 64 }
    let syns = (0..<64).map { TestPacket.tcp(endpoint("10.0.0.1", 5000 + $0), "10.0.0.2:80", .syn, seq: 1) }
    for syn in syns { #expect(runtime.send(syn).direction == .forward) }
    // However many ask: those that are half open are left the time for their handshake.
    for port in 1..<400 {
      #expect(runtime.send(.tcp(endpoint("10.9.0.1", port), "10.0.0.2:80", .syn)).reason == "flow-table-full")
      if port % 100 == 0 { runtime.wait(milliseconds: 200, step: 200) }
    }
    #expect(runtime.core.counters.flowsEvicted == 0)
    #expect(runtime.send(syns[7].answered([.syn, .ack], seq: 7)).direction == .reverse)
    #expect(runtime.send(.tcp(syns[9].source, syns[9].destination, .rst, seq: 2)).direction == .forward)
    runtime.wait(milliseconds: 1, step: 1)
    #expect(runtime.send(.tcp("10.9.0.1:999", "10.0.0.2:80", .syn)).direction == .forward, "one was closing")
    #expect(runtime.send(.tcp("10.9.0.1:998", "10.0.0.2:80", .syn)).reason == "flow-table-full")
    runtime.wait(milliseconds: 400, step: 400)
    #expect(runtime.send(.tcp("10.9.0.1:998", "10.0.0.2:80", .syn)).direction == .forward, "the others have had their second")
    #expect(runtime.send(syns[7].answered(.ack)).direction == .reverse, "the established one stays")
    #expect(runtime.core.counters.flowsEvicted == 2)
    #expect(runtime.booksBalance)
  }

  @Test func `a flood of SYNs does not keep established connections from serving, nor new ones from opening`() {
    let runtime = runtime { $0.capacity = 128 }
    // Thirty connections and a ping, all older than the flood: their timers stand first.
    let connections = (0..<30).map { TestPacket.tcp(endpoint("10.0.0.1", 5000 + $0), "10.0.0.2:80", .syn, seq: 1) }
    for syn in connections {
      runtime.send([syn, syn.answered([.syn, .ack], seq: 7), .tcp(syn.source, syn.destination, .ack, seq: 2, ack: 8)])
    }
    runtime.send(.icmpEchoRequest("10.0.0.1", "10.0.0.2", id: 4))
    runtime.wait(milliseconds: 2_000)
    for number in 0..<1_000 {
      let outcome = runtime.send(.tcp(endpoint("10.9.0.1", 1000 + number), "10.0.0.2:80", .syn))
      #expect(outcome.direction == .forward, "SYN \(number) of the flood: \(outcome)")
      runtime.wait(milliseconds: 11, step: 11)
    }
    for syn in connections {
      #expect(runtime.send(.tcp(syn.source, syn.destination, .ack, seq: 2, ack: 8)).direction == .forward)
      #expect(runtime.send(syn.answered(.ack)).direction == .reverse)
    }
    #expect(runtime.flowCount == 128)
    #expect(runtime.booksBalance)
  }

  @Test func `no room for another IPv6 key costs no IPv4 connection its place`() {
    let runtime = runtime {
      $0.capacity = 64; $0.ipv6Capacity = 4
    }
    for port in 1...8 { runtime.send(.tcp(endpoint("10.0.0.1", port), "10.0.0.2:80", .syn)) }
    for port in 1...4 { #expect(runtime.send(.udp(endpoint("2001:db8::1", port), "[2001:db8::2]:53")).direction == .forward) }
    for port in 5...20 {
      #expect(runtime.send(.udp(endpoint("2001:db8::1", port), "[2001:db8::2]:53")).reason == "flow-table-full")
    }
    #expect(runtime.core.counters.flowsEvicted == 0)
    #expect(runtime.flowCount == 12)
  }

  // MARK: Time

  @Test(
    arguments: [
      ("half open", [TestPacket.tcp("10.0.0.1:1", "10.0.0.2:80", .syn)], 240_000),
      ("established", [.tcp("10.0.0.1:1", "10.0.0.2:80", .syn), .tcp("10.0.0.2:80", "10.0.0.1:1", [.syn, .ack])], 7_440_000),
      (
        "closed",
        [
          .tcp("10.0.0.1:1", "10.0.0.2:80", .syn), .tcp("10.0.0.2:80", "10.0.0.1:1", [.syn, .ack]),
          .tcp("10.0.0.1:1", "10.0.0.2:80", .rst),
        ], 240_000
      ),
      ("udp", [.udp("10.0.0.1:1", "10.0.0.2:53")], 300_000),
      ("icmp", [.icmpEchoRequest("10.0.0.1", "10.0.0.2", id: 3)], 60_000),
      ("icmpv6", [.icmpEchoRequest("[2001:db8::1]", "[2001:db8::2]", id: 3)], 60_000),
      ("other", [.ip("10.0.0.1", "10.0.0.2", 47, [0, 0, 0, 0], checksumAt: nil)], 60_000),
    ] as [(String, [TestPacket], UInt64)])
  func `an idle flow ends after its class's timeout and not before`(name: String, packets: [TestPacket], timeout: UInt64) {
    let runtime = runtime()
    runtime.wait(milliseconds: 12_345)
    for packet in packets { runtime.send(packet) }
    #expect(runtime.flowCount == 1)
    runtime.wait(milliseconds: timeout - 1_000)
    #expect(runtime.flowCount == 1, "\(name) ended early")
    runtime.wait(milliseconds: 2_000)
    #expect(runtime.flowCount == 0, "\(name) did not end")
    #expect(runtime.core.counters.flowsExpired == 1)
    #expect(books.begun == 1 && books.expired == 1 && books.freed == 1 && books.strangeStates == 0)
  }

  @Test func `a flow in use does not end`() {
    let runtime = runtime()
    let query = TestPacket.udp("10.0.0.1:1", "10.0.0.2:53")
    runtime.send(query)
    for round in 0..<40 {
      runtime.wait(milliseconds: 250_000, step: 10_000)
      #expect(runtime.send(round % 2 == 0 ? query.answered() : query, from: .either).packet != nil)
    }
    #expect(runtime.core.counters.flowsCreated == 1)
    #expect(runtime.flowCount == 1)
  }

  @Test func `after a leap of years every flow from before is gone, however many there are`() {
    let runtime = runtime { $0.capacity = 4_096 }
    for number in 0..<3_000 { runtime.send(.udp(Endpoint(IPv4Address(UInt32(0x0a00_0000 + number)), port: 1), "10.9.0.2:53")) }
    #expect(runtime.flowCount == 3_000)
    // The record's 32 bits of milliseconds come round to where they were: only the leap itself tells.
    runtime.now = Tick(milliseconds: 1 << 32 | 5)
    while runtime.expire(limit: 256) == 256 {}
    #expect(runtime.flowCount == 0)
  }

  @Test func `a flow that comes after a leap outlives the clearing up`() {
    let runtime = runtime { $0.capacity = 4_096 }
    for number in 0..<1_000 { runtime.send(.udp(Endpoint(IPv4Address(UInt32(0x0a00_0000 + number)), port: 1), "10.9.0.2:53")) }
    runtime.now = Tick(milliseconds: 1 << 33 | 700)
    let late = TestPacket.udp("10.0.0.1:7", "10.9.0.2:53")
    runtime.send(late)
    while runtime.expire(limit: 64) == 64 {
      #expect(runtime.send(late.answered()).direction == .reverse)
    }
    #expect(runtime.flowCount == 1)
  }

  @Test func `books balance for frames of garbage, in bounded time`() {
    let seed: UInt64 = 20_24
    var numbers = SeededNumbers(seed: seed)
    let runtime = runtime {
      $0.acceptsMidstream = true; $0.checksums = .trust
    }
    let samples: [TestPacket] = [
      .tcp("10.0.0.1:1", "10.0.0.2:80", .syn, options: [2, 4, 5, 180, 3, 3, 7]),
      .udp("10.0.0.1:1", "10.0.0.2:53", payload: [1, 2]),
      .icmpEchoRequest("10.0.0.1", "10.0.0.2", id: 1), .tcp("[2001:db8::1]:1", "[2001:db8::2]:80", .syn),
      .udp("[2001:db8::1]:1", "[2001:db8::2]:53").vlan(5).vlan(6), .icmpEchoRequest("[2001:db8::1]", "[2001:db8::2]", id: 1),
    ]
    for round in 0..<1_600 {
      var burst: [TestPacket] = []
      for _ in 0..<63 {
        var bytes: [UInt8]
        switch numbers.below(3) {
        case 0: bytes = numbers.bytes(numbers.below(120))
        case 1:
          bytes = numbers.bytes(14 + numbers.below(100))
          bytes.replaceSubrange(12..<14, with: [[8, 0], [0x86, 0xdd], [0x81, 0], [8, 6]][numbers.below(4)])
        default:
          bytes = samples[numbers.below(samples.count)].bytes
          for _ in 0..<1 + numbers.below(4) { bytes[numbers.below(bytes.count)] = UInt8(truncatingIfNeeded: numbers.next()) }
          if numbers.oneIn(4) { bytes.removeLast(numbers.below(bytes.count)) }
        }
        burst.append(TestPacket(bytes: bytes))
      }
      runtime.send(burst)
      if round % 16 == 0 { runtime.wait(milliseconds: UInt64(numbers.below(100_000)), step: 50_000) }
    }
    #expect(runtime.core.counters.received == 1_600 * 63)
    #expect(runtime.booksBalance, "seed \(seed)")
    #expect(runtime.core.counters.forwarded > 1_000, "some garbage is good packets")
    runtime.wait(milliseconds: 20_000_000, step: 50_000)
    #expect(runtime.flowCount == 0, "seed \(seed)")
    #expect(books.begun == books.freed && books.expired == books.freed && books.strangeStates == 0, "seed \(seed)")
    #expect(runtime.memory.framesInUse == 0)
  }
}

/// Makes every client look like 192.0.2.1, its port kept: a NAT that does not look what is taken.
private struct SameSource: NetworkFunction {
  typealias FlowState = Nothing
  typealias SharedState = Nothing
  func makeFlowState() -> Nothing { Nothing() }
  func process(_ frame: inout Frame, flow: inout Nothing, shared: inout Nothing) -> Verdict {
    if frame.direction == .forward { frame.rewriteSource(IPv4Address("192.0.2.1")!, port: frame.sourcePort) }
    return .forward
  }
}

/// The flow table takes what it is made for, whatever the keys look like.
@Suite struct KeySpreadTests {
  @Test(arguments: [
    ("10.0.0.1", "10.0.0.2"), ("10.0.0.0", "10.0.0.0"), ("0.0.0.1", "0.0.0.2"), ("192.168.0.1", "0.0.0.1"),
    ("255.255.255.255", "255.255.255.255"), ("2001:db8::", "2001:db8::1"), ("::1", "::2"),
  ])
  func `consecutive ports of one pair of hosts fill the table`(client: String, server: String) {
    for seed in [0, 1, 2, 0x0a00_0001, 0x1234_5678_9abc_def0, .max] as [UInt64] {
      var rules = FlowRules()
      rules.capacity = 4_096
      rules.ipv6Capacity = 4_096
      let runtime = CoreUnderTest(
        ServiceChain([ServiceStage("counting", CountingFunction(books: .init()), share: .whole)]), rules: rules, seed: seed)
      for port in 0..<4_096 {
        let outcome = runtime.send(.udp(endpoint(client, 1_024 + port), endpoint(server, 53)))
        guard outcome.packet != nil else {
          Issue.record("flow \(port) of 4,096: \(outcome); seed \(seed)")
          break
        }
      }
    }
  }
}
