import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// Conversations of IPv6 clients with IPv4 servers (RFC 6146), through the chains that settings make.
@Suite struct NAT64Tests {
  static let settings = "pool: [10.2.0.200-10.2.0.201]\nports: 1024-1535\nnat64: 64:ff9b::/96"
  static let client: Endpoint = "[2001:db8:1::7]:5000"
  static let server: Endpoint = "[64:ff9b::808:808]:80"
  static let server4: Endpoint = "8.8.8.8:80"

  static func runtime(_ settings: String = settings, share: RuntimeShare = .whole) -> TestRuntime {
    TestRuntime(
      try! Catalog.standard.makeChain(spec: Example.spec(("nat", settings)), share: share), relaysErrors: true)
  }

  @Test func `a connection goes there and back, with headers of either family`() throws {
    let runtime = Self.runtime()
    let syn = try #require(runtime.send(.tcp(Self.client, Self.server, .syn, seq: 1, payload: [])).packet)
    #expect(syn.destination == Self.server4 && syn.tcpFlags == .syn && syn.tcpSequence == 1 && syn.checksumsHold)
    #expect((1024...1535).contains(syn.source.port) && syn.source.port % 2 == 0, "of the parity of its own")
    let answer = try #require(runtime.send(syn.answered([.syn, .ack], seq: 9)).packet)
    #expect(answer == .tcp(Self.server, Self.client, [.syn, .ack], seq: 9, ack: 2))
    let data = try #require(runtime.send(.tcp(Self.client, Self.server, .ack, seq: 2, ack: 10, payload: Array(repeating: 1, count: 1_400))).packet)
    #expect(data.source == syn.source && data.payload.count == 1_400 && data.checksumsHold)
    #expect(runtime.flowCount == 1)
    runtime.expireAll()
    #expect(runtime.observed("nat.mappings") == 0 && runtime.observed("nat64.clients") == 0)
    #expect(runtime.observed("nat.pool.10.2.0.200.tcp.used") == 0 && runtime.observed("nat.pool.10.2.0.201.tcp.used") == 0)
  }

