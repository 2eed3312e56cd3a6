/// An ICMP or ICMPv6 error inside a frame: above all the packet that it quotes, by which its flow is known.
///
///     | Ethernet | IP | type code checksum ---- | quoted IP header | first bytes of its transport, 8 at least |
///
/// The quotation is as its packet left the chain towards whoever complains, so a NAT must put the client's
/// address back into it (RFC 5508 REQ-4, REQ-5). Rewriting keeps four checksums true: of the quoted IP header, of
/// the quoted transport where the quotation reaches that far, of the ICMP message, and (`Frame.rewriteSource`) of
/// the outer header.
///
/// A view of the frame's bytes: it must not outlive the frame it was made of. `nil` for anything but an error with a
/// whole and sound quotation: types and lengths are checked here once, and so is the quoted header's checksum
/// (RFC 5508 REQ-3b). Quoted IPv6 extension headers are not walked.
@safe
public struct ICMPError: ~Copyable {
  public let isIPv6: Bool
  public let protocolNumber: UInt8
  /// Start of the quoted IP header; what lies before it is the ICMP header.
  private let quoted: UnsafeMutableRawPointer
  private let transport: Int
  private let count: Int
  private let vlan: UInt16

  public init?(_ frame: borrowing Frame) {
    let isIPv6 = frame.family == .ipv6
    // Unreachable, time exceeded, parameter problem; packet too big (RFC 792, RFC 4443).
    guard let type = frame.icmpType, isIPv6 ? (1...4).contains(type) : [3, 11, 12].contains(type) else { return nil }
    let count = frame.payloadLength
    let start = unsafe frame.withPayload { span in unsafe span.withUnsafeBytes { $0.baseAddress } }
    guard let start = unsafe start, count >= 28 else { return nil }
    let first = unsafe start.load(as: UInt8.self)
    let transport = isIPv6 ? 40 : Int(first & 15) * 4
    guard first >> 4 == (isIPv6 ? 6 : 4), transport >= 20, count >= transport + 8 else { return nil }
    if !isIPv6 {
      guard unsafe Checksum.fold(Checksum.sum(start, count: transport)) == 0xffff else { return nil }
      let fragment = unsafe UInt16(bigEndian: start.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
      guard fragment & 0x1fff == 0 else { return nil }
    }
    let protocolNumber = unsafe start.load(fromByteOffset: isIPv6 ? 6 : 9, as: UInt8.self)
    switch protocolNumber {
    case IPProtocol.tcp, IPProtocol.udp: break
    case isIPv6 ? IPProtocol.icmpv6 : IPProtocol.icmp:
      let quotedType = unsafe start.load(fromByteOffset: transport, as: UInt8.self)
      guard isIPv6 ? (128...129).contains(quotedType) : quotedType == 8 || quotedType == 0 else { return nil }
    default: return nil
    }
    self.isIPv6 = isIPv6
    self.protocolNumber = protocolNumber
    // The frame's own bytes are writable; only the span says otherwise.
    unsafe quoted = UnsafeMutableRawPointer(mutating: start)
    self.transport = transport
    self.count = count
    vlan = frame.fiveTuple.transport.vlan
  }

  // MARK: The quoted packet

  public var source: IPAddress { address(isIPv6 ? 8 : 12) }
  public var destination: IPAddress { address(isIPv6 ? 24 : 16) }
  /// For a quoted echo request: its identifier.
  public var sourcePort: UInt16 { hasPorts ? load16(transport) : isEchoRequest ? load16(transport + 4) : 0 }
  /// For a quoted echo reply: its identifier.
  public var destinationPort: UInt16 { hasPorts ? load16(transport + 2) : isEchoReply ? load16(transport + 4) : 0 }
  /// Sequence number of a quoted TCP segment.
  public var tcpSequence: UInt32? {
    protocolNumber == IPProtocol.tcp ? UInt32(load16(transport + 4)) << 16 | UInt32(load16(transport + 6)) : nil
  }

  /// The key by which a flow table finds the flow, and the error's direction through it: an error travels as an
  /// answer to the packet that it quotes.
  public var answerKey: IPv4FiveTuple {
    IPv4FiveTuple(source: source.ipv4 ?? IPv4Address(0), destination: destination.ipv4 ?? IPv4Address(0), transport: transportKey)
      .reversed
  }
  public var ipv6AnswerKey: IPv6FiveTuple {
    IPv6FiveTuple(source: source, destination: destination, transport: transportKey).reversed
  }

  private var transportKey: TransportKey {
    TransportKey(source: sourcePort, destination: destinationPort, protocolNumber: protocolNumber, vlan: vlan)
  }
  private var hasPorts: Bool { protocolNumber == IPProtocol.tcp || protocolNumber == IPProtocol.udp }
  private var isEchoRequest: Bool { !hasPorts && quotedType == (isIPv6 ? 128 : 8) }
  private var isEchoReply: Bool { !hasPorts && quotedType == (isIPv6 ? 129 : 0) }
  private var quotedType: UInt8 { unsafe quoted.load(fromByteOffset: transport, as: UInt8.self) }

  // MARK: Rewriting

  /// Gives the quoted packet another source. IPv4 only.
  public func rewriteSource(_ address: IPv4Address, port: UInt16) {
    rewrite(address, port, addressAt: 12, portAt: hasPorts ? transport : isEchoRequest ? transport + 4 : nil)
  }

  /// Gives the quoted packet another destination. IPv4 only.
  public func rewriteDestination(_ address: IPv4Address, port: UInt16) {
    rewrite(address, port, addressAt: 16, portAt: hasPorts ? transport + 2 : isEchoReply ? transport + 4 : nil)
  }

  /// Gives the quoted packet another source. IPv6 only.
  public func rewriteSource(_ address: IPAddress, port: UInt16) {
    rewrite(address, port, addressAt: 8, portAt: hasPorts ? transport : isEchoRequest ? transport + 4 : nil)
  }

  /// Gives the quoted packet another destination. IPv6 only.
  public func rewriteDestination(_ address: IPAddress, port: UInt16) {
    rewrite(address, port, addressAt: 24, portAt: hasPorts ? transport + 2 : isEchoReply ? transport + 4 : nil)
  }

  /// There is no checksum of an IPv6 header, and that of every transport covers the addresses.
  private func rewrite(_ address: IPAddress, _ port: UInt16, addressAt: Int, portAt: Int?) {
    precondition(isIPv6, "an IPv6 address goes into an IPv6 packet")
    var change = Change()
    for index in 0..<8 {
      let half = index < 4 ? address.high : address.low
      let word = UInt16(truncatingIfNeeded: half >> UInt64(48 - index % 4 * 16))
      change.note(load16(addressAt + index * 2), word)
      store16(word, addressAt + index * 2)
    }
    if let portAt {
      change.note(load16(portAt), port)
      store16(port, portAt)
    }
    follow(change)
  }

  private func rewrite(_ address: IPv4Address, _ port: UInt16, addressAt: Int, portAt: Int?) {
    precondition(!isIPv6, "only IPv4 packets are rewritten")
    let words = (UInt16(truncatingIfNeeded: address.value >> 16), UInt16(truncatingIfNeeded: address.value))
    var change = Change()
    change.note(load16(addressAt), words.0)
    change.note(load16(addressAt + 2), words.1)
    store16(words.0, addressAt)
    store16(words.1, addressAt + 2)
    store16(change.applied(to: load16(10)), 10)
    // ICMP over IPv4 has no pseudo header: of an echo only the identifier counts.
    if !hasPorts { change = Change() }
    if let portAt {
      change.note(load16(portAt), port)
      store16(port, portAt)
    }
    follow(change)
  }

  /// The quoted transport's checksum, where the quotation reaches that far.
  private func follow(_ change: Change) {
    let checksumAt = transportChecksumOffset
    guard checksumAt + 2 <= count else { return }
    let old = load16(checksumAt)
    // UDP without a checksum stays without (RFC 768).
    guard protocolNumber != IPProtocol.udp || old != 0 else { return }
    let new = change.applied(to: old)
    store16(new == 0 && protocolNumber == IPProtocol.udp ? 0xffff : new, checksumAt)
  }

  private var transportChecksumOffset: Int {
    switch protocolNumber {
    case IPProtocol.tcp: transport + 16
    case IPProtocol.udp: transport + 6
    default: transport + 2
    }
  }

  /// Words that changed, for the checksums that cover them (RFC 1624 eqn. 3).
  private struct Change {
    var removed: UInt64 = 0
    var added: UInt64 = 0

    mutating func note(_ old: UInt16, _ new: UInt16) {
      removed &+= UInt64(~old)
      added &+= UInt64(new)
    }

    func applied(to checksum: UInt16) -> UInt16 { Checksum.update(checksum, removing: removed, adding: added) }
  }

  // MARK: Bytes

  private func address(_ offset: Int) -> IPAddress {
    func long(_ at: Int) -> UInt64 { UInt64(load16(at)) << 16 | UInt64(load16(at + 2)) }
    if !isIPv6 { return IPAddress(IPv4Address(UInt32(long(offset)))) }
    return IPAddress(high: long(offset) << 32 | long(offset + 4), low: long(offset + 8) << 32 | long(offset + 12))
  }

  private func load16(_ offset: Int) -> UInt16 {
    unsafe UInt16(bigEndian: quoted.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  /// Replaces a word of the quotation; the ICMP checksum, six bytes before it, follows.
  private func store16(_ value: UInt16, _ offset: Int) {
    let checksum = unsafe UInt16(bigEndian: quoted.loadUnaligned(fromByteOffset: -6, as: UInt16.self))
    let updated = Checksum.update(checksum, removing: UInt64(~load16(offset)), adding: UInt64(value))
    unsafe quoted.storeBytes(of: updated.bigEndian, toByteOffset: -6, as: UInt16.self)
    unsafe quoted.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }
}
