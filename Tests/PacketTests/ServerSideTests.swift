import Dataplane
import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

/// Flows that the server side opens, in the workers that ship: from outside to a NAT's endpoint, between two clients of
/// one NAT, and through a firewall that lets them.
@Suite struct ServerSideTests {
  static let pool = NAT(
    pool: [IPv4Address("10.2.0.200")!], ports: 2_000...5_999, mappings: 1_024, filtering: .endpointIndependent)

  /// Runtimes with half of the ports each.
  func cluster(_ nat: NAT = pool) -> ClusterOfWorkers {
    ClusterOfWorkers(
      runtimes: 2, seed: 3,
      entrance: ServerSideEntrance(isOpen: nat.opensFromServerSide, endpoints: nat.serverSideEndpoints)
    ) { ServiceChain([ServiceStage("nat", nat, share: $0)]) }
  }

  func exchange(_ cluster: ClusterOfWorkers) -> (client: [TestPacket], server: [TestPacket]) {
    cluster.run(microseconds: 2_000)
    return (cluster.takePackets(.client), cluster.takePackets(.server))
  }

  @Test func `somebody outside reaches a client at its endpoint, on the runtime that owns it`() throws {
    let cluster = cluster()
    cluster.announce(serving: [1])
    cluster.run(microseconds: 100)
    cluster.clientSends(.udp("10.1.0.9:5000", "10.2.0.9:53"))
    let out = try #require(exchange(cluster).server.first)
    #expect(out.source.port >= 4_000, "of the second runtime's half")
    // The first runtime has fewer flows, and yet it is not asked.
    cluster.announce(serving: [0, 1])
    let stranger = TestPacket.udp("10.2.0.77:9999", out.source)
    cluster.serverSends(stranger)
    #expect(exchange(cluster).client == [.udp("10.2.0.77:9999", "10.1.0.9:5000", ttl: 63)])
    cluster.clientSends(.udp("10.1.0.9:5000", "10.2.0.77:9999", payload: [1]))
    // Its neighbor is asked for first, and answers.
    cluster.run(microseconds: 1_000)
    cluster.appear(on: .server) { .arp(.reply, from: MACAddress(0x02_00_00_00_07_07), "10.2.0.77", to: $0, "10.2.0.1") }
    #expect(exchange(cluster).server == [.udp(out.source, "10.2.0.77:9999", payload: [1], ttl: 63)])
    #expect(cluster.counters(0).flowsCreated == 0 && cluster.counters(1).flowsCreated == 2)

    cluster.serverSends(.udp("10.2.0.77:9999", "10.2.0.200:2001"))
    #expect(exchange(cluster).client.isEmpty)
    #expect(cluster.drops(0).contains { $0.code == NAT.filtered.code })
  }

  @Test func `two clients on two runtimes meet at their external endpoints`() throws {
    let cluster = cluster()
    // One port after the other, until there is a client on either runtime.
    var externals: [Int: (port: Int, external: Endpoint)] = [:]
    for port in 1_100..<1_140 {
      cluster.clientSends(.udp(endpoint("10.1.0.9", port), "10.2.0.9:53"))
      let external = try #require(exchange(cluster).server.first).source
      externals[external.port < 4_000 ? 0 : 1] = (port, external)
    }
    let (a, b) = try (#require(externals[0]), #require(externals[1]))

    cluster.clientSends(.udp(endpoint("10.1.0.9", a.port), b.external, payload: [1]))
    var seen = exchange(cluster)
    #expect(
      seen.client == [.udp(a.external, endpoint("10.1.0.9", b.port), payload: [1], ttl: 63)], "from the external endpoint (RFC 4787 REQ-9)")
    #expect(seen.server.isEmpty)
    cluster.clientSends(.udp(endpoint("10.1.0.9", b.port), a.external, payload: [2]))
    seen = exchange(cluster)
    #expect(seen.client == [.udp(b.external, endpoint("10.1.0.9", a.port), payload: [2], ttl: 63)])
    #expect(seen.server.isEmpty)
    // Whoever one of them speaks to next sees the endpoint that everybody sees (REQ-1).
    cluster.clientSends(.udp(endpoint("10.1.0.9", b.port), "10.2.0.9:443"))
    #expect(exchange(cluster).server.first?.source == b.external)
    for runtime in 0..<2 {
      let counters = cluster.counters(runtime)
      #expect(counters.received == counters.forwarded + counters.dropped + counters.consumed && counters.dropped == 0)
    }
  }

  @Test func `with the strictest filtering the server side opens nothing, and makes no routes`() {
    let cluster = cluster(NAT(pool: [IPv4Address("10.2.0.200")!]))
    cluster.clientSends(.udp("10.1.0.9:5000", "10.2.0.9:53"))
    #expect(exchange(cluster).server.count == 1)
    let routes = cluster.switchCounters.flowsCreated
    for port in UInt16(5_000)..<5_032 { cluster.serverSends(.udp("10.2.0.77:9999", Endpoint(IPv4Address("10.2.0.200")!, port: port))) }
    #expect(exchange(cluster).client.isEmpty)
    #expect(cluster.switchCounters.flowsCreated == routes)
    #expect(cluster.switchDrops.contains { $0.code == DropReason.noFlow.code && $0.count == 32 })
  }

