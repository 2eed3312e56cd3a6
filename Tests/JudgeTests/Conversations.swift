import NetworkFunctionTesting
import Wire

/// One packet of a conversation, with what a reader would call it.
///
/// Whoever is outside speaks to the client's external endpoint, and that is each judge's own choice: so a packet is made when
/// it is known.
struct Line {
  var name: String
  /// The side it comes from, `forward` being the client's.
  var side: Direction
  var client: Endpoint
  var protocolNumber: UInt8
  /// Given the client's endpoint as it is seen on that side.
  var make: (Endpoint) -> TestPacket

  static func client(_ name: String, _ packet: TestPacket) -> Line {
    Line(name: name, side: .forward, client: packet.source, protocolNumber: packet.protocolNumber) { _ in packet }
  }

  static func server(
    _ name: String, to client: Endpoint, _ protocolNumber: UInt8 = IPProtocol.tcp, _ make: @escaping (Endpoint) -> TestPacket
  ) -> Line {
    Line(name: name, side: .reverse, client: client, protocolNumber: protocolNumber, make: make)
  }

  func again(_ name: String) -> Line {
    var copy = self
    copy.name = name
    return copy
  }
}

/// Conversations as they are told, and seeded noise between their lines.
struct Conversations {
  var random: SplitMix
  private var nextPort: UInt16 = 2000
  private let isIPv6: Bool

  init(seed: UInt64, isIPv6: Bool = false) {
    random = SplitMix(state: seed)
    self.isIPv6 = isIPv6
  }

  mutating func client() -> Endpoint {
    nextPort += 2
    return address(0x0a00_0001, 0x2001_0db8_0001_0000, nextPort)
  }

  mutating func server(_ port: UInt16) -> Endpoint { address(0xc000_0201, 0x2001_0db8_0002_0000, port) }

  /// One of the first three hosts of a network.
  private mutating func address(_ ipv4: UInt32, _ ipv6: UInt64, _ port: UInt16) -> Endpoint {
    let host = UInt32.random(in: 0..<3, using: &random)
    return isIPv6
      ? Endpoint(IPAddress(high: ipv6, low: UInt64(host) + 1), port: port) : Endpoint(IPv4Address(ipv4 + host), port: port)
  }

  /// Somebody on the way, outside and inside.
  private var routerOutside: Endpoint { isIPv6 ? "[2001:db8:3::7]" : "198.51.100.7" }
  private var routerInside: Endpoint { isIPv6 ? "[2001:db8:1::9]" : "10.0.0.9" }

  /// Every kind once and in turn, so that a short run has them all.
  mutating func next(_ number: Int) -> [Line] {
    let kinds: [(inout Conversations) -> [Line]] = [
      { $0.tcp(ending: .close) }, { $0.tcp(ending: .clientReset) }, { $0.tcp(ending: .serverReset) }, { $0.refused() },
      { $0.simultaneousOpen() }, { $0.portReuse() }, { $0.tcp(ending: .simultaneousClose) }, { $0.strangers() },
      { $0.forgeries() },
      { $0.retransmissions() }, { $0.udp() }, { $0.echo() }, { $0.errors() }, { $0.tcp(ending: .close, isNoisy: true) },
    ]
    return kinds[number % kinds.count](&self)
  }

  enum Ending { case close, clientReset, serverReset, simultaneousClose }

  /// A connection whose two ends know their sequence numbers.
  struct Connection {
    let client: Endpoint
    let server: Endpoint
    /// Next numbers of either end.
    var c: UInt32
    var s: UInt32

    func client(_ name: String, _ flags: TCPFlags, payload: Int = 0, seq: UInt32? = nil, ack: UInt32? = nil) -> Line {
      .client(
        name,
        .tcp(
          client, server, flags, seq: seq ?? c, ack: flags.contains(.ack) ? ack ?? s : 0, options: options(flags),
          payload: bytes(payload)))
    }

    func server(_ name: String, _ flags: TCPFlags, payload: Int = 0, seq: UInt32? = nil, ack: UInt32? = nil) -> Line {
      .server(name, to: client) { client in
        .tcp(
          server, client, flags, seq: seq ?? s, ack: flags.contains(.ack) ? ack ?? c : 0, options: options(flags),
          payload: bytes(payload))
      }
    }

