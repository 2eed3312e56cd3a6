import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

@Suite struct NATTests {
  let runtime = TestRuntime(try! NAT(reader: SettingsReader(text: Example.nat)))

  @Test func `a client's packets leave with a pool address and answers find back`() {
    let query = TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53", payload: [1, 2, 3])
    let sent = runtime.send(query).packet
    #expect(sent?.source.address == Endpoint("10.2.0.200").address || sent?.source.address == Endpoint("10.2.0.201").address)
    #expect(sent?.source.port == 1100)
    #expect(sent?.destination == "192.0.2.1:53")
    #expect(sent?.checksumsHold == true)
    let answer = runtime.send(sent!.answered(payload: [4])).packet
    #expect(answer == .udp("192.0.2.1:53", "10.0.0.1:1100", payload: [4]))
  }

  @Test func `an echo's identifier is its port`() {
    let ping = TestPacket.icmpEchoRequest("10.0.0.1", "192.0.2.1", id: 5, payload: [9])
    let sent = runtime.send(ping).packet!
    #expect(sent.source.port != 5 && (1024...1535).contains(sent.source.port) && sent.checksumsHold)
    #expect(runtime.send(sent.answered()).packet == ping.answered())
  }

  @Test func `one client port has one external port, whatever the destination`() {
    let first = runtime.send(.udp("10.0.0.1:5000", "192.0.2.1:53")).packet!
    let second = runtime.send(.udp("10.0.0.1:5000", "198.51.100.9:99")).packet!
    let other = runtime.send(.udp("10.0.0.1:5002", "192.0.2.1:53")).packet!
    #expect(first.source == second.source)
    #expect(other.source.address == first.source.address, "the same client keeps the same address")
    #expect(other.source != first.source)
    #expect(runtime.observed("nat.mappings") == 2)
  }

  @Test func `a port is kept if it is free, else at least its parity`() {
    #expect(runtime.send(.udp("10.0.0.1:1030", "192.0.2.1:53")).packet?.source.port == 1030)
    for port: UInt16 in [5000, 5001, 40_000, 40_001] {
      let sent = runtime.send(.udp(Endpoint(IPv4Address("10.0.0.1"), port: port), "192.0.2.1:53")).packet!
      #expect(sent.source.port % 2 == port % 2)
    }
    // TCP has ports of its own.
    #expect(runtime.send(.tcp("10.0.0.1:1030", "192.0.2.1:80", .syn)).packet?.source.port == 1030)
  }

  @Test func `the pool is used to the last port, then the flow is refused and counted`() {
    for client in 0..<1024 {
      let source = Endpoint(IPv4Address(0x0a00_0000 + UInt32(client)), port: 9)
      #expect(runtime.send(.udp(source, "192.0.2.1:53")).packet != nil, "client \(client)")
    }
    #expect(runtime.send(.udp("10.9.9.9:9", "192.0.2.1:53")) == .dropped("nat-pool-exhausted"))
    #expect(runtime.observed("nat.exhausted") == 1)
    #expect(runtime.observed("nat.pool.10.2.0.200.udp.used") == 512)
    #expect(runtime.observed("nat.pool.10.2.0.201.udp.used") == 512)
    #expect(runtime.observed("nat.pool.10.2.0.200.udp.total") == 512)
    runtime.expireAll()
    #expect(runtime.observed("nat.pool.10.2.0.200.udp.used") == 0)
    #expect(runtime.observed("nat.mappings") == 0)
    #expect(runtime.send(.udp("10.9.9.9:9", "192.0.2.1:53")).packet != nil)
  }

  @Test func `what cannot be translated is dropped with a reason`() {
    #expect(runtime.send(.udp("[2001:db8::1]:1", "[2001:db8::2]:2")) == .dropped("nat-ipv6"))
    #expect(runtime.send(.icmp("10.0.0.1", "192.0.2.1", type: 3)) == .dropped("nat-not-translatable"))
    #expect(runtime.send(.ip("10.0.0.1", "192.0.2.1", 47, [0, 0, 0, 0], checksumAt: nil)) == .dropped("nat-not-translatable"))
    #expect(runtime.flowCount == 0)
  }

  @Test func `a UDP datagram without checksum stays without`() {
    let sent = runtime.send(.udpWithoutChecksum("10.0.0.1:1100", "192.0.2.1:53", payload: [1])).packet!
    #expect(sent.transportChecksum == 0 && sent.checksumsHold)
  }

