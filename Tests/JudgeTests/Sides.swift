import ControlMessages
import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Wire

/// What came out, as the client's side would write it: without what depends on the external port that a judge has chosen, or
/// that any router changes (MAC addresses, TTL, the IP identification).
struct Heard: Hashable, CustomStringConvertible {
  var source: Endpoint
  var destination: Endpoint
  var protocolNumber: UInt8
  var flags: TCPFlags
  var numbers: [UInt32]
  var payload: [UInt8]
  var checksumsHold: Bool
  /// Source and destination of what an error quotes.
  var quoted: [Endpoint]

  var description: String {
    "\(protocolNumber) \(source) > \(destination) flags \(flags.rawValue) + \(payload.count) bytes\(checksumsHold ? "" : ", wrong checksum")"
      + (quoted.isEmpty ? "" : " quoting \(quoted[0]) > \(quoted[1])")
  }
}

/// The external endpoints that one judge has given, and the packets of a conversation in terms of them.
struct ExternalEndpoints {
  private struct Key: Hashable { var endpoint: Endpoint, protocolNumber: UInt8 }
  private var externals: [Key: Endpoint] = [:]
  private var clients: [Key: Endpoint] = [:]
  /// Without NAT a client is seen as what it is.
  private let translates: Bool

  init(_ kind: Netfilter.Kind) { translates = kind == .nat }

  /// As which a client is seen outside; `nil` if it has not been yet.
  func external(of client: Endpoint, _ protocolNumber: UInt8) -> Endpoint? {
    externals[Key(endpoint: client, protocolNumber: protocolNumber)]
  }

  func packet(_ line: Line) -> TestPacket {
    guard line.side == .reverse, translates else { return line.make(line.client) }
    let external = externals[Key(endpoint: line.client, protocolNumber: line.protocolNumber)]
    // Nobody's port, for a client that has none.
    return line.make(external ?? Endpoint(Netfilter.external.address, port: line.client.port))
  }

  /// Learns from the first packet of a client, and translates what came out.
  mutating func heard(_ out: TestPacket, of line: Line) -> Heard {
    let key = Key(endpoint: line.client, protocolNumber: line.protocolNumber)
    if line.side == .forward, translates, externals[key] == nil, out.quotedPacket == nil {
      externals[key] = out.source
      clients[Key(endpoint: out.source, protocolNumber: line.protocolNumber)] = line.client
    }
    func told(_ endpoint: Endpoint) -> Endpoint {
      clients[Key(endpoint: endpoint, protocolNumber: line.protocolNumber)] ?? endpoint
    }
    let quoted = out.quotedPacket
    let isTCP = out.protocolNumber == IPProtocol.tcp
    return Heard(
      source: told(out.source), destination: told(out.destination), protocolNumber: out.protocolNumber, flags: out.tcpFlags,
      numbers: isTCP ? [out.tcpSequence, out.tcpAcknowledgement] : [], payload: quoted == nil ? out.payload : [],
      checksumsHold: out.checksumsHold, quoted: quoted.map { [told($0.source), told($0.destination)] } ?? [])
  }
}

/// Our firewall and NAT in a small runtime, with the rules that netfilter has.
struct OurSide {
  private let runtime: TestRuntime
  private var endpoints: ExternalEndpoints
  private(set) var lastReason = ""

  init(_ kind: Netfilter.Kind = .nat) {
    endpoints = ExternalEndpoints(kind)
    let rules =
      kind == .captures
      ? [FirewallRule(.allow, .tcp), FirewallRule(.allow, .udp), FirewallRule(.allow, .icmp)]
      : [
        FirewallRule(.allow, .tcp, toPorts: 80...80), FirewallRule(.allow, .tcp, toPorts: 443...443),
        FirewallRule(.allow, .udp, toPorts: 53...53), FirewallRule(.allow, .icmp),
      ]
    let firewall = Firewall(rules: rules, otherwise: .deny)
    guard kind == .nat else {
      runtime = TestRuntime(firewall, relaysErrors: true)
      return
    }
    let nat = NAT(pool: [IPv4Address("203.0.113.1")!], mappings: 4096)
    runtime = TestRuntime(firewall.then(nat), relaysErrors: true)
  }

  mutating func hear(_ line: Line) -> Heard? { hear(endpoints.packet(line), of: line) }

  /// A line in fragments.
  mutating func hear(_ line: Line, in fragments: (TestPacket) -> [TestPacket], _ reassembly: Reassembler) -> Heard? {
    guard let whole = reassembly.whole(fragments(endpoints.packet(line))) else {
      lastReason = "fragments"
      return nil
    }
    return hear(whole, of: line)
  }

  private mutating func hear(_ packet: TestPacket, of line: Line) -> Heard? {
    switch runtime.send(packet, from: line.side) {
    case .forwarded(let packet): return endpoints.heard(packet, of: line)
    case .dropped(let reason):
      lastReason = reason
      return nil
    }
  }
}

/// Linux.
struct TheirSide {
  let netfilter: Netfilter
  private var endpoints: ExternalEndpoints

  init(netfilter: Netfilter, _ kind: Netfilter.Kind = .nat) {
    self.netfilter = netfilter
    endpoints = ExternalEndpoints(kind)
  }

  mutating func hear(_ line: Line, expecting: Bool) throws -> Heard? {
    try netfilter.send(endpoints.packet(line), from: line.side, expecting: expecting).map { endpoints.heard($0, of: line) }
  }

  mutating func hear(_ line: Line, in fragments: (TestPacket) -> [TestPacket], expecting: Bool) throws -> Heard? {
    try netfilter.send(fragments: fragments(endpoints.packet(line)), from: line.side, expecting: expecting).map {
      endpoints.heard($0, of: line)
    }
  }
}
