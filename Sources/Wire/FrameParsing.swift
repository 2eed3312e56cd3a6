// Bytes become a value here, once: every length is checked against the frame, every checksum against
// the bytes, and what does not hold is a drop with a reason.

/// What `parse` verifies beyond lengths.
public enum ChecksumPolicy: Sendable {
  /// Wrong IPv4 header and transport checksums are drops.
  case verify
  /// The port verified them, or the capture was taken before the sender's NIC filled them in.
  case trust
}

extension Frame {
  /// Fills in the frame's fields from its bytes; returns why it cannot be processed, or `nil`.
  ///
  /// ARP comes back as family `.arp` without an error; whoever handles no ARP drops it.
  @inlinable @inline(__always)
  public mutating func parse(checksums: ChecksumPolicy) -> DropReason? {
    // What nearly every packet is: TCP in an unfragmented IPv4 packet without options and tags.
    let isPlain =
      length >= 54 && load16(12) == 0x0800 && load8(14) == 0x45 && load8(23) == IPProtocol.tcp && load16(20) & 0x3fff == 0
    return isPlain ? parsePlainTCP(checksums) : parseAny(checksums)
  }

  @inlinable @inline(__always)
  mutating func parsePlainTCP(_ checksums: ChecksumPolicy) -> DropReason? {
    let totalLength = Int(load16(16))
    let headerLength = Int(load8(46) >> 4) &* 4
    // Lengths that do not fit are told apart by the other path.
    guard totalLength <= Int(length) &- 14, headerLength >= 20, headerLength &+ 20 <= totalLength else {
      return parseAny(checksums)
    }
    networkOffset = 14
    transportOffset = 34
    self.headerLength = UInt8(truncatingIfNeeded: headerLength)
    networkEnd = UInt16(truncatingIfNeeded: 14 &+ totalLength)
    set(.ipv4, flags: load8(47))
    parsedProtocol = IPProtocol.tcp
    key = IPv4FiveTuple(
      source: IPv4Address(load32(26)), destination: IPv4Address(load32(30)),
      transport: TransportKey(source: load16(34), destination: load16(36), protocolNumber: IPProtocol.tcp, vlan: 0))
    guard checksums == .verify else { return nil }
    guard unsafe Checksum.fold(Checksum.sumOfPlainHeader(bytes + 14)) == 0xffff else { return .badIPv4Checksum }
    let covered = totalLength &- 20
    let pseudo = unsafe Checksum.pseudoHeader(addresses: bytes + 26, protocolNumber: IPProtocol.tcp, length: covered)
    return unsafe Checksum.fold(Checksum.sum(bytes + 34, count: covered, initial: pseudo)) == 0xffff ? nil : .badTransportChecksum
  }

  @inlinable @inline(never)
  mutating func parseAny(_ checksums: ChecksumPolicy) -> DropReason? {
    guard length >= 14 else { return .truncated }
    var etherType = load16(12)
    var offset = 14
    var vlan: UInt16 = 0
    // Up to two VLAN tags (IEEE 802.1Q, 802.1ad); the inner one is part of the key.
    var tags = 0
    while etherType == 0x8100 || etherType == 0x88a8 || etherType == 0x9100 {
      guard tags < 2 else { return .unknownEtherType }
      guard Int(length) >= offset + 4 else { return .truncated }
      vlan = load16(offset) & 0x0fff
      etherType = load16(offset + 2)
      offset += 4
      tags += 1
    }
    networkOffset = UInt8(truncatingIfNeeded: offset)
    switch etherType {
    case 0x0800: return parseIPv4(vlan: vlan, checksums: checksums)
    case 0x86dd: return parseIPv6(vlan: vlan, checksums: checksums)
    case 0x0806:
      set(.arp)
      // No transport and no payload, for accessors that do not ask for the family first.
      networkEnd = length
      transportOffset = length
      return nil
    default: return .unknownEtherType
    }
  }

  @inlinable
  mutating func parseIPv4(vlan: UInt16, checksums: ChecksumPolicy) -> DropReason? {
    let start = Int(networkOffset)
    let available = Int(length) - start
    guard available >= 20 else { return .truncated }
    let versionAndLength = load8(start)
    let headerLength = Int(versionAndLength & 15) * 4
    let totalLength = Int(load16(start + 2))
    guard versionAndLength >> 4 == 4, headerLength >= 20, totalLength >= headerLength else { return .malformedIPv4 }
    guard totalLength <= available else { return .truncated }
    if checksums == .verify, unsafe Checksum.fold(Checksum.sum(bytes + start, count: headerLength)) != 0xffff {
      return .badIPv4Checksum
    }
    set(.ipv4)
    parsedProtocol = load8(start + 9)
    networkEnd = UInt16(truncatingIfNeeded: start + totalLength)
    transportOffset = UInt16(truncatingIfNeeded: start + headerLength)
    key = IPv4FiveTuple(
      source: IPv4Address(load32(start + 12)), destination: IPv4Address(load32(start + 16)),
      transport: TransportKey(source: 0, destination: 0, protocolNumber: protocolNumber, vlan: vlan))
    // More fragments, or an offset (RFC 791 §3.1).
    guard load16(start + 6) & 0x3fff == 0 else { return .fragment }
    return parseTransport(vlan: vlan, checksums: checksums, addresses: (start + 12, start + 16))
  }

