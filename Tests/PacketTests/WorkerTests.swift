import Dataplane
import FlowActors
import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Simulation
import Testing
import Wire

/// A runtime's worker between its port and its rings.
@Suite struct RuntimeWorkerTests {
  let fabric = FabricAddress(cluster: 1, node: 7)
  let port = WirePort("fabric", MACAddress(0x02_00_00_00_00_07))
  let rings = WorkerRings()

  func worker() -> Worker {
    var rules = FlowRules()
    rules.capacity = 256
    return Worker.runtime(
      port: port, address: fabric, chain: ServiceChain([ServiceStage("packet-counter", PacketCounter(), share: .whole)]),
      rules: rules, seed: 5, rings: rings, now: .zero, memory: .plain)
  }

  let toSwitch = FabricAddress(cluster: 1, node: 3)

  @Test func `packets go back to the switch they came from, roles exchanged`() {
    let worker = worker()
    let syn = TestPacket.tcp("10.0.0.1:1234", "10.0.0.2:80", .syn)
    port.incoming = [
      syn.link(to: fabric.address(of: .client), from: toSwitch.address(of: .client)),
      syn.answered([.syn, .ack]).link(to: fabric.address(of: .server), from: toSwitch.address(of: .server)),
    ]
    #expect(worker.pass(at: Tick(milliseconds: 1)) > 0)
    #expect(
      port.takeSent() == [
        syn.link(to: toSwitch.address(of: .server), from: fabric.address(of: .server)),
        syn.answered([.syn, .ack]).link(to: toSwitch.address(of: .client), from: fabric.address(of: .client)),
      ])
    #expect(port.memory.framesInUse == 0)
  }

  @Test func `what is for nobody here, and what the port does not take, is dropped and counted`() {
    let worker = worker()
    let queries = (1...10).map { TestPacket.udp(endpoint("10.0.0.1", $0), "10.0.0.2:53") }
    port.incoming = queries.map { $0.link(to: fabric.address(of: .client), from: toSwitch.address(of: .client)) }
    port.incoming.append(queries[0].link(to: .broadcast, from: toSwitch.address(of: .client)))
    port.incoming.append(TestPacket(bytes: [1, 2, 3]))
    port.room = 7
    _ = worker.pass(at: Tick(milliseconds: 1))
    _ = worker.pass(at: Tick(milliseconds: 5))
    let counters = worker.published.read()
    #expect(counters.received == 12 && counters.forwarded == 7 && counters.dropped == 5)
    let drops = Dictionary(uniqueKeysWithValues: worker.published.drops().map { ($0.code, $0.count) })
    #expect(drops == [DropReason.transmitQueueFull.code: 3, DropReason.notForThisNode.code: 2])
    #expect(port.memory.framesInUse == 0)
  }

  @Test func `the control thread's commands are answered through the other ring`() {
    let worker = worker()
    let members = WorkerCommand.Members(version: 4, entries: [])
    #expect(rings.commands.put(.members(members)) && rings.commands.put(.stop))
    _ = worker.pass(at: .zero)
    #expect(worker.isRunning)
    _ = worker.pass(at: .zero)
    #expect(!worker.isRunning)
    guard case .applied(let applied)? = rings.events.take(), applied === members, case .stopped? = rings.events.take() else {
      Issue.record("applied, then stopped was expected")
      return
    }
    #expect(rings.events.take() == nil)
    #expect(worker.passes == 2)
  }
}

/// A virtual switch between a client's network, a server's network and two runtimes.
@Suite struct SwitchWorkerTests {
  let memory = WireMemory()
  let client: WirePort
  let server: WirePort
  let fabric: WirePort
  let rings = WorkerRings()
  let address = FabricAddress(cluster: 1, node: 3)
  let first = FabricAddress(cluster: 1, node: 11)
  let second = FabricAddress(cluster: 1, node: 12)
  let worker: Worker

  let clientMAC = MACAddress(0x02_00_00_00_0c_01)
  let serverMAC = MACAddress(0x02_00_00_00_05_01)