  @Test func `clients of two VLANs may have the same address`() {
    let a = runtime.send(TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53").vlan(1)).packet!
    let b = runtime.send(TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53").vlan(2)).packet!
    #expect(a.source != b.source)
  }

  // MARK: Shares

  static func runtimes(_ count: Int) -> [TestRuntime] {
    (0..<count).map {
      TestRuntime(try! NAT(reader: SettingsReader(text: Example.nat)), share: RuntimeShare(index: $0, count: count))
    }
  }

  @Test(arguments: [1, 2, 3, 5, 7]) func `no endpoint belongs to two shares`(count: Int) {
    var owners: [Endpoint: Int] = [:]
    for (index, runtime) in NATTests.runtimes(count).enumerated() {
      for client in 0..<UInt32(1100) {
        guard let sent = runtime.send(.udp(Endpoint(IPv4Address(0x0a00_0000 + client), port: 9), "192.0.2.1:53")).packet else {
          continue
        }
        #expect(owners.updateValue(index, forKey: sent.source) == nil)
      }
    }
    #expect(owners.count == 512 / count * count * 2)
  }

  @Test func `a flow keeps its external endpoint when it moves, and nobody else gets it meanwhile`() {
    let (here, there) = (NATTests.runtimes(2)[0], NATTests.runtimes(2)[1])
    let query = TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53")
    let before = here.send(query).packet!
    #expect(here.migrate(flowOf: query, to: there))
    #expect(there.send(query).packet == before)
    #expect(there.send(before.answered()).packet == query.answered())
    #expect(there.observed("nat.foreign-flows") == 1)
    #expect(here.observed("nat.mappings") == 1, "the owner remembers that it is away")
    #expect(here.send(.udp("10.0.0.2:1100", "192.0.2.1:53")).packet?.source != before.source)

    // It comes home and ends there: now it is free.
    #expect(there.migrate(flowOf: query, to: here))
    #expect(there.observed("nat.foreign-flows") == 0)
    here.expireAll()
    #expect(here.observed("nat.mappings") == 0)
  }

  @Test func `an endpoint that ends abroad is free again when its return has arrived`() {
    let nat = try! NAT(reader: SettingsReader(text: Example.nat))
    var owner = nat.makeSharedState(for: RuntimeShare(index: 0, count: 2))
    var borrower = nat.makeSharedState(for: RuntimeShare(index: 1, count: 2))
    var flow = nat.makeFlowState()
    var packet = TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53")
    packet.withFrame { frame in
      #expect(frame.parse(checksums: .verify) == nil)
      #expect(nat.process(&frame, flow: &flow, shared: &owner) == .forward)
    }
    nat.flowMigratesOut(&flow, shared: &owner)
    nat.flowMigratesIn(&flow, shared: &borrower)
    nat.flowExpires(&flow, shared: &borrower, now: .zero)
    #expect(owner.used == 1)
    let returned = borrower.takeReturn()!
    let next = borrower.takeReturn()
    #expect(next == nil)
    let isTheBorrowers = borrower.accept(returned)
    #expect(!isTheBorrowers)
    let isTheOwners = owner.accept(returned)
    #expect(isTheOwners && owner.used == 0)
    let isTakenTwice = owner.accept(returned)
    #expect(!isTakenTwice)
  }

  @Test func `a restarted owner takes an arriving endpoint out of the free ones, and refuses it when it is too late`() {
    let fresh = { TestRuntime(try! NAT(reader: SettingsReader(text: Example.nat))) }
    let (old, restarted) = (fresh(), fresh())
    let a = TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53")
    let sent = old.send(a).packet!
    old.crash(recoveringOn: restarted)
    #expect(restarted.send(a).packet == sent)
    #expect(restarted.observed("nat.pool.\(sent.source.address).udp.used") == 1)

    // Another client got the endpoint before the flow came back.
    let (second, late) = (fresh(), fresh())
    _ = second.send(a)
    var other: TestPacket?
    for client in UInt32(2)..<50 where other == nil {
      let candidate = late.send(.udp(Endpoint(IPv4Address(0x0a00_0000 + client), port: 1100), "198.51.100.1:1")).packet!
      if candidate.source == sent.source { other = candidate }
    }
    #expect(other != nil)
    second.crash(recoveringOn: late)
    #expect(late.send(a) == .dropped("nat-endpoint-lost"))
    #expect(late.observed("nat.endpoints-lost") == 1)
    #expect(late.send(other!.answered()).packet != nil, "the other client is undisturbed")
  }

  @Test func `a first packet that a later function drops takes nothing`() throws {
    let chain = try Catalog.standard.makeChain(
      spec: Example.spec(("nat", Example.nat), ("load-balancer", "services: [{virtual: 10.1.0.100:80/tcp, backends: []}]")),
      share: .whole)
    let runtime = TestRuntime(chain)
    #expect(runtime.send(.tcp("10.0.0.1:1", "10.1.0.100:80", .syn)) == .dropped("no-backend"))
    #expect(runtime.observed("nat.mappings") == 0)
  }

  @Test(arguments: [
    ("ports: 1-2", "'pool' is missing"),
    ("pool: []", "line 1: pool: a pool needs at least one address"),
    ("pool: [10.0.0.1, 10.0.0.0/30]", "line 1: pool[1]: 10.0.0.1 is in the pool twice"),
    ("pool: 10.0.0.0/8", "line 1: pool: a pool has at most 256 addresses"),
    (
      "pool: 10.0.0.9-10.0.0.1",
      "line 1: pool: '10.0.0.9-10.0.0.1' is not an IPv4 address, a range such as 10.2.0.200-10.2.0.203, or a block"
    ),
    ("pool: 2001:db8::/126", "line 1: pool: '2001:db8::/126' is not an IPv4 block"),
    ("pool: 10.0.0.1\nports: 0-9", "line 2: ports: '0-9' is not a port or a range of ports such as 1024-65535 (from 1)"),
    (
      "pool: 10.0.0.1\nfiltering: none",
      "line 2: filtering: 'none' is not one of: endpoint-independent, address-dependent, address-and-port-dependent"
    ),
    ("pool: 10.0.0.1\nper-client: 0", "line 2: per-client: 0 is out of range; it must be from 1 to 16777216"),
    ("pool: 10.0.0.1\nmappings: 1", "line 2: mappings: 1 is out of range; it must be from 64 to 16777216"),
  ])
  func `a wrong setting is refused with its line`(text: String, message: String) {
    #expect(throws: SettingsError.self) { try NAT(reader: SettingsReader(text: text)) }
    do throws(SettingsError) { _ = try NAT(reader: SettingsReader(text: text)) } catch {
      #expect("\(error)".replacingPrefix("line 1: 'pool'", with: "'pool'") == message)
    }
  }
}