  @inlinable
  mutating func parseIPv6(vlan: UInt16, checksums: ChecksumPolicy) -> DropReason? {
    let start = Int(networkOffset)
    guard Int(length) - start >= 40 else { return .truncated }
    guard load8(start) >> 4 == 6 else { return .malformedIPv6 }
    let end = start + 40 + Int(load16(start + 4))
    guard end <= Int(length) else { return .truncated }
    set(.ipv6)
    networkEnd = UInt16(truncatingIfNeeded: end)

    // Extension headers (RFC 8200 §4), at most eight.
    var next = load8(start + 6)
    var offset = start + 40
    var checksumSource = start + 8
    var checksumDestination = start + 24
    var walked = 0
    walk: while true {
      parsedProtocol = next
      key.transport = TransportKey(source: 0, destination: 0, protocolNumber: next, vlan: vlan)
      switch next {
      case 0, 43, 60, 51:
        guard walked < 8 else { return .tooManyExtensionHeaders }
        guard offset + 8 <= end else { return .malformedIPv6 }
        let size = next == 51 ? (Int(load8(offset + 1)) + 2) * 4 : (Int(load8(offset + 1)) + 1) * 8
        guard offset + size <= end else { return .malformedIPv6 }
        if next == 60, let home = homeAddress(in: offset + 2..<offset + size) { checksumSource = home }
        // Type 0 routing header with segments left: the checksum is over the final destination.
        if next == 43, load8(offset + 2) == 0, load8(offset + 3) > 0, size >= 24 { checksumDestination = offset + size - 16 }
        next = load8(offset)
        offset += size
        walked += 1
      case 44:
        return .fragment
      default:
        break walk
      }
    }
    transportOffset = UInt16(truncatingIfNeeded: offset)
    return parseTransport(vlan: vlan, checksums: checksums, addresses: (checksumSource, checksumDestination))
  }

  /// Offset of the address in a Home Address option (RFC 6275 §6.3), which stands for the source in
  /// checksums, if there is one among these options.
  @inlinable
  func homeAddress(in options: Range<Int>) -> Int? {
    var offset = options.lowerBound
    while offset < options.upperBound {
      if load8(offset) == 0 {  // Pad1
        offset += 1
        continue
      }
      guard offset + 2 <= options.upperBound else { return nil }
      let size = Int(load8(offset + 1))
      guard offset + 2 + size <= options.upperBound else { return nil }
      if load8(offset) == 0xc9, size == 16 { return offset + 2 }
      offset += 2 + size
    }
    return nil
  }

  /// - Parameter addresses: offsets of the source and destination that the pseudo header takes.
  @inlinable @inline(__always)
  mutating func parseTransport(
    vlan: UInt16, checksums: ChecksumPolicy, addresses: (source: Int, destination: Int)
  ) -> DropReason? {
    let start = Int(transportOffset)
    let available = Int(networkEnd) - start
    var headerLength = 0
    var covered = available
    var source: UInt16 = 0
    var destination: UInt16 = 0
    var usesPseudoHeader = true

    switch protocolNumber {
    case IPProtocol.tcp:
      guard available >= 20 else { return .malformedTransport }
      headerLength = Int(load8(start + 12) >> 4) * 4
      guard headerLength >= 20, headerLength <= available else { return .malformedTransport }
      set(family, flags: load8(start + 13))
      source = load16(start)
      destination = load16(start + 2)
    case IPProtocol.udp:
      guard available >= 8 else { return .malformedTransport }
      headerLength = 8
      covered = Int(load16(start + 4))
      guard covered >= 8, covered <= available else { return .malformedTransport }
      networkEnd = UInt16(truncatingIfNeeded: start + covered)
      source = load16(start)
      destination = load16(start + 2)
      // No checksum: allowed over IPv4 only (RFC 768, RFC 8200 §8.1).
      if load16(start + 6) == 0 { covered = family == .ipv4 ? 0 : covered }
    case IPProtocol.icmp where family == .ipv4:
      guard available >= 8 else { return .malformedTransport }
      headerLength = 8
      usesPseudoHeader = false
      (source, destination) = echoPorts(request: 8, reply: 0, start)
    case IPProtocol.icmpv6 where family == .ipv6:
      guard available >= 4 else { return .malformedTransport }
      headerLength = min(available, 8)
      if available >= 8 { (source, destination) = echoPorts(request: 128, reply: 129, start) }
    case 135 where family == .ipv6:  // Mobility header (RFC 6275 §6.1)
      guard available >= 8 else { return .malformedTransport }
      headerLength = 8
    default:
      covered = 0
    }
    self.headerLength = UInt8(truncatingIfNeeded: headerLength)
    key.transport = TransportKey(source: source, destination: destination, protocolNumber: protocolNumber, vlan: vlan)
    guard checksums == .verify, covered > 0 else { return nil }
    var initial: UInt64 = 0
    if usesPseudoHeader {
      initial =
        unsafe family == .ipv4
        ? Checksum.pseudoHeader(addresses: bytes + addresses.source, protocolNumber: protocolNumber, length: covered)
        : Checksum.pseudoHeader(
          ipv6Source: bytes + addresses.source, destination: bytes + addresses.destination,
          protocolNumber: protocolNumber, length: covered)
    }
    let sum = unsafe Checksum.fold(Checksum.sum(bytes + start, count: covered, initial: initial))
    return sum == 0xffff ? nil : .badTransportChecksum
  }

  @inlinable
  func echoPorts(request: UInt8, reply: UInt8, _ start: Int) -> (source: UInt16, destination: UInt16) {
    switch load8(start) {
    case request: (load16(start + 4), 0)
    case reply: (0, load16(start + 4))
    default: (0, 0)
    }
  }

  /// Whether every checksum of the frame is right, recomputed in full. For judges, not for the packet path.
  public func checksumsHold() -> Bool {
    unsafe Frame.checksumsHold(bytes, length: Int(length))
  }

  @unsafe
  static func checksumsHold(_ bytes: UnsafeMutableRawPointer, length: Int) -> Bool {
    var copy = unsafe Frame(bytes: bytes, length: length, buffer: nil, arrival: .zero)
    return copy.parse(checksums: .verify) == nil
  }
}