  init() {
    client = WirePort("client", MACAddress(0x02_00_00_00_00_01), memory: memory)
    server = WirePort("server", MACAddress(0x02_00_00_00_00_02), memory: memory)
    fabric = WirePort("fabric", MACAddress(0x02_00_00_00_00_03), memory: memory)
    var rules = FlowRules()
    rules.capacity = 512
    worker = Worker.virtualSwitch(
      ports: SwitchPorts(client: client, server: server, fabric: fabric), address: address,
      client: UplinkSettings(
        interfaces: [.init(address: IPv4Address("10.1.0.1")!, prefixLength: 24)],
        answersFor: [IPv4Address("10.1.0.100")!...IPv4Address("10.1.0.101")!]),
      server: UplinkSettings(
        interfaces: [.init(address: IPv4Address("10.2.0.1")!, prefixLength: 24)], gateway: IPv4Address("10.2.0.254")!),
      rules: rules, seed: 9, rings: rings, now: .zero, memory: .plain)
    pass(0)
    _ = client.takeSent()
    _ = server.takeSent()
  }

  func pass(_ milliseconds: UInt64) { _ = worker.pass(at: Tick(milliseconds: milliseconds)) }

  func member(_ fabric: FabricAddress, _ node: UInt32, flows: UInt64 = 0, life: UInt64 = 1, serving: Bool = true)
    -> RuntimeTable.Entry
  {
    .init(
      node: node, incarnation: life, input: fabric.address(of: .client), output: fabric.address(of: .server), isServing: serving,
      flows: flows)
  }

  func setMembers(_ entries: [RuntimeTable.Entry]) {
    _ = rings.commands.put(.members(.init(version: 1, entries: entries)))
    pass(0)
    guard case .applied? = rings.events.take() else {
      Issue.record("the members were not taken over")
      return
    }
  }

  func serverAnswersARP(at milliseconds: UInt64) {
    server.incoming.append(.arp(.reply, from: serverMAC, "10.2.0.9", to: server.address, "10.2.0.1"))
    pass(milliseconds)
  }

  func drops() -> [String: UInt64] {
    let names = Dictionary(uniqueKeysWithValues: DropReason.platform.map { ($0.reason.code, $0.name) })
    return Dictionary(uniqueKeysWithValues: worker.published.drops().map { (names[$0.code] ?? "?", $0.count) })
  }

  /// A packet from the client's side as a runtime would send it on to the server.
  func passedOn(_ packet: TestPacket, by runtime: FabricAddress) -> TestPacket {
    packet.link(to: address.address(of: .server), from: runtime.address(of: .server))
  }

  // MARK: ARP