  @Test func `datagrams and pings, too`() throws {
    let runtime = Self.runtime()
    let query = try #require(runtime.send(.udp(Self.client, "[64:ff9b::808:808]:53", payload: [1, 2])).packet)
    #expect(query.destination == "8.8.8.8:53" && query.payload == [1, 2] && query.checksumsHold)
    #expect(runtime.send(query.answered(payload: [3])).packet == .udp("[64:ff9b::808:808]:53", Self.client, payload: [3]))
    #expect(
      runtime.send(.udpWithoutChecksum("8.8.8.8:53", query.source, payload: [3])).packet
        == .udp("[64:ff9b::808:808]:53", Self.client, payload: [3]))
    let ping = try #require(runtime.send(.icmpEchoRequest(Self.client, Self.server, id: 7, seq: 3, payload: [5])).packet)
    #expect(ping.icmpTypeAndCode == [8, 0] && ping.destination.address == Self.server4.address && ping.checksumsHold)
    #expect(
      runtime.send(ping.answered()).packet == .icmpEchoReply(Self.server, Self.client, id: 7, seq: 3, payload: [5]))
    #expect(runtime.send(.icmp(Self.client, Self.server, type: 144)) == .dropped("nat-not-translatable"))
    #expect(runtime.send(.ip(Self.client, Self.server, 47, [0, 0, 8, 0], checksumAt: nil)) == .dropped("nat-not-translatable"))
    #expect(runtime.flowCount == 2)
  }

  @Test func `datagrams without a checksum can be dropped instead`() throws {
    let runtime = Self.runtime("pool: 10.2.0.200\nnat64: {prefix: 64:ff9b::/96, udp-without-checksum: drop, traffic-class: zero}")
    let query = try #require(runtime.send(.udp(Self.client, Self.server).setting(15) { _ in 0xf0 }).packet)
    #expect(query.bytes[15] == 0)
    #expect(runtime.send(.udpWithoutChecksum(Self.server4, query.source)) == .dropped("nat64-udp-without-checksum"))
    #expect(runtime.send(.udp(Self.server4, query.source)).packet == .udp(Self.server, Self.client))
  }

  @Test func `one client has one endpoint whomever it speaks to, and one address (RFC 6146 §3.2)`() throws {
    let runtime = Self.runtime()
    let first = try #require(runtime.send(.udp(Self.client, "[64:ff9b::808:808]:53")).packet)
    let second = try #require(runtime.send(.udp(Self.client, "[64:ff9b::909:909]:99")).packet)
    #expect(first.source == second.source && second.destination == "9.9.9.9:99")
    var addresses: Set<IPAddress> = [first.source.address]
    for port in UInt16(6_000)..<6_040 {
      let packet = try #require(runtime.send(.udp(Endpoint(Self.client.address, port: port), "[64:ff9b::808:808]:53")).packet)
      #expect(packet.source != first.source)
      addresses.insert(packet.source.address)
    }
    #expect(addresses.count == 1)
    #expect(runtime.observed("nat64.clients") == 1 && runtime.observed("nat.mappings") == 41)
  }

  @Test func `clients of either family share the pool, and nobody gets what another has`() throws {
    let runtime = Self.runtime("pool: 10.2.0.200\nports: 1024-1027\nnat64: 64:ff9b::/96\nlog: true")
    var externals: Set<Endpoint> = []
    for number in UInt32(0)..<2 {
      externals.insert(try #require(runtime.send(.udp(Endpoint(IPv4Address(0x0a00_0001 + number), port: 1024), "8.8.8.8:53")).packet).source)
      let client = Endpoint(IPAddress(high: 0x2001_0db8_0000_0000, low: UInt64(number)), port: 1024)
      externals.insert(try #require(runtime.send(.udp(client, "[64:ff9b::808:808]:53")).packet).source)
    }
    #expect(externals.count == 4)
    #expect(runtime.send(.udp(Self.client, "[64:ff9b::808:808]:53")) == .dropped("nat-pool-exhausted"))
    #expect(runtime.observed("nat64.clients") == 2, "who got nothing is forgotten")
    var logged: [String] = []
    runtime.chain.betweenBursts(NAT.self) { _, shared in
      while let entry = shared.log.entries?.take() { logged.append("\(entry.event) \(entry.client)") }
    }
    #expect(logged == ["created 10.0.0.1", "created 2001:db8::", "created 10.0.0.2", "created 2001:db8::1", "exhausted \(Self.client.address)"])
  }

  @Test func `IPv6 to other addresses is none of its business`() {
    let elsewhere = TestPacket.udp(Self.client, "[2001:db8:2::1]:53")
    #expect(Self.runtime().send(elsewhere) == .dropped("nat-ipv6"))
    let passing = Self.runtime(Self.settings + "\nipv6: forward")
    #expect(passing.send(elsewhere) == .forwarded(elsewhere))
    #expect(passing.send(elsewhere.answered()) == .forwarded(elsewhere.answered()))
    #expect(passing.observed("nat.mappings") == 0)
  }

  @Test func `the well-known prefix is for global addresses, others for any host (RFC 6052 §3.1)`() {
    let runtime = Self.runtime()
    for address in ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.0.1", "192.0.2.1", "198.18.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"] {
      let server = Endpoint(NAT64Prefix.wellKnown.address(of: IPv4Address(address)!), port: 53)
      #expect(runtime.send(.udp(Self.client, server)) == .dropped("nat64-not-a-destination"), "\(address)")
    }
    for address in ["9.255.255.255", "11.0.0.0", "172.15.0.1", "172.32.0.1", "192.167.0.1", "198.17.0.1", "223.255.255.255"] {
      let server = Endpoint(NAT64Prefix.wellKnown.address(of: IPv4Address(address)!), port: 53)
      #expect(runtime.send(.udp(Self.client, server)).packet?.destination.address.ipv4 == IPv4Address(address)!)
    }
    let local = Self.runtime("pool: 10.2.0.200\nnat64: 2001:db8:64::/96")
    #expect(local.send(.udp(Self.client, "[2001:db8:64::a02:9]:53")).packet?.destination == "10.2.0.9:53")
    #expect(local.send(.udp(Self.client, "[2001:db8:64::7f00:1]:53")) == .dropped("nat64-not-a-destination"))
    #expect(local.send(.udp("[2001:db8:64::a02:9]:5", "[2001:db8:64::a02:a]:53")) == .dropped("nat64-not-a-destination"), "no loops (RFC 6146 §3.5)")
  }

  @Test func `who may come in is what filtering says (RFC 6146 §3.5)`() throws {
    let strict = Self.runtime()
    let out = try #require(strict.send(.udp(Self.client, "[64:ff9b::808:808]:53")).packet)
    #expect(strict.send(.udp("9.9.9.9:53", out.source), from: .reverse) == .dropped("nat-filtered"))

    let byAddress = Self.runtime(Self.settings + "\nfiltering: address-dependent")
    let known = try #require(byAddress.send(.udp(Self.client, "[64:ff9b::808:808]:53")).packet)
    #expect(byAddress.send(.udp("9.9.9.9:53", known.source), from: .reverse) == .dropped("nat-filtered"))
    #expect(byAddress.send(.udp("8.8.8.8:99", known.source), from: .reverse).packet == .udp("[64:ff9b::808:808]:99", Self.client))

    let open = Self.runtime(Self.settings + "\nfiltering: endpoint-independent\nhold: 0s")
    let mapped = try #require(open.send(.udp(Self.client, "[64:ff9b::808:808]:53")).packet)
    let stranger = TestPacket.udp("9.9.9.9:1234", mapped.source, payload: [4])
    #expect(open.send(stranger, from: .reverse).packet == .udp("[64:ff9b::909:909]:1234", Self.client, payload: [4]))
    // And the client answers: the flow is known by both keys.
    let reply = try #require(open.send(.udp(Self.client, "[64:ff9b::909:909]:1234", payload: [5])).packet)
    #expect(reply.source == mapped.source && reply.destination == "9.9.9.9:1234")
    #expect(open.flowCount == 2 && open.observed("nat.mappings") == 1)
    open.expireAll()
    #expect(open.observed("nat.mappings") == 0 && open.observed("nat64.clients") == 0)
  }

  @Test func `two IPv6 clients meet at their external endpoints (RFC 6146 §3.8)`() throws {
    let runtime = Self.runtime("pool: 8.8.4.4\nfiltering: endpoint-independent\nnat64: 64:ff9b::/96")
    let other: Endpoint = "[2001:db8:1::8]:6000"
    let a = try #require(runtime.send(.udp(Self.client, "[64:ff9b::808:808]:53")).packet).source
    let b = try #require(runtime.send(.udp(other, "[64:ff9b::808:808]:53")).packet).source
    let out = try #require(runtime.send(.udp(Self.client, Endpoint(NAT64Prefix.wellKnown.address(of: b.address.ipv4!), port: b.port), payload: [1])).packet)
    #expect(out.source == a && out.destination == b)
    // What the platform does then: in again as from outside.
    let seen = try #require(runtime.send(out, from: .reverse).packet)
    #expect(seen == .udp(Endpoint(NAT64Prefix.wellKnown.address(of: a.address.ipv4!), port: a.port), other, payload: [1]))
  }

  @Test func `a client's limit is for all addresses of its network`() {
    let runtime = Self.runtime(Self.settings + "\nper-client: 3")
    func send(_ high: UInt64, _ low: UInt64, _ port: UInt16) -> TestRuntime.Outcome {
      runtime.send(.udp(Endpoint(IPAddress(high: high, low: low), port: port), "[64:ff9b::808:808]:53"))
    }
    #expect(send(0x2001_0db8_0000_0001, 1, 1).packet != nil && send(0x2001_0db8_0000_0001, 2, 1).packet != nil)
    #expect(send(0x2001_0db8_0000_0001, 3, 9).packet != nil && send(0x2001_0db8_0000_0001, 4, 1) == .dropped("nat-client-limit"))
    #expect(send(0x2001_0db8_0000_0002, 1, 1).packet != nil)
    #expect(runtime.observed("nat64.clients") == 4)
    runtime.expireAll()
    #expect(send(0x2001_0db8_0000_0001, 4, 1).packet != nil)
  }

  // MARK: Errors

  @Test func `errors reach whom they are for, with the packet that they know (RFC 6146 §3.6, RFC 7915 §4.2)`() throws {
    let runtime = TestRuntime(
      try Catalog.standard.makeChain(
        spec: Example.spec(("firewall", "rules:\n  - {action: allow}"), ("nat", Self.settings)), share: .whole), relaysErrors: true)
    let sent = try #require(runtime.send(.tcp(Self.client, Self.server, .syn, seq: 1)).packet)
    let error = TestPacket.icmpError(from: "192.0.2.33", about: sent, type: 11, code: 0, quoting: 28)
    let relayed = try #require(runtime.send(error).packet)
    #expect(relayed.icmpTypeAndCode == [3, 0] && relayed.checksumsHold)
    #expect(relayed.source.address == IPAddress("64:ff9b::c000:221") && relayed.destination.address == Self.client.address)
    #expect(relayed.quotedPacket?.source == Self.client && relayed.quotedPacket?.destination == Self.server)

    let answer = try #require(runtime.send(sent.answered([.syn, .ack], seq: 5)).packet)
    let back = try #require(runtime.send(.icmpError(from: "2001:db8:1::1", about: answer, type: 1, code: 4)).packet)
    #expect(back.icmpTypeAndCode == [3, 3] && back.checksumsHold)
    #expect(back.source.address == sent.source.address, "whoever inside complains seems to be the endpoint")
    #expect(back.destination.address == Self.server4.address)
    #expect(back.quotedPacket?.source == Self.server4 && back.quotedPacket?.destination == sent.source)
    #expect(runtime.observed("nat.icmp-errors.relayed") == 2)
    // One quotes nobody's packet, and one says what IPv6 cannot.
    #expect(runtime.send(.icmpError(from: "192.0.2.33", about: .tcp(sent.source, "9.9.9.9:80", .syn))).packet == nil)
    #expect(runtime.send(.icmpError(from: "192.0.2.33", about: sent, type: 3, code: 14)) == .dropped("nat64-untranslatable-header"))
  }

  @Test func `the path's size reaches both ends`() throws {
    let runtime = Self.runtime()
    let sent = try #require(runtime.send(.udp(Self.client, Self.server, payload: Array(repeating: 1, count: 1_400))).packet)
    var tooBig = TestPacket.icmpError(from: "192.0.2.33", about: sent, type: 3, code: 4, quoting: 28)
    tooBig = .icmp(tooBig.source, tooBig.destination, type: 3, code: 4, body: [0, 0, 5, 120] + tooBig.bytes[42...])
    let relayed = try #require(runtime.send(tooBig).packet)
    #expect(relayed.icmpTypeAndCode == [2, 0] && Array(relayed.bytes[58..<62]) == [0, 0, 5, 140], "1,400 and 20")
  }

  // MARK: Chains

  @Test func `functions before it see IPv6, those behind it IPv4, in both directions`() throws {
    let chain = try Catalog.standard.makeChain(
      spec: Example.spec(
        ("firewall", "default: deny\nrules:\n  - {action: allow, protocol: tcp, from: 2001:db8::/32, to: 64:ff9b::/96, to-ports: 80}"),
        ("nat", "pool: 10.2.0.200\nnat64: 64:ff9b::/96"),
        ("load-balancer", "services:\n  - {virtual: 8.8.8.8:80/tcp, backends: [10.2.0.11:8080]}\nother: forward"),
        ("firewall", "default: deny\nrules:\n  - {action: allow, protocol: tcp, from: 10.2.0.200, to: 10.2.0.11}")),
      share: .whole)
    #expect(chain.stages.map(\.name) == ["firewall", "nat", "load-balancer", "firewall"], "not compiled with what is IPv4's alone")
    #expect(chain.growth == 20)
    let runtime = TestRuntime(chain)
    let syn = try #require(runtime.send(.tcp(Self.client, Self.server, .syn, seq: 1)).packet)
    #expect(syn.source.address.ipv4 == "10.2.0.200" && syn.destination == "10.2.0.11:8080" && syn.checksumsHold)
    let answer = try #require(runtime.send(syn.answered([.syn, .ack], seq: 5)).packet)
    #expect(answer == .tcp(Self.server, Self.client, [.syn, .ack], seq: 5, ack: 2))
    #expect(runtime.send(.tcp(Self.client, "[64:ff9b::808:808]:81", .syn)) == .dropped("denied-by-rule"))
    #expect(runtime.send(.tcp(Self.client, "[64:ff9b::909:909]:80", .syn)).packet == nil)
    #expect(runtime.flowCount == 1)
  }

  @Test func `without it NAT is what it was`() throws {
    let chain = try Catalog.standard.makeChain(spec: Example.full, share: .whole)
    #expect(chain.stages.map(\.name) == ["firewall-nat-load-balancer"] && chain.stateSize == 64 && chain.growth == 0)
    #expect(MemoryLayout<NAT.FlowState>.size == 20)
    let entrance = try Catalog.standard.entrance(of: Example.spec(("nat", Self.settings)))
    #expect(entrance.growth == 20 && entrance.endpoints?.ports == 1024...1535 && !entrance.isOpen)
  }

  // MARK: Travels

  @Test func `a flow that moves, or whose runtime dies, keeps its endpoint, and gives it back where it belongs`() throws {
    let runtimes = (0..<3).map { Self.runtime(Self.settings, share: RuntimeShare(index: $0, count: 3)) }
    let packet = TestPacket.tcp(Self.client, Self.server, .syn, seq: 1)
    let sent = try #require(runtimes[0].send(packet).packet)
    #expect(runtimes[0].migrate(flowOf: packet, to: runtimes[1]))
    let again = try #require(runtimes[1].send(packet).packet)
    #expect(again.source == sent.source)
    #expect(runtimes[1].send(sent.answered([.syn, .ack])).packet?.destination == Self.client)
    #expect(runtimes[1].observed("nat.foreign-flows") == 1 && runtimes[1].observed("nat64.clients") == 0)
    runtimes[1].crash(recoveringOn: runtimes[2])
    #expect(runtimes[2].send(sent.answered(.ack)).packet?.destination == Self.client)
    // It ends there: the first runtime, which owns the endpoint, is told.
    #expect(runtimes[0].observed("nat.mappings") == 1)
    runtimes[2].expireAll()
    let returned = try #require(runtimes[2].chain.takeReturn())
    #expect(returned.share == 0)
    #expect(!runtimes[1].chain.takeBack(returned))
    #expect(runtimes[0].chain.takeBack(returned) && !runtimes[0].chain.takeBack(returned))
    #expect(runtimes[0].observed("nat.mappings") == 0 && runtimes[0].observed("nat64.clients") == 0)
    // And home again.
    let other = try #require(runtimes[0].send(packet).packet)
    #expect(runtimes[0].migrate(flowOf: packet, to: runtimes[1]) && runtimes[1].migrate(flowOf: packet, to: runtimes[0]))
    #expect(runtimes[0].send(packet).packet?.source == other.source)
    runtimes[0].expireAll()
    #expect(runtimes[0].observed("nat.mappings") == 0 && runtimes[0].observed("nat64.clients") == 0)
  }

  /// NAT's law, with clients of both families: no endpoint is two clients', and none is lost.
  @Test(arguments: 0..<6) func `no endpoint is used twice and none is lost`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed) &+ 64)
    let settings = "pool: [10.2.0.200-10.2.0.201]\nports: 1024-1151\nmappings: 64\nnat64: 64:ff9b::/96"
    let shares = 16
    func start(_ share: Int) -> TestRuntime { Self.runtime(settings, share: RuntimeShare(index: share, count: shares)) }
    var runtimes = [0: start(0), 1: start(1), 2: start(2)]
    var next = 3
    var flows: [(packet: TestPacket, external: Endpoint, runtime: Int)] = []
    func deliver() {
      for runtime in runtimes.keys.sorted() {
        while let returned = runtimes[runtime]!.chain.takeReturn() {
          let accepted = runtimes.values.count { $0.chain.takeBack(returned) }
          #expect(accepted <= 1, "seed \(seed)")
        }
      }
    }
    var refused = 0
    for step in 0..<4_000 {
      let names = runtimes.keys.sorted()
      let here = names.randomElement(using: &random)!
      let flow = flows.indices.randomElement(using: &random)
      switch (Int.random(in: 0..<100, using: &random), flow) {
      case (0..<45, _), (_, nil):
        let (number, port) = (UInt32.random(in: 0..<24, using: &random), 2000 + UInt16.random(in: 0..<4, using: &random))
        let to = UInt16.random(in: 1..<60, using: &random)
        let packet: TestPacket =
          number % 3 == 0
          ? .udp(Endpoint(IPv4Address(0x0a00_0000 + number), port: port), Endpoint(IPv4Address(0x0808_0808), port: to))
          : .udp(
            Endpoint(IPAddress(high: 0x2001_0db8_0000_0000, low: UInt64(number)), port: port),
            Endpoint(IPAddress("64:ff9b::808:808")!, port: to))
        if flows.contains(where: { $0.packet == packet }) { continue }
        switch runtimes[here]!.send(packet) {
        case .forwarded(let out):
          for other in flows where other.external == out.source {
            #expect(other.packet.source == packet.source, "one client's at a time: seed \(seed) step \(step)")
          }
          flows.append((packet, out.source, here))
        case .dropped(let reason):
          #expect(reason == "nat-pool-exhausted", "seed \(seed) step \(step)")
          refused += 1
        }
      case (45..<72, let flow?):
        let ended = flows.remove(at: flow)
        #expect(runtimes[ended.runtime]!.expire(flowOf: ended.packet), "seed \(seed) step \(step)")
      case (72..<90, let flow?):
        guard flows[flow].runtime != here else { continue }
        #expect(runtimes[flows[flow].runtime]!.migrate(flowOf: flows[flow].packet, to: runtimes[here]!))
        flows[flow].runtime = here
        let out = runtimes[here]!.send(flows[flow].packet).packet
        #expect(out?.source == flows[flow].external, "a flow keeps its endpoint: seed \(seed) step \(step)")
      case (90..<99, _): deliver()
      default:
        guard next < shares else { continue }
        deliver()
        let heir = names.first { $0 != here }!
        runtimes[here]!.crash(recoveringOn: runtimes[heir]!)
        for index in flows.indices where flows[index].runtime == here { flows[index].runtime = heir }
        runtimes[here] = nil
        runtimes[next] = start(next)
        next += 1
      }
    }
    for flow in flows { #expect(runtimes[flow.runtime]!.expire(flowOf: flow.packet)) }
    deliver()
    for (share, runtime) in runtimes {
      #expect(
        runtime.observed("nat.mappings") == 0 && runtime.observed("nat64.clients") == 0 && runtime.observed("nat.foreign-flows") == 0
          && runtime.observed("nat.endpoints-lost") == 0, "seed \(seed) share \(share)")
    }
    #expect(refused > 0, "the pool was small enough to run out")
  }

  // MARK: Settings

  @Test(arguments: [
    ("nat64: 64:ff9b::/64", "'64:ff9b::/64' is not an IPv6 prefix of 96 bits such as 64:ff9b::/96, with bits 64 to 71 zero; other lengths are not supported"),
    ("nat64: {prefix: 2001:db8:0:0:ff00::/96}", "'2001:db8:0:0:ff00::/96' is not an IPv6 prefix of 96 bits such as 64:ff9b::/96, with bits 64 to 71 zero; other lengths are not supported"),
    ("nat64: 10.0.0.0/8", "'10.0.0.0/8' is not an IPv6 prefix of 96 bits such as 64:ff9b::/96, with bits 64 to 71 zero; other lengths are not supported"),
    ("nat64: {prefix: 64:ff9b::/96, udp-without-checksum: keep}", "'keep' is not one of: compute, drop"),
    ("nat64: {traffic-class: copy}", "'prefix' is missing"),
  ])
  func `a wrong setting is refused with its line`(text: String, message: String) {
    do throws(SettingsError) {
      _ = try NAT(reader: SettingsReader(text: "pool: 10.2.0.200\n\(text)"))
      Issue.record("accepted: \(text)")
    } catch {
      #expect("\(error)".hasPrefix("line 2: nat64") && "\(error)".hasSuffix(message), "\(error)")
    }
  }
}
