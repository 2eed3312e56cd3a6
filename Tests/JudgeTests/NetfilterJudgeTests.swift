import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

/// The same packets through our firewall and NAT and through Linux netfilter: what comes out must be the same, but for the
/// differences that docs/judged-by-netfilter.md lists with the clause that says who is right.
@Suite(.serialized, .enabled(if: Netfilter.obstacle == nil, Comment(rawValue: Netfilter.obstacle ?? "")))
struct NetfilterJudgeTests {
  /// A difference that is known: the line it happens at, and who lets the packet through.
  struct Difference: Hashable, Comparable {
    enum Who: String { case ours = "ours only", netfilter = "netfilter only", both = "both, differently" }
    let line: String
    let forwardedBy: Who
    static func < (a: Difference, b: Difference) -> Bool { (a.line, a.forwardedBy.rawValue) < (b.line, b.forwardedBy.rawValue) }
  }

  static let known: Set<Difference> = [
    Difference(line: "ACK of what was never sent", forwardedBy: .ours),
    Difference(line: "SYN in an established connection", forwardedBy: .ours),
    Difference(line: "SYN-ACK in an established connection", forwardedBy: .ours),
    Difference(line: "data far outside the window", forwardedBy: .ours),
    Difference(line: "error about data of an impossible number", forwardedBy: .netfilter),
  ]

  /// The firewall alone, over IPv6.
  static let knownOverIPv6 = known.union([
    Difference(line: "UDP without checksum over IPv6", forwardedBy: .netfilter)
  ])

  @Test(arguments: [Netfilter.Kind.nat, .ipv6]) func `our firewall and NAT do what netfilter does`(kind: Netfilter.Kind) throws {
    let known = kind == .ipv6 ? Self.knownOverIPv6 : Self.known
    var found: [Difference: Int] = [:]
    var (packets, forwarded) = (0, 0)
    for seed in UInt64(0)..<(kind == .nat ? 6 : 3) {
      var conversations = Conversations(seed: seed, isIPv6: kind == .ipv6)
      var ours = OurSide(kind)
      var theirs = TheirSide(netfilter: try Netfilter(label: "s\(seed)", kind), kind)
      for number in 0..<42 {
        var told: [String] = []
        for line in conversations.next(number) {
          packets += 1
          told.append((line.side == .forward ? "→ " : "← ") + line.name)
          let mine = ours.hear(line)
          let judged = try theirs.hear(line, expecting: mine != nil)
          if judged != nil { forwarded += 1 }
          guard mine != judged else { continue }
          let difference = Difference(line.name, mine, judged)
          found[difference, default: 0] += 1
          #expect(
            known.contains(difference),
            """
            seed \(seed), conversation \(number): \(told.joined(separator: ", ")): ours \
            \(mine.map(String.init(describing:)) ?? "drops it (\(ours.lastReason))"), netfilter \
            \(judged.map(String.init(describing:)) ?? "drops it")
            """)
        }
      }
    }
    print("\(packets) packets, \(forwarded) forwarded by netfilter; differences:")
    for (difference, count) in found.sorted(by: { $0.key < $1.key }) {
      print("  \(difference.line): \(difference.forwardedBy.rawValue), \(count) times")
    }
    #expect(packets > 500 && forwarded > packets / 2)
    #expect(Set(found.keys) == known, "what is listed is also found")
  }

  /// Two clients of one NAT speak to each other's external endpoints. Ours hands out in again what it has sent to one of its
  /// own; to netfilter the mapping is written down. Either client has to see the other's external endpoint (RFC 4787 REQ-9).
  @Test(arguments: ["udp", "tcp"]) func `two clients meet at their external endpoints`(transport: String) throws {
    let (a, b): (Endpoint, Endpoint) = ("10.0.0.1:2100", "10.0.0.2:2200")
    let server: Endpoint = transport == "udp" ? "192.0.2.1:53" : "192.0.2.1:80"
    func packet(_ from: Endpoint, _ to: Endpoint, _ flags: TCPFlags, seq: UInt32 = 0, ack: UInt32 = 0, _ payload: [UInt8] = [])
      -> TestPacket
    {
      transport == "udp" ? .udp(from, to, payload: payload) : .tcp(from, to, flags, seq: seq, ack: ack, payload: payload)
    }
    let nat = NAT(pool: [IPv4Address("203.0.113.1")!], mappings: 64, filtering: .endpointIndependent)
    let runtime = TestRuntime(nat)
    let netfilter = try Netfilter(label: "hairpin")
    // Each has an external endpoint because it has spoken to a server.
    var external: [Endpoint: (ours: Endpoint, theirs: Endpoint)] = [:]
    for client in [a, b] {
      let hello = packet(client, server, .syn, [1])
      let ours = try #require(runtime.send(hello).packet?.source)
      let theirs = try #require(try netfilter.send(hello, from: .forward, expecting: true)?.source)
      external[client] = (ours, theirs)
      try netfilter.map(theirs, transport, to: client)
    }
    func says(_ from: Endpoint, _ to: Endpoint, _ flags: TCPFlags, seq: UInt32, ack: UInt32, _ payload: [UInt8]) throws {
      let ours = try #require(runtime.send(packet(from, external[to]!.ours, flags, seq: seq, ack: ack, payload)).packet)
      let mine = runtime.send(ours, from: .reverse).packet
      let judged = try netfilter.sendBack(
        packet(from, external[to]!.theirs, flags, seq: seq, ack: ack, payload), expecting: true)
      for (heard, name) in [(mine, "ours"), (judged, "netfilter")] {
        let heard = try #require(heard, "\(name): \(from) to \(to)")
        #expect(heard.source == (name == "ours" ? external[from]!.ours : external[from]!.theirs), "\(name)")
        #expect(heard.destination == to && heard.payload == payload && heard.checksumsHold, "\(name)")
      }
    }
    try says(a, b, .syn, seq: 100, ack: 0, transport == "udp" ? [1, 2] : [])
    try says(b, a, [.syn, .ack], seq: 500, ack: 101, transport == "udp" ? [3] : [])
    try says(a, b, .ack, seq: 101, ack: 501, [4, 5, 6])
    try says(b, a, .ack, seq: 501, ack: 104, [7])
  }
}

extension NetfilterJudgeTests.Difference {
  init(_ name: String, _ mine: Heard?, _ judged: Heard?) {
    self.init(line: name, forwardedBy: mine == nil ? .netfilter : judged == nil ? .ours : .both)
  }
}
