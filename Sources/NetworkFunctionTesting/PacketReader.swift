// What a test packet says, read by the plain definitions of the RFCs and without `Wire`'s parser: a
// second opinion, slow and short.

import Wire

extension TestPacket {
  /// Where things are in a well-formed frame without IPv6 extension headers.
  struct Layout {
    var network = 14
    var transport = 0
    var end = 0
    var protocolNumber: UInt8 = 0
    /// Offset of the transport checksum, for protocols that have one.
    var checksum: Int?
    var isIPv4 = false
  }

  var layout: Layout {
    var layout = Layout()
    while [0x8100, 0x88a8, 0x9100].contains(word(layout.network - 2)) { layout.network += 4 }
    let start = layout.network
    layout.isIPv4 = word(start - 2) == 0x0800
    if layout.isIPv4 {
      layout.transport = start + Int(bytes[start] & 15) * 4
      layout.end = start + Int(word(start + 2))
      layout.protocolNumber = bytes[start + 9]
    } else {
      layout.transport = start + 40
      layout.end = layout.transport + Int(word(start + 4))
      layout.protocolNumber = bytes[start + 6]
    }
    switch layout.protocolNumber {
    case IPProtocol.tcp: layout.checksum = layout.transport + 16
    case IPProtocol.udp: layout.checksum = layout.transport + 6
    case IPProtocol.icmp, IPProtocol.icmpv6: layout.checksum = layout.transport + 2
    default: break
    }
    return layout
  }

