import Dataplane
import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

/// A burst is only faster: whatever comes out, comes out as if the packets had come one at a time.
@Suite struct BurstOrderTests {
  @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8] as [UInt64], [7, 32, 64])
  func `bursts and single packets have the same outcomes`(seed: UInt64, size: Int) {
    var numbers = SeededNumbers(seed: seed)
    let packets = conversation(&numbers, count: 3_000)
    compare(packets, size: size, seed: seed) {
      ServiceChain([ServiceStage("counting", CountingFunction(books: .init()), share: .whole)])
    }
  }

  @Test(arguments: [21, 22, 23, 24] as [UInt64], [7, 32, 64])
  func `so it is with firewall, NAT and load balancer, compiled as one or as three`(seed: UInt64, size: Int) throws {
    var numbers = SeededNumbers(seed: seed)
    let packets = conversation(&numbers, count: 2_000)
    for fusing in [true, false] {
      let spec = CaptureChains.firewallNATLoadBalancer
      // The chain throws for a wrong spec; make it once to say so, then at will.
      _ = try Catalog.standard.makeChain(spec: spec, share: .whole, fusing: fusing)
      compare(packets, size: size, seed: seed) { try! Catalog.standard.makeChain(spec: spec, share: .whole, fusing: fusing) }
    }
  }

  private func compare(_ packets: [TestPacket], size: Int, seed: UInt64, chain: () -> ServiceChain) {
    var rules = FlowRules()
    rules.capacity = 1_024
    let single = CoreUnderTest(chain(), rules: rules)
    let burst = CoreUnderTest(chain(), rules: rules)
    for start in stride(from: 0, to: packets.count, by: size) {
      let some = Array(packets[start..<min(packets.count, start + size)])
      let expected = some.map { single.send($0) }
      let outcomes = burst.send(some)
      for (offset, (outcome, expected)) in zip(outcomes, expected).enumerated() where outcome != expected {
        Issue.record(
          "packet \(start + offset), \(some[offset]): \(outcome) in a burst of \(size), \(expected) alone; seed \(seed)")
        return
      }
      guard burst.flowCount == single.flowCount else {
        Issue.record(
          "\(burst.flowCount) flows in bursts of \(size), \(single.flowCount) one by one; packet \(start), seed \(seed)")
        return
      }
      single.wait(milliseconds: 500, step: 500)
      burst.wait(milliseconds: 500, step: 500)
    }
    #expect(single.core.chain.observe() == burst.core.chain.observe(), "seed \(seed)")
    #expect(burst.booksBalance && single.booksBalance)
    #expect(burst.core.counters.forwarded > UInt64(packets.count / 4), "most of the conversation is legal")
  }

  /// Packets of a few clients and servers that know only what their side of a plain network would: both
  /// directions, every flag, some refused, some that answer nothing.
  private func conversation(_ numbers: inout SeededNumbers, count: Int) -> [TestPacket] {
    var packets: [TestPacket] = []
    while packets.count < count {
      let port = 40_000 + numbers.below(6)
      let isIPv6 = numbers.oneIn(6)
      let client = isIPv6 ? endpoint("2001:db8::1", port) : endpoint("10.0.0.\(1 + numbers.below(3))", port)
      let server =
        isIPv6
        ? endpoint("2001:db8::9", [80, 53, 666][numbers.below(3)])
        : endpoint(numbers.oneIn(2) ? "10.1.0.100" : "10.2.0.7", [80, 80, 53, 666][numbers.below(4)])
      let (from, to) = numbers.oneIn(3) ? (server, client) : (client, server)
      let payload = numbers.bytes(numbers.below(8))
      switch numbers.below(10) {
      case 0...2: packets.append(.udp(from, to, payload: payload))
      case 3: packets.append(.icmpEchoRequest(client, server, id: UInt16(numbers.below(3)), payload: payload))
      case 4: packets.append(.icmpEchoReply(server, client, id: UInt16(numbers.below(3)), payload: payload))
      case 5:
        let syn = TestPacket.tcp(client, server, .syn, seq: 100)
        packets += [
          syn, syn.answered([.syn, .ack], seq: 500), .tcp(client, server, .ack, seq: 101, ack: 501),
          .tcp(client, server, [.psh, .ack], seq: 101, ack: 501, payload: payload),
        ]
      case 6: packets.append(.tcp(from, to, .syn, seq: 100))
      case 7: packets.append(.tcp(from, to, [.fin, .ack], seq: 101, ack: 501))
      case 8: packets.append(.tcp(from, to, .rst, seq: 101))
      default: packets.append(.tcp(from, to, .ack, seq: 101, ack: 501, payload: payload))
      }
    }
    return packets
  }
}

