// Test packets, written as people speak of them. Every checksum is right unless a test breaks it.

import Wire

/// The bytes of one Ethernet frame, made for a test and never sent.
///
///     let syn = TestPacket.tcp("10.0.0.1:1234", "10.0.0.2:80", .syn, seq: 100)
///     let tagged = TestPacket.udp("10.0.0.1:53", "10.0.0.2:53", payload: [1, 2, 3]).vlan(7)
///     let broken = syn.breaking(.transportChecksum)
///
/// Two IPv6 endpoints make an IPv6 packet. Checksums are computed here by the plain definition
/// (RFC 1071), not by `Wire`, so that they can judge it.
public struct TestPacket: Hashable, Sendable {
  public var bytes: [UInt8]

  public init(bytes: [UInt8]) { self.bytes = bytes }

  public static func tcp(
    _ source: Endpoint, _ destination: Endpoint, _ flags: TCPFlags, seq: UInt32 = 0, ack: UInt32 = 0,
    window: UInt16 = 65_535, options: [UInt8] = [], payload: [UInt8] = [], ttl: UInt8 = 64
  ) -> TestPacket {
    let padding = (4 - options.count % 4) % 4
    precondition(options.count <= 40, "a TCP header has room for 40 bytes of options")
    var segment = words(source.port, destination.port) + long(seq) + long(ack)
    segment += [UInt8(20 + options.count + padding) << 2, flags.rawValue] + words(window, 0, 0)
    segment += options + Array(repeating: 0, count: padding) + payload
    return ip(source, destination, IPProtocol.tcp, segment, checksumAt: 16, ttl: ttl)
  }

  public static func udp(
    _ source: Endpoint, _ destination: Endpoint, payload: [UInt8] = [], ttl: UInt8 = 64
  ) -> TestPacket {
    let datagram = words(source.port, destination.port, UInt16(8 + payload.count), 0) + payload
    return ip(source, destination, IPProtocol.udp, datagram, checksumAt: 6, ttl: ttl)
  }

  /// UDP over IPv4 without a checksum, as RFC 768 allows.
  public static func udpWithoutChecksum(_ source: Endpoint, _ destination: Endpoint, payload: [UInt8] = []) -> TestPacket {
    let datagram = words(source.port, destination.port, UInt16(8 + payload.count), 0) + payload
    return ip(source, destination, IPProtocol.udp, datagram, checksumAt: nil, ttl: 64)
  }

  /// An echo request (ping); ports of the endpoints are ignored.
  public static func icmpEchoRequest(
    _ source: Endpoint, _ destination: Endpoint, id: UInt16, seq: UInt16 = 1, payload: [UInt8] = []
  ) -> TestPacket {
    icmp(source, destination, type: isIPv4(source) ? 8 : 128, body: words(id, seq) + payload)
  }

  public static func icmpEchoReply(
    _ source: Endpoint, _ destination: Endpoint, id: UInt16, seq: UInt16 = 1, payload: [UInt8] = []
  ) -> TestPacket {
    icmp(source, destination, type: isIPv4(source) ? 0 : 129, body: words(id, seq) + payload)
  }

  /// An ICMP or ICMPv6 error about `packet` from whoever could not deliver it: destination unreachable, port, if nothing
  /// else is said.
  ///
  /// - Parameter quoting: how many bytes of the packet are quoted from its IP header on; all if left out.
  public static func icmpError(
    from reporter: Endpoint, about packet: TestPacket, type: UInt8? = nil, code: UInt8? = nil, quoting count: Int = .max
  ) -> TestPacket {
    let layout = packet.layout
    let quoted = packet.bytes[layout.network..<layout.end].prefix(count)
    return icmp(
      reporter, Endpoint(packet.source.address), type: type ?? (layout.isIPv4 ? 3 : 1), code: code ?? (layout.isIPv4 ? 3 : 4),
      body: [0, 0, 0, 0] + quoted)
  }

