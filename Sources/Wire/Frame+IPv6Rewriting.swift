// Other addresses for an IPv6 packet. Apart from IPv4's, which every packet of a NAT meets: this is not inlined anywhere.

extension Frame {
  /// Gives an IPv6 packet another source; checksums follow incrementally (RFC 1624).
  ///
  /// The port of an ICMPv6 echo request is its identifier. Ports of other protocols do not change.
  @inline(never)
  public mutating func rewriteSource(_ address: IPAddress, port: UInt16) {
    rewriteIPv6(address, port, oldPort: sourcePort, isSource: true)
  }

  /// Gives an IPv6 packet another destination. The port of an ICMPv6 echo reply is its identifier.
  @inline(never)
  public mutating func rewriteDestination(_ address: IPAddress, port: UInt16) {
    rewriteIPv6(address, port, oldPort: destinationPort, isSource: false)
  }

  private mutating func rewriteIPv6(_ address: IPAddress, _ port: UInt16, oldPort: UInt16, isSource: Bool) {
    guard family == .ipv6 else { return }
    let at = Int(networkOffset) + (isSource ? 8 : 24)
    let covered = pseudoHeaderAddresses
    var (removing, adding) = (UInt64(0), UInt64(0))
    if at == (isSource ? covered.source : covered.destination) {
      removing = Checksum.removed(load64(at)) &+ Checksum.removed(load64(at + 8))
      adding = Checksum.added(address.high) &+ Checksum.added(address.low)
    }
    store64(address.high, at)
    store64(address.low, at + 8)
    if let portOffset = portOffset(isSource: isSource) {
      removing &+= UInt64(~oldPort)
      adding &+= UInt64(port)
      store16(port, portOffset)
      let transport = fiveTuple.transport
      key.transport = TransportKey(
        source: isSource ? port : transport.sourcePort, destination: isSource ? transport.destinationPort : port,
        protocolNumber: protocolNumber, vlan: transport.vlan)
    }
    guard let offset = ipv6ChecksumOffset else { return }
    let updated = Checksum.update(load16(offset), removing: removing, adding: adding)
    store16(updated == 0 && protocolNumber == IPProtocol.udp ? 0xffff : updated, offset)
  }

  /// Where the port of one end stands; `nil` where there is none.
  func portOffset(isSource: Bool) -> Int? {
    switch protocolNumber {
    case IPProtocol.tcp, IPProtocol.udp: Int(transportOffset) + (isSource ? 0 : 2)
    case IPProtocol.icmp, IPProtocol.icmpv6:
      (isSource ? isICMPEchoRequest : isICMPEchoReply) && headerLength == 8 ? Int(transportOffset) + 4 : nil
    default: nil
    }
  }

  /// Where the checksum stands that covers an IPv6 packet's addresses.
  private var ipv6ChecksumOffset: Int? {
    switch protocolNumber {
    case IPProtocol.tcp: Int(transportOffset) + 16
    // One without a checksum stays without (RFC 6935).
    case IPProtocol.udp: load16(Int(transportOffset) + 6) == 0 ? nil : Int(transportOffset) + 6
    case IPProtocol.icmpv6: Int(transportOffset) + 2
    case 135: headerLength > 0 ? Int(transportOffset) + 4 : nil
    default: nil
    }
  }

  /// Where the addresses stand that checksums cover: a home address or a routing header can put them elsewhere than in the
  /// fixed header (RFC 8200 §8.1, RFC 6275 §11.3.2). `parse` has checked every length.
  var pseudoHeaderAddresses: (source: Int, destination: Int) {
    let start = Int(networkOffset)
    var (source, destination) = (start + 8, start + 24)
    var (next, offset) = (load8(start + 6), start + 40)
    while offset < Int(transportOffset) {
      let size = next == 51 ? (Int(load8(offset + 1)) + 2) * 4 : (Int(load8(offset + 1)) + 1) * 8
      if next == 60, let home = homeAddress(in: offset + 2..<offset + size) { source = home }
      if next == 43, load8(offset + 2) == 0, load8(offset + 3) > 0, size >= 24 { destination = offset + size - 16 }
      next = load8(offset)
      offset += size
    }
    return (source, destination)
  }

  func store64(_ value: UInt64, _ offset: Int) {
    unsafe bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
  }
}

extension Checksum {
  /// What to give `update` for the words of half an IPv6 address that is taken away.
  static func removed(_ value: UInt64) -> UInt64 {
    removed(UInt32(truncatingIfNeeded: value >> 32)) &+ removed(UInt32(truncatingIfNeeded: value))
  }

  /// What to give `update` for the words of half an IPv6 address that is put in.
  static func added(_ value: UInt64) -> UInt64 {
    added(UInt32(truncatingIfNeeded: value >> 32)) &+ added(UInt32(truncatingIfNeeded: value))
  }
}