/// Endpoints of a NAT's pool go out with flows and come back with their end.
@Suite struct NATPoolBooksTests {
  @Test(arguments: [31, 32, 33] as [UInt64])
  func `no endpoint is leaked, and none has two clients`(seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    var rules = FlowRules()
    rules.capacity = 256
    let nat = NAT(pool: [IPv4Address("203.0.113.1")!], ports: 2_000...2_099, mappings: 128)
    let runtime = CoreUnderTest(nat, rules: rules)
    /// Client of each external endpoint in use.
    var owners: [Endpoint: (client: Endpoint, until: UInt64)] = [:]
    var exhausted = 0
    for step in 0..<4_000 {
      let client = endpoint("10.0.0.\(1 + numbers.below(3))", 1 + numbers.below(80))
      let server = endpoint("198.51.100.\(1 + numbers.below(3))", 53)
      let outcomes = runtime.send((0..<1 + numbers.below(3)).map { _ in .udp(client, server) })
      for outcome in outcomes {
        guard let packet = outcome.packet else {
          #expect(outcome.reason == "nat-pool-exhausted" || outcome.reason == "flow-table-full", "\(outcome): seed \(seed)")
          exhausted += 1
          continue
        }
        if let owner = owners[packet.source], owner.until > runtime.now.milliseconds {
          #expect(owner.client == client, "\(packet.source) has two clients at step \(step): seed \(seed)")
        }
        // A flow lasts at least its timeout from its last packet, and so does its endpoint.
        owners[packet.source] = (client, runtime.now.milliseconds + 299_000)
        #expect(packet.checksumsHold)
      }
      runtime.wait(milliseconds: UInt64(numbers.below(4_000)), step: 2_000)
    }
    #expect(exhausted > 0, "the pool of a hundred was never short: the test shows nothing")
    runtime.wait(milliseconds: 1_000_000, step: 4_000)
    #expect(runtime.flowCount == 0)
    #expect(runtime.observed("nat.mappings") == 0)
    for realm in ["tcp", "udp", "icmp"] { #expect(runtime.observed("nat.pool.203.0.113.1.\(realm).used") == 0, "seed \(seed)") }
    // And all hundred can be had again.
    let fresh = runtime.send((0..<100).map { .udp(endpoint("10.9.0.1", 5_000 + $0), "198.51.100.1:53") })
    #expect(Set(fresh.compactMap { $0.packet?.source }).count == 100)
  }

  @Test func `evicted and refused flows give their endpoints back`() {
    var rules = FlowRules()
    rules.capacity = 64
    let runtime = CoreUnderTest(NAT(pool: [IPv4Address("203.0.113.1")!], ports: 2_000...2_999, mappings: 128), rules: rules)
    for port in 0..<3_000 {
      let outcome = runtime.send(.tcp(endpoint("10.0.0.1", 1 + port), "198.51.100.1:80", .syn))
      #expect(outcome.packet != nil, "SYN \(port): \(outcome)")
      runtime.wait(milliseconds: 16, step: 16)
    }
    #expect(runtime.observed("nat.pool.203.0.113.1.tcp.used") == 64)
    #expect(runtime.observed("nat.mappings") == 64)
    runtime.wait(milliseconds: 300_000)
    #expect(runtime.observed("nat.pool.203.0.113.1.tcp.used") == 0)
  }
}