  /// Any ICMP or ICMPv6 message; `body` is what follows the checksum, four bytes at least.
  public static func icmp(
    _ source: Endpoint, _ destination: Endpoint, type: UInt8, code: UInt8 = 0, body: [UInt8] = [0, 0, 0, 0]
  ) -> TestPacket {
    ip(
      source, destination, isIPv4(source) ? IPProtocol.icmp : IPProtocol.icmpv6, [type, code, 0, 0] + body, checksumAt: 2, ttl: 64
    )
  }

  /// An IP packet with a transport of the test's own making.
  ///
  /// - Parameter checksumAt: where the transport keeps its checksum, if it has one.
  public static func ip(
    _ source: Endpoint, _ destination: Endpoint, _ protocolNumber: UInt8, _ transport: [UInt8], checksumAt: Int?,
    ttl: UInt8 = 64
  ) -> TestPacket {
    precondition(isIPv4(source) == isIPv4(destination), "both ends of a packet are of one address family")
    let etherType: UInt16 = isIPv4(source) ? 0x0800 : 0x86dd
    var packet = TestPacket(bytes: [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1] + words(etherType))
    if let from = source.address.ipv4, let to = destination.address.ipv4 {
      packet.bytes += [0x45, 0] + words(UInt16(20 + transport.count), 1, 0x4000) + [ttl, protocolNumber, 0, 0]
      packet.bytes += long(from.value) + long(to.value)
    } else {
      packet.bytes += [0x60, 0, 0, 0] + words(UInt16(transport.count)) + [protocolNumber, ttl]
      for half in [source.address.high, source.address.low, destination.address.high, destination.address.low] {
        packet.bytes += long(UInt32(half >> 32)) + long(UInt32(truncatingIfNeeded: half))
      }
    }
    packet.bytes += transport
    return packet.withChecksums(transportAt: checksumAt)
  }

  // MARK: Changing

  /// The same packet with a VLAN tag put in front of the tags it has.
  public func vlan(_ id: UInt16, etherType: UInt16 = 0x8100) -> TestPacket {
    var tagged = self
    tagged.bytes.insert(contentsOf: TestPacket.words(etherType, id), at: 12)
    return tagged
  }

  public enum Part: CaseIterable, Sendable { case ipv4Checksum, transportChecksum }

  /// The same packet with one field made wrong.
  public func breaking(_ part: Part) -> TestPacket {
    let layout = self.layout
    switch part {
    case .ipv4Checksum: return setting(layout.network + 10) { $0 ^ 0x5a }
    case .transportChecksum:
      guard let checksum = layout.checksum else { preconditionFailure("this packet has no transport checksum to break") }
      return setting(checksum) { $0 ^ 0x5a }
    }
  }

  /// The same packet with one byte replaced and nothing else put right.
  public func setting(_ offset: Int, _ change: (UInt8) -> UInt8) -> TestPacket {
    var changed = self
    changed.bytes[offset] = change(changed.bytes[offset])
    return changed
  }

  /// The same packet behind so many routers more: its time to live or hop limit is less by as much.
  public func afterHops(_ count: UInt8 = 1) -> TestPacket {
    let layout = self.layout
    let older = setting(layout.network + (layout.isIPv4 ? 8 : 7)) { $0 - count }
    return older.withChecksums(transportAt: nil)
  }

  public func truncated(to count: Int) -> TestPacket { TestPacket(bytes: Array(bytes.prefix(count))) }

  /// Ethernet padding behind the packet, not part of it.
  public func padded(to count: Int) -> TestPacket {
    TestPacket(bytes: bytes + Array(repeating: 0xee, count: max(0, count - bytes.count)))
  }

  // MARK: Bytes

  static func words(_ values: UInt16...) -> [UInt8] { values.flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] } }
  static func long(_ value: UInt32) -> [UInt8] { words(UInt16(value >> 16), UInt16(value & 0xffff)) }
  static func isIPv4(_ endpoint: Endpoint) -> Bool { endpoint.address.ipv4 != nil }
}