  @Test func `it answers for its own and its functions' addresses, and for no others`() {
    for target in ["10.1.0.1", "10.1.0.100", "10.1.0.101", "10.1.0.50"] {
      client.incoming.append(.arp(.request, from: clientMAC, "10.1.0.9", to: .zero, target))
    }
    pass(1)
    #expect(
      client.takeSent()
        == ["10.1.0.1", "10.1.0.100", "10.1.0.101"].map {
          TestPacket.arp(.reply, from: client.address, $0, to: clientMAC, "10.1.0.9").link(to: clientMAC, from: client.address)
        })
    pass(5)
    #expect(worker.published.read().consumed == 4)
    #expect(memory.framesInUse == 0)
  }

  @Test func `packets wait for their next hop and leave in order`() {
    setMembers([member(first, 11)])
    let packets = (1...5).map { TestPacket.udp("10.1.0.9:5000", endpoint("10.2.0.9", $0)) }
    fabric.incoming = packets.map { passedOn($0, by: first) }
    pass(1)
    #expect(
      server.takeSent() == [
        TestPacket.arp(.request, from: server.address, "10.2.0.1", to: .zero, "10.2.0.9").link(
          to: .broadcast, from: server.address)
      ])
    #expect(memory.framesInUse == 5, "held")
    let late = TestPacket.udp("10.1.0.9:5000", "10.2.0.9:6")
    fabric.incoming = [passedOn(late, by: first)]
    serverAnswersARP(at: 3)
    #expect(server.takeSent() == (packets + [late]).map { $0.link(to: serverMAC, from: server.address) })
    pass(9)
    #expect(memory.framesInUse == 0)
    let counters = worker.published.read()
    #expect(counters.received == 7 && counters.forwarded == 6 && counters.consumed == 1 && counters.dropped == 0)
  }

  @Test func `packets whose next hop stays silent are dropped in the end`() {
    setMembers([member(first, 11)])
    fabric.incoming = [passedOn(.udp("10.1.0.9:5000", "10.2.0.77:1"), by: first)]
    for now in stride(from: 0, through: 10_000, by: 100) { pass(UInt64(now)) }
    #expect(drops() == ["unresolved-next-hop": 1])
    let questions = server.takeSent().filter { Array($0.bytes[38..<42]) == [10, 2, 0, 77] }
    #expect((1...8).contains(questions.count), "it asks once a second, not in every pass")
    #expect(memory.framesInUse == 0)
    let counters = worker.published.read()
    #expect(counters.received == counters.forwarded + counters.dropped + counters.consumed)
  }

  @Test func `no more than a batch waits`() {
    setMembers([member(first, 11)])
    fabric.incoming = (1...100).map { passedOn(.udp("10.1.0.9:5000", endpoint("10.2.0.9", $0)), by: first) }
    pass(1)
    pass(2)
    pass(5)
    #expect(memory.framesInUse == 64)
    #expect(drops() == ["waiting-for-next-hop": 36])
    serverAnswersARP(at: 10)
    #expect(memory.framesInUse == 0)
  }

  // MARK: Dispatch

  @Test func `an ICMP error goes to the runtime that has the flow it is about`() {
    setMembers([member(first, 11), member(second, 12)])
    let query = TestPacket.udp("10.1.0.9:5000", "10.2.0.9:53")
    client.incoming = [query.link(to: client.address, from: clientMAC)]
    pass(1)
    #expect(fabric.takeSent().map(\.destinationMAC) == [first.address(of: .client)])
    fabric.incoming = [passedOn(query, by: first)]
    pass(2)
    let error = TestPacket.icmpError(from: "10.2.0.254", about: query)
    let other = TestPacket.icmpError(from: "10.2.0.254", about: .udp("10.1.0.9:7", "10.2.0.9:53"))
    server.incoming = [error, other].map { $0.link(to: server.address, from: serverMAC) }
    pass(3)
    #expect(fabric.takeSent() == [error.afterHops().link(to: first.address(of: .server), from: address.address(of: .server))])
    pass(9)
    #expect(drops()["icmp-error-without-flow"] == 1)
  }

  @Test func `new flows go to the runtime with the fewest, packets of known ones to its own`() {
    setMembers([member(first, 11, flows: 10), member(second, 12, flows: 4)])
    let queries = (0..<20).map {
      TestPacket.udp(endpoint("10.1.0.9", 5_000 + $0), "10.1.0.100:53").link(to: client.address, from: clientMAC)
    }
    client.incoming = queries
    pass(1)
    let sent = fabric.takeSent()
    #expect(sent.count == 20)
    let toFirst = sent.filter { $0.destinationMAC == first.address(of: .client) }.count
    #expect(toFirst == 7, "10 + 7 = 4 + 13")
    #expect(sent.allSatisfy { $0.sourceMAC == address.address(of: .client) })
    client.incoming = queries
    pass(2)
    #expect(fabric.takeSent() == sent)
  }

  @Test func `answers go to the runtime that their flow went through, whatever it rewrote`() {
    setMembers([member(first, 11), member(second, 12)])
    serverAnswersARP(at: 0)
    // The second runtime has translated the client.
    fabric.incoming = [passedOn(.udp("203.0.113.5:7777", "10.2.0.9:53"), by: second)]
    pass(1)
    serverAnswersARP(at: 2)
    server.incoming = [
      TestPacket.udp("10.2.0.9:53", "203.0.113.5:7777").link(to: server.address, from: serverMAC),
      TestPacket.udp("10.2.0.9:53", "203.0.113.5:7778").link(to: server.address, from: serverMAC),
    ]
    pass(5)
    #expect(
      fabric.takeSent() == [
        TestPacket.udp("10.2.0.9:53", "203.0.113.5:7777").afterHops().link(
          to: second.address(of: .server), from: address.address(of: .server))
      ])
    pass(8)
    #expect(drops() == ["no-flow": 1], "nobody asked from port 7778")
  }

  @Test func `who is not in the cluster is not listened to`() {
    setMembers([member(first, 11)])
    fabric.incoming = [
      passedOn(.udp("10.1.0.9:5000", "10.2.0.9:53"), by: second),
      TestPacket.udp("10.1.0.9:5000", "10.2.0.9:53").link(to: fabric.address, from: first.address(of: .server)),
    ]
    client.incoming = [TestPacket.udp("10.1.0.9:5000", "10.2.0.9:53").link(to: .broadcast, from: clientMAC)]
    pass(1)
    pass(5)
    #expect(drops() == ["unknown-source": 1, "not-for-this-node": 2])
    #expect(memory.framesInUse == 0)
  }

  @Test func `a runtime that is gone gets nothing; its flow's next packet goes to another`() {
    let query = TestPacket.udp("10.1.0.9:5000", "10.1.0.100:53").link(to: client.address, from: clientMAC)
    client.incoming = [query]
    pass(1)
    setMembers([member(first, 11), member(second, 12, flows: 5)])
    client.incoming = [query]
    pass(2)
    #expect(fabric.takeSent().map(\.destinationMAC) == [first.address(of: .client)])
    setMembers([member(second, 12, flows: 5)])
    client.incoming = [query, query]
    pass(3)
    pass(9)
    #expect(fabric.takeSent().map(\.destinationMAC) == [second.address(of: .client)])
    #expect(drops() == ["no-runtime": 2], "before anybody served, and when its runtime was gone")
  }

  @Test func `a runtime that drains keeps its flows, and new ones go to another`() {
    setMembers([member(first, 11), member(second, 12, flows: 5)])
    let old = TestPacket.udp("10.1.0.9:5000", "10.1.0.100:53").link(to: client.address, from: clientMAC)
    let new = TestPacket.udp("10.1.0.9:5001", "10.1.0.100:53").link(to: client.address, from: clientMAC)
    client.incoming = [old]
    pass(1)
    _ = fabric.takeSent()
    var draining = member(first, 11, serving: false)
    draining.isAlive = true
    setMembers([draining, member(second, 12, flows: 5)])
    client.incoming = [old, new]
    pass(2)
    #expect(fabric.takeSent().map(\.destinationMAC) == [first.address(of: .client), second.address(of: .client)])
    #expect(drops() == [:])
  }

  @Test func `a runtime that comes back in another life is served like any other`() {
    setMembers([member(first, 11, life: 1)])
    setMembers([member(first, 11, life: 2)])
    client.incoming = [TestPacket.udp("10.1.0.9:5000", "10.2.0.9:53").link(to: client.address, from: clientMAC)]
    fabric.incoming = [passedOn(.udp("10.1.0.9:5000", "10.2.0.9:53"), by: first)]
    pass(1)
    serverAnswersARP(at: 2)
    let answer = TestPacket.udp("10.2.0.9:53", "10.1.0.9:5000")
    server.incoming = [answer.link(to: server.address, from: serverMAC)]
    _ = fabric.takeSent()
    pass(3)
    pass(9)
    #expect(fabric.takeSent() == [answer.afterHops().link(to: first.address(of: .server), from: address.address(of: .server))])
    #expect(drops() == [:])
  }

  // MARK: IPv6

  /// A switch with IPv6 on both sides, and a runtime.
  func dualStack() -> Worker {
    func side(_ network: String, gateway: String? = nil) -> UplinkSettings {
      var settings = UplinkSettings(interfaces: [])
      settings.ipv6.interfaces = [(IPAddress("\(network)::1")!, AddressBlock("\(network)::/64")!)]
      settings.ipv6.answersFor = [AddressBlock("\(network)::100")!]
      settings.ipv6.gateway = gateway.flatMap { IPAddress($0) }
      return settings
    }
    let worker = Worker.virtualSwitch(
      ports: SwitchPorts(client: client, server: server, fabric: fabric), address: address, client: side("2001:db8:1"),
      server: side("2001:db8:2", gateway: "2001:db8:2::fe"), rules: FlowRules(), seed: 9, rings: rings, now: .zero, memory: .plain)
    _ = rings.commands.put(.members(.init(version: 1, entries: [member(first, 11)])))
    _ = worker.pass(at: .zero)
    _ = rings.events.take()
    return worker
  }

  /// A neighbor message, written byte by byte (RFC 4861 §4.3, §4.4).
  static func neighbor(
    _ type: UInt8, from source: Endpoint, to destination: Endpoint, target: String, link: MACAddress?, flags: UInt8 = 0, hops: UInt8 = 255
  ) -> TestPacket {
    let address = IPAddress(target)!
    var bytes: [UInt8] = []
    for word in [address.high, address.low] {
      for index in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * index))) }
    }
    var option: [UInt8] = []
    if let link {
      option = [type == 135 ? 1 : 2, 1]
      for index in 0..<6 { option.append(UInt8(truncatingIfNeeded: link.value >> UInt64(40 - 8 * index))) }
    }
    let body: [UInt8] = [type, 0, 0, 0, flags, 0, 0, 0] + bytes + option
    return .ip(source, destination, IPProtocol.icmpv6, body, checksumAt: 2, ttl: hops)
  }

  @Test func `neighbors are answered for its own and its functions' addresses, and only from this link`() {
    let worker = dualStack()
    #expect(client.takeSent().filter { $0.icmpTypeAndCode == [136, 0] }.map(\.destinationMAC) == Array(repeating: MACAddress(0x3333_0000_0001), count: 2))
    func ask(_ target: String, from source: Endpoint = "[2001:db8:1::9]:0", link: Bool = true, hops: UInt8 = 255) {
      client.incoming.append(
        Self.neighbor(135, from: source, to: "[ff02::1:ff00:1]:0", target: target, link: link ? clientMAC : nil, hops: hops)
          .link(to: MACAddress(0x3333_ff00_0001), from: clientMAC))
    }
    ask("2001:db8:1::1")
    ask("2001:db8:1::100")
    ask("2001:db8:1::77")
    ask("2001:db8:1::1", hops: 254)
    ask("2001:db8:1::1", from: "[::]:0", link: false)
    client.incoming.append(client.incoming[0].breaking(.transportChecksum))
    _ = worker.pass(at: Tick(milliseconds: 1))
    let answers = client.takeSent()
    #expect(
      answers == [
        Self.neighbor(136, from: "[2001:db8:1::1]:0", to: "[2001:db8:1::9]:0", target: "2001:db8:1::1", link: client.address, flags: 0x60)
          .link(to: clientMAC, from: client.address),
        Self.neighbor(136, from: "[2001:db8:1::100]:0", to: "[2001:db8:1::9]:0", target: "2001:db8:1::100", link: client.address, flags: 0x60)
          .link(to: clientMAC, from: client.address),
        // Somebody asks whether the address is taken (RFC 4862 §5.4): everybody is told that it is.
        Self.neighbor(136, from: "[2001:db8:1::1]:0", to: "[ff02::1]:0", target: "2001:db8:1::1", link: client.address, flags: 0x20)
          .link(to: MACAddress(0x3333_0000_0001), from: client.address),
      ])
    _ = worker.pass(at: Tick(milliseconds: 5))
    #expect(worker.published.read().consumed == 4 && worker.published.read().dropped == 2)
    #expect(memory.framesInUse == 0)
  }

  @Test func `IPv6 packets find their runtime, wait for their neighbor and go on, or to the gateway`() {
    let worker = dualStack()
    _ = server.takeSent()
    let packet = TestPacket.udp("[2001:db8:1::9]:5000", "[2001:db8:2::9]:53", payload: [1, 2])
    client.incoming = [packet.link(to: client.address, from: clientMAC)]
    _ = worker.pass(at: Tick(milliseconds: 1))
    let sent = fabric.takeSent()
    #expect(sent == [packet.afterHops().link(to: first.address(of: .client), from: address.address(of: .client))])
    let far = TestPacket.udp("[2001:db8:1::9]:5000", "[2001:db8:ffff::1]:53")
    fabric.incoming = [passedOn(packet, by: first), passedOn(far, by: first)]
    _ = worker.pass(at: Tick(milliseconds: 2))
    let questions = server.takeSent()
    #expect(
      questions == [
        Self.neighbor(135, from: "[2001:db8:2::1]:0", to: "[ff02::1:ff00:9]:0", target: "2001:db8:2::9", link: server.address)
          .link(to: MACAddress(0x3333_ff00_0009), from: server.address),
        Self.neighbor(135, from: "[2001:db8:2::1]:0", to: "[ff02::1:ff00:fe]:0", target: "2001:db8:2::fe", link: server.address)
          .link(to: MACAddress(0x3333_ff00_00fe), from: server.address),
      ])
    for target in ["2001:db8:2::9", "2001:db8:2::fe"] {
      server.incoming.append(
        Self.neighbor(136, from: "[2001:db8:2::9]:0", to: "[2001:db8:2::1]:0", target: target, link: serverMAC, flags: 0x60)
          .link(to: server.address, from: serverMAC))
    }
    _ = worker.pass(at: Tick(milliseconds: 3))
    #expect(server.takeSent() == [packet, far].map { $0.link(to: serverMAC, from: server.address) })
    // The answer goes to the runtime, and an old packet is reported in our name.
    server.incoming = [packet.answered().link(to: server.address, from: serverMAC)]
    client.incoming = [packet.afterHops(63).link(to: client.address, from: clientMAC)]
    _ = client.takeSent()
    _ = worker.pass(at: Tick(milliseconds: 4))
    #expect(fabric.takeSent() == [packet.answered().afterHops().link(to: first.address(of: .server), from: address.address(of: .server))])
    let report = client.takeSent()
    #expect(report.count == 1 && report[0].icmpTypeAndCode == [3, 0] && report[0].checksumsHold)
    #expect(report[0].source.address == IPAddress("2001:db8:1::1"))
  }

  // MARK: Errors

  /// What the switch says to the client, without the frame's end.
  func reports() -> [TestPacket] { client.takeSent().filter { $0.protocolNumber == IPProtocol.icmp || $0.protocolNumber == IPProtocol.icmpv6 } }

  @Test func `a packet whose time to live is used up goes no further, and its sender is told`() throws {
    setMembers([member(first, 11)])
    let old = TestPacket.udp("10.1.0.9:5000", "10.2.0.9:53", payload: Array(0..<100), ttl: 1)
    client.incoming = [
      old.link(to: client.address, from: clientMAC), TestPacket.udp("10.1.0.9:5001", "10.2.0.9:53", ttl: 2).link(to: client.address, from: clientMAC),
    ]
    pass(1)
    let reports = reports()
    let report = try #require(reports.first)
    #expect(reports.count == 1 && report.checksumsHold && report.sourceMAC == client.address && report.destinationMAC == clientMAC)
    #expect(report.source.address == IPAddress("10.1.0.1") && report.destination.address == IPAddress("10.1.0.9"))
    #expect(report.icmpTypeAndCode == [11, 0] && report.quotedPacket?.bytes.dropFirst(14) == old.bytes.dropFirst(14))
    #expect(fabric.takeSent().map(\.source.port) == [5001])
    pass(5)
    #expect(drops() == ["ttl-exceeded": 1] && memory.framesInUse == 0)
  }

  @Test func `a packet that is too long for the other side, and may not be cut, is reported with the length that fits`() throws {
    setMembers([member(first, 11)])
    server.longest = 1_000
    let long = TestPacket.udp("10.1.0.9:5000", "10.2.0.9:53", payload: Array(repeating: 7, count: 973))
    // Without "don't fragment" the port sees to it.
    var mayBeCut = TestPacket.udp("10.1.0.9:5001", "10.2.0.9:53", payload: Array(repeating: 7, count: 973))
    mayBeCut.bytes.replaceSubrange(20..<22, with: [0, 0])
    mayBeCut = mayBeCut.afterHops(0)
    let fits = TestPacket.udp("10.1.0.9:5002", "10.2.0.9:53", payload: Array(repeating: 7, count: 972))
    client.incoming = [long, mayBeCut, fits].map { $0.link(to: client.address, from: clientMAC) }
    pass(1)
    let report = try #require(reports().first)
    #expect(report.checksumsHold && report.icmpTypeAndCode == [3, 4])
    #expect(Array(report.bytes[38..<42]) == [0, 0, 3, 232], "the next link's 1000 bytes (RFC 1191)")
    #expect(report.bytes.count == 14 + 576 && report.bytes[42...] == long.bytes[14..<14 + 548])
    #expect(fabric.takeSent().map(\.source.port) == [5001, 5002])
    pass(5)
    #expect(drops() == ["packet-too-big": 1])
  }

  @Test func `nobody is told about an error, a stranger's packet, or too often`() {
    setMembers([member(first, 11)])
    func say(_ packet: TestPacket) { client.incoming.append(packet.link(to: client.address, from: clientMAC)) }
    func old(_ packet: TestPacket) -> TestPacket { packet.afterHops(63) }
    say(old(.icmpError(from: "10.1.0.9", about: .udp("10.2.0.9:53", "10.1.0.9:5000"))))
    say(old(.udp("0.0.0.0:68", "10.2.0.9:67")))
    say(old(.udp("10.1.0.9:5000", "224.0.0.5:67")))
    say(old(.udp("127.0.0.1:5000", "10.2.0.9:67")))
    say(old(.udp("[2001:db8::1]:5000", "[2001:db8::2]:53")))
    pass(1)
    #expect(reports().isEmpty, "and no address of ours is an IPv6 one")
    for port in 1...200 { say(old(.udp(endpoint("10.1.0.9", port), "10.2.0.9:53"))) }
    for _ in 0..<5 { pass(2) }
    #expect(reports().count == 64)
    for port in 1...200 { say(old(.udp(endpoint("10.1.0.9", port), "10.2.0.9:53"))) }
    for _ in 0..<5 { pass(102) }
    #expect(reports().count == 10, "one every 10 ms")
    pass(105)
    #expect(drops() == ["ttl-exceeded": 405])
  }

  // MARK: Books

  @Test(arguments: [51, 52, 53] as [UInt64])
  func `received is forwarded, dropped, consumed or held, whatever comes`(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    setMembers([member(first, 11), member(second, 12)])
    for now in 0..<1_500 {
      for _ in 0..<numbers.below(6) {
        let from = endpoint("10.1.0.\(numbers.below(8))", 5_000 + numbers.below(4))
        let to = endpoint("10.2.0.\(numbers.below(8))", 80)
        let packet = numbers.oneIn(2) ? TestPacket.udp(from, to) : .tcp(from, to, [.syn, .ack, .fin, .rst][numbers.below(4)])
        switch numbers.below(8) {
        case 0, 1: client.incoming.append(packet.link(to: client.address, from: clientMAC))
        case 2: server.incoming.append(packet.answeredPlainly.link(to: server.address, from: serverMAC))
        case 3, 4: fabric.incoming.append(passedOn(packet, by: numbers.oneIn(2) ? first : second))
        case 5:
          server.incoming.append(.arp(.reply, from: serverMAC, "10.2.0.\(numbers.below(8))", to: server.address, "10.2.0.1"))
        case 6: fabric.incoming.append(TestPacket(bytes: numbers.bytes(numbers.below(80))))
        default: client.incoming.append(.arp(.request, from: clientMAC, "10.1.0.9", to: .zero, "10.1.0.\(numbers.below(8))"))
        }
      }
      if numbers.oneIn(20) { server.room = numbers.below(5) }
      if numbers.oneIn(20) { server.room = .max }
      if numbers.oneIn(100) { setMembers(numbers.oneIn(2) ? [member(first, 11)] : [member(first, 11), member(second, 12)]) }
      pass(UInt64(now) * 20)
    }
    pass(1_500 * 20 + 10)
    let counters = worker.published.read()
    let held = UInt64(memory.framesInUse)
    #expect(counters.received == counters.forwarded + counters.dropped + counters.consumed + held, "seed \(seed)")
    #expect(counters.dropped == worker.published.drops().reduce(0) { $0 + $1.count }, "seed \(seed)")
    #expect(counters.forwarded > 500)
    for now in stride(from: 31_000, to: 40_000, by: 50) { pass(UInt64(now)) }
    #expect(memory.framesInUse == 0, "nothing waits for ever: seed \(seed)")
  }
}