  @Test func `a connection from the server side is followed like one from the clients`() {
    let rules = [FirewallRule(.allow, .tcp, toPorts: 22...22, direction: .reverse)]
    let core = CoreUnderTest(Firewall(rules: rules, otherwise: .deny))
    let syn = TestPacket.tcp("10.2.0.9:4000", "10.1.0.9:22", .syn, seq: 1)
    #expect(core.send(syn, from: .server).direction == .reverse)
    #expect(core.send(.tcp("10.2.0.9:4000", "10.1.0.9:80", .syn), from: .server) == .dropped("denied-by-rule"))
    #expect(core.flowCount == 1)
    #expect(core.send(syn.answered([.syn, .ack], seq: 9), from: .client).direction == .forward)
    #expect(core.send(.tcp("10.2.0.9:4000", "10.1.0.9:22", .ack, seq: 2, ack: 10), from: .server).packet != nil)
    // Open now: it outlives the four minutes of one that is not.
    core.wait(milliseconds: 600_000)
    #expect(core.flowCount == 1)
    core.wait(milliseconds: 7_440_000)
    #expect(core.flowCount == 0 && core.booksBalance)
  }

  @Test func `a burst with beginnings from both sides comes out in order`() {
    let rules = [FirewallRule(.allow, direction: nil)]
    let core = CoreUnderTest(Firewall(rules: rules, otherwise: .deny))
    var numbers = SeededNumbers(seed: 8)
    for round in 0..<200 {
      let packets = (0..<40).map { index in
        TestPacket.udp(
          endpoint("10.2.0.9", 1_000 + numbers.below(12)), endpoint("10.1.0.9", 1 + round), payload: [UInt8(index)])
      }
      #expect(core.send(packets, from: .server).map(\.packet) == packets)
    }
    #expect(core.booksBalance)
  }

  // MARK: Between bursts

  @Test func `rules change under traffic, and no flow that they allow loses a packet`() {
    let cluster = ClusterOfWorkers(runtimes: 1, seed: 5) { share in
      ServiceChain([
        ServiceStage("firewall", Firewall(rules: [FirewallRule(.allow)], otherwise: .deny, established: .reevaluate), share: share)
      ])
    }
    var ledger = PacketLedger()
    for round in 0..<200 {
      for flow in 0..<20 { cluster.clientSends(flow: flow, number: ledger.nextNumber(flow)) }
      if round % 10 == 5 {
        // Every time other rules, which allow these flows by another line.
        let rules = (0..<round).map { FirewallRule(.deny, .tcp, toPorts: UInt16($0)...UInt16($0)) } + [FirewallRule(.allow, .udp)]
        cluster.send(
          ChainErrand(FirewallRuleSet(rules: rules, otherwise: .deny)) { chain, rules in
            chain.betweenBursts(Firewall.self) { firewall, shared in firewall.exchangeRules(&rules, shared: &shared) }
          }, to: 0)
      }
      cluster.run(microseconds: 50)
      ledger.hear(cluster.takeSent(.server))
    }
    cluster.run(microseconds: 2_000)
    ledger.hear(cluster.takeSent(.server))
    #expect(cluster.errandsDone.count == 20)
    #expect(ledger.faults == [] && ledger.isComplete)

    cluster.send(
      ChainErrand(FirewallRuleSet(rules: [], otherwise: .deny)) { chain, rules in
        chain.betweenBursts(Firewall.self) { firewall, shared in firewall.exchangeRules(&rules, shared: &shared) }
      }, to: 0)
    cluster.run(microseconds: 100)
    cluster.clientSends(flow: 3, number: 0)
    cluster.run(microseconds: 2_000)
    #expect(cluster.takePackets(.server).isEmpty)
  }

  @Test func `every function of a chain is found, wherever it stands, in order`() {
    let balancer = LoadBalancer(services: [])
    let inner = Firewall(rules: [], otherwise: .allow)
    let outer = Firewall(rules: [], otherwise: .deny)
    let chain = ServiceChain([
      ServiceStage("a", outer.then(PacketCounter().then(inner)), share: .whole), ServiceStage("b", balancer, share: .whole),
      ServiceStage("c", inner, share: .whole),
    ])
    var seen: [FirewallRule.Action] = []
    chain.betweenBursts(Firewall.self) { firewall, _ in seen.append(firewall.ruleSet.otherwise) }
    #expect(seen == [.deny, .allow, .allow])
    var balancers = 0
    chain.betweenBursts(LoadBalancer.self) { _, _ in balancers += 1 }
    chain.betweenBursts(NAT.self) { _, _ in balancers += 100 }
    #expect(balancers == 1)
  }
}
