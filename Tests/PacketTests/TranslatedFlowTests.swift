import Dataplane
import FlowActors
import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

/// Flows whose packets are IPv6 on the client's side and IPv4 on the server's, in the workers that ship.
@Suite struct TranslatedFlowTests {
  static let prefix = NAT64Prefix(AddressBlock("2001:db8:64::/96")!)!
  static let server6: Endpoint = "[2001:db8:64::a02:9]:53"

  static func nat(filtering: NAT.Filtering = .addressAndPortDependent) -> NAT64 {
    NAT64(
      NAT(pool: [IPv4Address("10.2.0.200")!], ports: 2_000...5_999, mappings: 1_024, filtering: filtering, hold: 0, passesIPv6: true),
      NAT64.Rules(prefix: prefix))
  }

  static func client(_ number: Int) -> Endpoint {
    Endpoint(IPAddress(high: 0x2001_0db8_0001_0000, low: 0x100 + UInt64(number)), port: 5_000)
  }

  @Test func `bursts of both families and directions come out in order, and nothing is left`() {
    var rules = FlowRules()
    rules.capacity = 512
    rules.ipv6Capacity = 96
    let core = CoreUnderTest(Self.nat(), rules: rules)
    var numbers = SeededNumbers(seed: 64)
    var externals: [Int: Endpoint] = [:]
    for round in 0..<60 {
      // Opened one by one, so that answers can be made for bursts.
      let number = numbers.below(40)
      if externals[number] == nil {
        let out = core.send(.udp(Self.client(number), Self.server6, payload: [UInt8(round)]), from: .client)
        externals[number] = out.packet?.source
        #expect(out.direction == .forward && out.packet?.checksumsHold == true)
      }
      let known = externals.keys.sorted()
      var burst: [TestPacket] = []
      var expected: [(TestPacket) -> Bool] = []
      for index in 0..<50 {
        let number = known[numbers.below(known.count)]
        let (payload, external) = ([UInt8(index)], externals[number]!)
        switch numbers.below(4) {
        case 0, 1:
          burst.append(.udp(Self.client(number), Self.server6, payload: payload))
          expected.append { $0.source == external && $0.destination == "10.2.0.9:53" && $0.payload == payload }
        case 2:
          burst.append(.udp("10.2.0.9:53", external, payload: payload))
          expected.append { $0 == .udp(Self.server6, Self.client(number), payload: payload) }
        default:
          let plain = TestPacket.udp(Self.client(number), "[2001:db8:2::9]:53", payload: payload)
          burst.append(plain)
          expected.append { $0 == plain }
        }
      }
      for (outcome, isRight) in zip(core.send(burst), expected) {
        #expect(outcome.packet.map(isRight) == true, "seed \(numbers.seed): \(outcome)")
      }
    }
    #expect(core.observed("nat64.clients") == UInt64(externals.count))
    core.wait(milliseconds: 400_000)
    #expect(core.flowCount == 0 && core.observed("nat.mappings") == 0 && core.observed("nat64.clients") == 0)
    // Every place of an IPv6 key is free again.
    for number in 100..<196 { #expect(core.send(.udp(Self.client(number), Self.server6), from: .client).packet != nil) }
    #expect(core.send(.udp(Self.client(196), Self.server6), from: .client) == .dropped("flow-table-full"))
    #expect(core.booksBalance && core.memory.framesInUse == 0)
  }

  @Test func `a flow that the server side opens is known by its IPv6 key, too`() throws {
    var rules = FlowRules()
    rules.ipv6Capacity = 3
    let core = CoreUnderTest(Self.nat(filtering: .endpointIndependent), rules: rules)
    let out = try #require(core.send(.udp(Self.client(1), Self.server6), from: .client).packet)
    for port in 1_000..<1_002 {
      let stranger = core.send(.udp(endpoint("10.2.0.77", port), out.source, payload: [1]), from: .server)
      let seen: Endpoint = Endpoint(IPAddress("2001:db8:64::a02:4d")!, port: UInt16(port))
      #expect(stranger.packet == .udp(seen, Self.client(1), payload: [1]))
      let reply = try #require(core.send(.udp(Self.client(1), seen, payload: [2]), from: .client).packet)
      #expect(reply.source == out.source && reply.destination == endpoint("10.2.0.77", port))
      #expect(core.send(.udp(endpoint("10.2.0.77", port), out.source, payload: [3]), from: .server).packet?.payload == [3])
    }
    #expect(core.flowCount == 3)
    #expect(core.send(.udp("10.2.0.78:9", out.source), from: .server).packet == nil, "there is no room for its key")
    #expect(core.flowCount == 3)
    core.wait(milliseconds: 400_000)
    #expect(core.flowCount == 0 && core.observed("nat.mappings") == 0)
    let again = try #require(core.send(.udp(Self.client(1), Self.server6), from: .client).packet)
    #expect(core.send(.udp("10.2.0.78:9", again.source), from: .server).packet != nil)
    #expect(core.booksBalance)
  }

  @Test func `an error finds its flow from either side, with its quotation translated`() throws {
    let core = CoreUnderTest(Self.nat())
    let out = try #require(core.send(.udp(Self.client(1), Self.server6, payload: [1]), from: .client).packet)
    let error = try #require(core.send(.icmpError(from: "10.2.0.1", about: out), from: .server).packet)
    #expect(error.icmpTypeAndCode == [1, 4] && error.checksumsHold && error.quotedPacket?.source == Self.client(1))
    let answer = try #require(core.send(out.answered(payload: [2]), from: .server).packet)
    let back = try #require(core.send(.icmpError(from: "2001:db8:1::1", about: answer), from: .client).packet)
    #expect(back.icmpTypeAndCode == [3, 3] && back.checksumsHold && back.quotedPacket?.destination == out.source)
    #expect(core.booksBalance)
  }

  // MARK: Workers

  private func cluster(_ nat: NAT64 = nat(), isReplicated: Bool = false, runtimes: Int = 2) -> ClusterOfWorkers {
    let cluster = ClusterOfWorkers(
      runtimes: runtimes, seed: 6, isReplicated: isReplicated,
      entrance: ServerSideEntrance(isOpen: nat.opensFromServerSide, endpoints: nat.serverSideEndpoints, growth: nat.growth)
    ) { ServiceChain([ServiceStage("nat", nat, share: $0)]) }
    // The client's station is asked for once, and answers.
    let station = MACAddress(0x02_00_00_00_0c_01)
    for number in 1...40 {
      cluster.appear(on: .client) { _ in
        SwitchWorkerTests.neighbor(
          135, from: Endpoint(Self.client(number).address), to: "[ff02::1:ff00:1]:0", target: "2001:db8:1::1", link: station
        ).link(to: MACAddress(0x3333_ff00_0001), from: station)
      }
    }
    _ = exchange(cluster)
    return cluster
  }

  private func exchange(_ cluster: ClusterOfWorkers) -> (client: [TestPacket], server: [TestPacket]) {
    cluster.run(microseconds: 3_000)
    return (cluster.takePackets(.client), cluster.takePackets(.server))
  }

  @Test func `through switch and runtime, there and back`() throws {
    let cluster = cluster()
    cluster.clientSends(.udp(Self.client(1), Self.server6, payload: [1]))
    let out = try #require(exchange(cluster).server.first)
    #expect(out.destination == "10.2.0.9:53" && out.payload == [1] && out.checksumsHold && out.bytes[22] == 63, "a router's hop less")
    cluster.serverSends(out.answered(payload: [2]))
    #expect(exchange(cluster).client == [.udp(Self.server6, Self.client(1), payload: [2], ttl: 63)])
    #expect(cluster.switchCounters.flowsCreated == 2, "a route for each side")
  }

  @Test func `what would be too long behind the longer header is reported before`() throws {
    let cluster = cluster()
    cluster.limit(.client, to: 1_500)
    cluster.clientSends(.udp(Self.client(1), Self.server6))
    let external = try #require(exchange(cluster).server.first).source
    func answer(_ size: Int) -> TestPacket { .udp("10.2.0.9:53", external, payload: Array(repeating: 7, count: size - 28)) }
    cluster.serverSends(answer(1_480))
    let fits = exchange(cluster)
    #expect(fits.client.map(\.bytes.count) == [14 + 1_500] && fits.server.isEmpty)
    cluster.serverSends(answer(1_481))
    let report = exchange(cluster)
    #expect(report.client.isEmpty && report.server.count == 1 && report.server[0].icmpTypeAndCode == [3, 4])
    #expect(Array(report.server[0].bytes[40..<42]) == [0x05, 0xc8], "1,480")
  }

  @Test(arguments: 0..<4) func `flows that move lose nothing and keep their endpoints`(seed: Int) throws {
    let cluster = cluster()
    cluster.loss = seed * 3
    cluster.announce(serving: [0])
    cluster.run(microseconds: 100)
    let flows = 40
    for number in 1...flows { cluster.clientSends(.udp(Self.client(number), Self.server6, payload: [UInt8(number), 0])) }
    let externals = Dictionary(uniqueKeysWithValues: exchange(cluster).server.map { (Int($0.payload[0]), $0.source) })
    #expect(externals.count == flows)
    cluster.migrate(flows, from: 0, to: 1, run: UInt32(seed) + 1)
    var (clientSaw, serverSaw) = ([TestPacket](), [TestPacket]())
    let rounds = 40
    for round in 1...rounds {
      for number in stride(from: 1 + round % 3, through: flows, by: 3) {
        cluster.clientSends(.udp(Self.client(number), Self.server6, payload: [UInt8(number), UInt8(round)]))
        cluster.serverSends(.udp("10.2.0.9:53", externals[number]!, payload: [UInt8(number), UInt8(round)]))
      }
      cluster.run(microseconds: 150)
    }
    for _ in 0..<20 where cluster.reports.isEmpty { cluster.run(microseconds: 5_000) }
    cluster.run(microseconds: 20_000)
    clientSaw += cluster.takePackets(.client)
    serverSaw += cluster.takePackets(.server)
    #expect(cluster.reports.count == 1)
    #expect(cluster.counters(1).flowsMigratedIn == UInt64(flows), "seed \(seed)")
    for number in 1...flows {
      let rounds = (1...rounds).filter { number % 3 == (1 + $0 % 3) % 3 }.map { UInt8($0) }
      let out = serverSaw.filter { Int($0.payload[0]) == number }
      #expect(out.map { $0.payload[1] } == rounds && out.allSatisfy { $0.source == externals[number] && $0.checksumsHold }, "seed \(seed)")
      let back = clientSaw.filter { Int($0.payload[0]) == number }
      #expect(back.map { $0.payload[1] } == rounds && back.allSatisfy { $0.destination == Self.client(number) && $0.checksumsHold }, "seed \(seed)")
    }
  }

  @Test func `flows of a runtime that dies go on at the holder of their replicas`() throws {
    let cluster = cluster(isReplicated: true)
    cluster.announce(serving: [0])
    cluster.protect(0, by: 1, stream: 1)
    cluster.run(microseconds: 20_000)
    for number in 1...20 { cluster.clientSends(.udp(Self.client(number), Self.server6, payload: [UInt8(number)])) }
    let externals = Dictionary(uniqueKeysWithValues: exchange(cluster).server.map { (Int($0.payload[0]), $0.source) })
    #expect(externals.count == 20)
    cluster.run(microseconds: 20_000)
    cluster.kill(0)
    cluster.announce(serving: [1])
    cluster.recover(0, by: 1, run: 2)
    cluster.run(microseconds: 20_000)
    for number in 1...20 {
      if number % 2 == 0 {
        cluster.serverSends(.udp("10.2.0.9:53", externals[number]!, payload: [UInt8(number)]))
      } else {
        cluster.clientSends(.udp(Self.client(number), Self.server6, payload: [UInt8(number)]))
      }
    }
    let seen = exchange(cluster)
    #expect(seen.server.map(\.source) == stride(from: 1, through: 19, by: 2).map { externals[$0]! })
    #expect(seen.client.map(\.destination) == stride(from: 2, through: 20, by: 2).map { Self.client($0) })
    #expect((seen.client + seen.server).allSatisfy { $0.checksumsHold })
  }

  @Test func `two IPv6 clients on two runtimes meet at their external endpoints`() throws {
    let cluster = cluster(Self.nat(filtering: .endpointIndependent))
    var externals: [Int: (client: Endpoint, external: Endpoint)] = [:]
    for number in 1...40 {
      cluster.clientSends(.udp(Self.client(number), Self.server6))
      let external = try #require(exchange(cluster).server.first).source
      externals[external.port < 4_000 ? 0 : 1] = (Self.client(number), external)
    }
    let (a, b) = try (#require(externals[0]), #require(externals[1]))
    func outside(_ endpoint: Endpoint) -> Endpoint { Endpoint(Self.prefix.address(of: endpoint.address.ipv4!), port: endpoint.port) }
    cluster.clientSends(.udp(a.client, outside(b.external), payload: [1]))
    #expect(exchange(cluster).client == [.udp(outside(a.external), b.client, payload: [1], ttl: 63)])
    cluster.clientSends(.udp(b.client, outside(a.external), payload: [2]))
    #expect(exchange(cluster).client == [.udp(outside(b.external), a.client, payload: [2], ttl: 63)])
  }
}