  func word(_ offset: Int) -> UInt16 { UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1]) }
  func long(_ offset: Int) -> UInt32 { UInt32(word(offset)) << 16 | UInt32(word(offset + 2)) }

  // MARK: Fields

  public var protocolNumber: UInt8 { layout.protocolNumber }
  public var source: Endpoint { endpoint(isSource: true) }
  public var destination: Endpoint { endpoint(isSource: false) }

  public var tcpFlags: TCPFlags {
    protocolNumber == IPProtocol.tcp ? TCPFlags(rawValue: bytes[layout.transport + 13] & 0x3f) : []
  }
  public var tcpSequence: UInt32 { long(layout.transport + 4) }
  public var tcpAcknowledgement: UInt32 { long(layout.transport + 8) }

  /// As it stands in the packet; `nil` for a protocol without one.
  public var transportChecksum: UInt16? { layout.checksum.map { word($0) } }

  public var payload: [UInt8] {
    let layout = self.layout
    let header = layout.protocolNumber == IPProtocol.tcp ? Int(bytes[layout.transport + 12] >> 4) * 4 : 8
    return Array(bytes[min(layout.transport + header, layout.end)..<layout.end])
  }

  /// Type and code of an ICMP or ICMPv6 message; empty for another packet.
  public var icmpTypeAndCode: [UInt8] {
    let layout = self.layout
    guard [IPProtocol.icmp, IPProtocol.icmpv6].contains(layout.protocolNumber) else { return [] }
    return Array(bytes[layout.transport..<layout.transport + 2])
  }

  /// What an ICMP or ICMPv6 error quotes, as a packet that ends where the quotation does; `nil` for other packets and
  /// for a quotation shorter than a header and eight bytes. VLAN tags of the error are not carried over.
  public var quotedPacket: TestPacket? {
    let layout = self.layout
    let types: [UInt8] = layout.isIPv4 ? [3, 11, 12] : [1, 2, 3, 4]
    guard layout.protocolNumber == IPProtocol.icmp || layout.protocolNumber == IPProtocol.icmpv6,
      types.contains(bytes[layout.transport])
    else { return nil }
    let quotation = bytes[(layout.transport + 8)..<layout.end]
    guard quotation.count >= (layout.isIPv4 ? 28 : 48) else { return nil }
    return TestPacket(bytes: Array(repeating: 0, count: 12) + TestPacket.words(layout.isIPv4 ? 0x0800 : 0x86dd) + quotation)
  }

  private func endpoint(isSource: Bool) -> Endpoint {
    let layout = self.layout
    let address: IPAddress
    if layout.isIPv4 {
      address = IPAddress(IPv4Address(long(layout.network + (isSource ? 12 : 16))))
    } else {
      let at = layout.network + (isSource ? 8 : 24)
      address = IPAddress(
        high: UInt64(long(at)) << 32 | UInt64(long(at + 4)), low: UInt64(long(at + 8)) << 32 | UInt64(long(at + 12)))
    }
    switch layout.protocolNumber {
    case IPProtocol.tcp, IPProtocol.udp: return Endpoint(address, port: word(layout.transport + (isSource ? 0 : 2)))
    case IPProtocol.icmp, IPProtocol.icmpv6:
      // The identifier stands where the client's port would.
      let types: [UInt8] = isSource ? [8, 128] : [0, 129]
      return Endpoint(address, port: types.contains(bytes[layout.transport]) ? word(layout.transport + 4) : 0)
    default: return Endpoint(address)
    }
  }

  // MARK: Answering

  /// The echo reply to an echo request, or the datagram or segment of the same kind the other way round.
  public func answered(_ flags: TCPFlags = .ack, seq: UInt32 = 0, payload: [UInt8] = []) -> TestPacket {
    let layout = self.layout
    switch layout.protocolNumber {
    case IPProtocol.tcp:
      let consumed = UInt32(self.payload.count) &+ (tcpFlags.contains(.syn) ? 1 : 0) &+ (tcpFlags.contains(.fin) ? 1 : 0)
      return .tcp(destination, source, flags, seq: seq, ack: tcpSequence &+ consumed, payload: payload)
    case IPProtocol.udp: return .udp(destination, source, payload: payload)
    case IPProtocol.icmp, IPProtocol.icmpv6:
      return .icmpEchoReply(destination, source, id: source.port, seq: word(layout.transport + 6), payload: self.payload)
    default: preconditionFailure("protocol \(layout.protocolNumber) has no answer")
    }
  }

  // MARK: Checksums

  /// Whether the checksums are what a full computation gives.
  public var checksumsHold: Bool {
    let layout = self.layout
    if let checksum = layout.checksum, layout.protocolNumber == IPProtocol.udp, layout.isIPv4, word(checksum) == 0 {
      return networkChecksum(layout) == 0
    }
    return networkChecksum(layout) == 0 && (layout.checksum == nil || computedTransportChecksum(layout) == 0)
  }

  func withChecksums(transportAt: Int?) -> TestPacket {
    var packet = self
    let layout = self.layout
    if layout.isIPv4 {
      packet.store(0, layout.network + 10)
      packet.store(packet.networkChecksum(layout), layout.network + 10)
    }
    if let transportAt {
      packet.store(0, layout.transport + transportAt)
      let sum = packet.computedTransportChecksum(layout)
      packet.store(sum == 0 && layout.protocolNumber == IPProtocol.udp ? 0xffff : sum, layout.transport + transportAt)
    }
    return packet
  }

  private func networkChecksum(_ layout: Layout) -> UInt16 {
    layout.isIPv4 ? TestPacket.checksum(bytes[layout.network..<layout.transport]) : 0
  }

  private func computedTransportChecksum(_ layout: Layout) -> UInt16 {
    let addresses = layout.isIPv4 ? layout.network + 12..<layout.network + 20 : layout.network + 8..<layout.network + 40
    let segment = bytes[layout.transport..<layout.end]
    if layout.isIPv4, layout.protocolNumber == IPProtocol.icmp { return TestPacket.checksum(segment) }
    let pseudo = bytes[addresses] + TestPacket.long(UInt32(segment.count)) + [0, 0, 0, layout.protocolNumber]
    return TestPacket.checksum(pseudo + segment)
  }

  private mutating func store(_ value: UInt16, _ offset: Int) {
    bytes[offset] = UInt8(value >> 8)
    bytes[offset + 1] = UInt8(value & 255)
  }

  /// RFC 1071 word by word: the complement of the one's complement sum.
  public static func checksum(_ bytes: some Sequence<UInt8>) -> UInt16 {
    var sum: UInt32 = 0
    var isHighByte = true
    for byte in bytes {
      sum += isHighByte ? UInt32(byte) << 8 : UInt32(byte)
      sum = (sum & 0xffff) + (sum >> 16)
      isHighByte.toggle()
    }
    return ~UInt16(sum)
  }
}

extension TestPacket: CustomStringConvertible {
  /// `tcp 10.0.0.1:1234 > 10.0.0.2:80 syn seq 100`.
  public var description: String {
    guard parsed(checksums: .trust) == nil else { return "\(bytes.count) bytes that are no packet" }
    let names: [UInt8: String] = [6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"]
    var text = "\(names[protocolNumber] ?? "protocol \(protocolNumber)") \(source) > \(destination)"
    if protocolNumber == IPProtocol.tcp {
      let flags: [(TCPFlags, String)] = [
        (.syn, "syn"), (.fin, "fin"), (.rst, "rst"), (.psh, "psh"), (.ack, "ack"), (.urg, "urg"),
      ]
      text += flags.filter { tcpFlags.contains($0.0) }.map { " \($0.1)" }.joined() + " seq \(tcpSequence)"
    }
    let length = payload.count
    return length == 0 ? text : text + " + \(length) bytes"
  }
}