    private func options(_ flags: TCPFlags) -> [UInt8] { flags.contains(.syn) ? [2, 4, 5, 180] : [] }
    private func bytes(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0) } }

    mutating func open() -> [Line] {
      var lines = [client("SYN", .syn)]
      c &+= 1
      lines.append(server("SYN-ACK", [.syn, .ack]))
      s &+= 1
      lines.append(client("ACK", .ack))
      return lines
    }

    mutating func exchange(_ count: Int) -> [Line] {
      let up = client("data", [.ack, .psh], payload: count)
      c &+= UInt32(count)
      let down = server("data", [.ack, .psh], payload: count * 2)
      s &+= UInt32(count * 2)
      return [up, server("ACK", .ack, seq: s &- UInt32(count * 2)), down, client("ACK", .ack)]
    }

    mutating func close() -> [Line] {
      var lines = [client("FIN", [.fin, .ack])]
      c &+= 1
      lines.append(server("ACK of FIN", .ack))
      lines.append(server("FIN", [.fin, .ack]))
      s &+= 1
      lines.append(client("last ACK", .ack))
      return lines
    }
  }

  mutating func connection() -> Connection {
    Connection(
      client: client(), server: server(Bool.random(using: &random) ? 80 : 443), c: .random(in: 0 ... .max, using: &random),
      s: .random(in: 0 ... .max, using: &random))
  }

  mutating func tcp(ending: Ending, isNoisy: Bool = false) -> [Line] {
    var talk = connection()
    var lines = talk.open()
    for _ in 0..<Int.random(in: 1...3, using: &random) { lines += talk.exchange(.random(in: 1...400, using: &random)) }
    switch ending {
    case .close: lines += talk.close()
    case .clientReset: lines += [talk.client("RST", .rst), talk.server("data after the client's RST", .ack, payload: 10)]
    case .serverReset: lines += [talk.server("RST", .rst), talk.client("data after the server's RST", .ack, payload: 10)]
    case .simultaneousClose:
      lines += [talk.client("FIN", [.fin, .ack]), talk.server("FIN at the same time", [.fin, .ack])]
      talk.c &+= 1
      talk.s &+= 1
      lines += [talk.client("ACK of FIN", .ack), talk.server("ACK of FIN", .ack)]
    }
    guard isNoisy else { return lines }
    // Packets doubled, and come again late. None is lost before it gets here: that its receiver acknowledges it all the same is
    // no conversation, and what follows is "ACK of what was never sent".
    var noisy: [Line] = []
    for line in lines {
      let chance = Int.random(in: 0..<10, using: &random)
      noisy.append(line)
      if chance == 1 { noisy.append(line) }
      if chance == 2, let old = noisy.randomElement(using: &random) { noisy.append(old.again("again: \(old.name)")) }
    }
    return noisy
  }

  mutating func refused() -> [Line] {
    var talk = connection()
    var lines = [talk.client("SYN", .syn)]
    talk.c &+= 1
    lines.append(talk.server("refusal", [.rst, .ack], seq: 0))
    lines.append(talk.client("SYN again", .syn, seq: talk.c &+ 99))
    talk.c &+= 100
    return lines + [talk.server("SYN-ACK", [.syn, .ack])]
  }

  mutating func simultaneousOpen() -> [Line] {
    var talk = connection()
    var lines = [talk.client("SYN", .syn), talk.server("SYN of a simultaneous open", .syn)]
    talk.c &+= 1
    talk.s &+= 1
    lines += [
      talk.client("SYN-ACK of a simultaneous open", [.syn, .ack], seq: talk.c &- 1),
      talk.server("SYN-ACK of a simultaneous open", [.syn, .ack], seq: talk.s &- 1),
    ]
    return lines + talk.exchange(100)
  }

  mutating func portReuse() -> [Line] {
    var talk = connection()
    var lines = talk.open() + talk.exchange(50) + talk.close()
    talk.c &+= 100_000
    lines += talk.open() + talk.exchange(20)
    lines.append(talk.client("RST", .rst))
    talk.c &+= 200_000
    talk.s &+= 300_000
    return lines + talk.open() + talk.close()
  }

  /// Segments of connections that nobody has opened, and flags that mean nothing.
  mutating func strangers() -> [Line] {
    let flags: [(String, TCPFlags)] = [
      ("stray ACK", .ack), ("stray SYN-ACK", [.syn, .ack]), ("stray FIN", [.fin, .ack]), ("stray RST", .rst), ("no flags", []),
      ("SYN and FIN", [.syn, .fin]), ("SYN and RST", [.syn, .rst]), ("FIN alone", .fin), ("all flags", TCPFlags(rawValue: 0x3f)),
    ]
    var lines: [Line] = []
    for (name, flags) in flags {
      let talk = connection()
      lines += [talk.client(name, flags), talk.server(name, flags)]
    }
    lines.append(.client("denied port", .tcp(client(), server(22), .syn)))
    return lines
  }

  /// What somebody who does not see the connection might try (RFC 5961).
  mutating func forgeries() -> [Line] {
    var talk = connection()
    var lines = talk.open() + talk.exchange(300)
    lines += [
      talk.server("RST far outside the window", .rst, seq: talk.s &+ 0x4000_0000),
      talk.server("RST just before the window", .rst, seq: talk.s &- 1),
      talk.server("RST in the window, not exact", .rst, seq: talk.s &+ 1000),
      talk.client("data after a RST that was not exact", .ack, payload: 10),
    ]
    talk.c &+= 10
    lines += [
      talk.server("SYN in an established connection", .syn, seq: talk.s &+ 5),
      talk.client("challenge ACK", .ack),
      talk.client("SYN-ACK in an established connection", [.syn, .ack]),
      talk.server("data far outside the window", .ack, payload: 10, seq: talk.s &+ 0x4000_0000),
      talk.server("ACK of what was never sent", .ack, ack: talk.c &+ 0x3000_0000),
      talk.client("SYN and FIN in a connection", [.syn, .fin]),
    ]
    return lines + talk.exchange(40) + talk.close()
  }

  mutating func retransmissions() -> [Line] {
    var talk = connection()
    let syn = talk.client("SYN", .syn)
    var lines = [syn, syn.again("SYN again")] + Array(talk.open().dropFirst())
    lines.append(talk.server("SYN-ACK again", [.syn, .ack], seq: talk.s &- 1))
    let data = talk.client("data", .ack, payload: 200)
    talk.c &+= 200
    lines += [data, data.again("data again"), talk.server("ACK", .ack)]
    lines.append(talk.client("keep-alive", .ack, payload: 0, seq: talk.c &- 1))
    lines.append(talk.server("ACK", .ack))
    return lines + talk.close() + [talk.server("FIN again", [.fin, .ack], seq: talk.s &- 1)]
  }

  mutating func udp() -> [Line] {
    let (client, server) = (client(), server(53))
    let stranger = self.server(53)
    let lines: [Line] = [
      .client("UDP query", .udp(client, server, payload: [1, 2, 3])),
      .server("UDP answer", to: client, IPProtocol.udp) { .udp(server, $0, payload: [4]) },
      .client("UDP query again", .udp(client, server, payload: [5])),
      .client("UDP without checksum", .udpWithoutChecksum(client, server, payload: [5])),
      .server("UDP from another port", to: client, IPProtocol.udp) { .udp(Endpoint(server.address, port: 54), $0) },
      .client("UDP to another server", .udp(client, stranger, payload: [6])),
      .client("UDP denied", .udp(client, Endpoint(server.address, port: 99))),
    ]
    return lines.map { isIPv6 && $0.name == "UDP without checksum" ? $0.again("UDP without checksum over IPv6") : $0 }
  }

  mutating func echo() -> [Line] {
    let (client, server) = (client(), server(0))
    let number = isIPv6 ? IPProtocol.icmpv6 : IPProtocol.icmp
    var lines: [Line] = [
      .client("echo request", .icmpEchoRequest(client, server, id: client.port, payload: [1, 2, 3, 4])),
      .server("echo reply", to: client, number) { .icmpEchoReply(server, $0, id: $0.port, payload: [1, 2, 3, 4]) },
      .client("echo request again", .icmpEchoRequest(client, server, id: client.port, seq: 2)),
      .server("echo reply of another identifier", to: client, number) { .icmpEchoReply(server, $0, id: $0.port &+ 1) },
    ]
    if !isIPv6 {
      lines.append(.client("timestamp request", .icmp(client, server, type: 13, body: Array(repeating: 0, count: 16))))
    }
    return lines
  }

  mutating func errors() -> [Line] {
    var talk = connection()
    let (udpClient, udpServer) = (client(), server(53))
    let query = { (client: Endpoint) in TestPacket.udp(client, udpServer, payload: Array(1...20)) }
    let answer = { (client: Endpoint) in TestPacket.udp(udpServer, client, payload: Array(1...30)) }
    var lines = talk.open() + talk.exchange(100)
    let (server, c, s) = (talk.server, talk.c, talk.s)
    let data = { (client: Endpoint) in TestPacket.tcp(client, server, [.ack, .psh], seq: c, ack: s, payload: Array(1...50)) }
    let never = { (client: Endpoint) in TestPacket.tcp(client, server, .ack, seq: c &+ 0x4000_0000) }
    let unsent = { (client: Endpoint) in TestPacket.udp(client, Endpoint(udpServer.address, port: 1)) }
    func outside(
      _ name: String, _ reporter: Endpoint, _ client: Endpoint, _ number: UInt8, quoting: Int = .max,
      about packet: @escaping (Endpoint) -> TestPacket
    ) -> Line {
      .server(name, to: client, number) { .icmpError(from: reporter, about: packet($0), quoting: quoting) }
    }
    func inside(_ name: String, _ reporter: Endpoint) -> Line {
      Line(name: name, side: .forward, client: udpClient, protocolNumber: IPProtocol.udp) {
        .icmpError(from: reporter, about: answer($0))
      }
    }
    lines += [
      .client("data", data(talk.client)),
      outside("error about data, short", routerOutside, talk.client, IPProtocol.tcp, quoting: isIPv6 ? 48 : 28, about: data),
      outside("error about data, whole", server, talk.client, IPProtocol.tcp, about: data),
      outside("error about data of an impossible number", routerOutside, talk.client, IPProtocol.tcp, about: never),
      .client("UDP query", query(udpClient)),
      outside("error about a query", routerOutside, udpClient, IPProtocol.udp, about: query),
      .server("UDP answer", to: udpClient, IPProtocol.udp, answer),
      inside("error about an answer, from the client", udpClient),
      inside("error about an answer, from a router inside", routerInside),
      outside("error about what nobody sent", routerOutside, udpClient, IPProtocol.udp, about: unsent),
    ]
    return lines
  }
}

/// Small, and the same everywhere.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
