// What a router says about a packet that it cannot send on: an ICMP or ICMPv6 error that quotes it.

extension Frame {
  /// Hops that the packet may still take: IPv4's time to live, IPv6's hop limit.
  @inlinable public var timeToLive: UInt8 {
    load8(Int(networkOffset) + (family == .ipv6 ? 7 : 8))
  }

  /// One hop less; the IPv4 header checksum follows (RFC 1624). There must be one to take.
  @inlinable
  public func decrementTimeToLive() {
    let start = Int(networkOffset)
    if family == .ipv6 {
      unsafe bytes.storeBytes(of: load8(start + 7) &- 1, toByteOffset: start + 7, as: UInt8.self)
    } else {
      let old = load16(start + 8)
      let new = old &- 0x0100
      store16(Checksum.update(load16(start + 10), removing: UInt64(~old), adding: UInt64(new)), start + 10)
      store16(new, start + 8)
    }
  }

  /// IPv6, and IPv4 with "don't fragment" (RFC 791 §3.1).
  @inlinable public var mayNotBeCut: Bool { family == .ipv6 || load8(Int(networkOffset) + 6) & 0x40 != 0 }
}

/// An error about a packet, told to its sender.
public enum ErrorReport: Hashable, Sendable {
  /// Its time to live or hop limit was used up in transit.
  case timeExceeded
  /// It is longer than the next link takes: "fragmentation needed" (RFC 1191 §4), "packet too big" (RFC 4443 §3.2).
  case tooBig(mtu: Int)

  /// Whether a packet may be reported at all: no error about an error, a group's packet or one that nobody has sent
  /// (RFC 1812 §4.3.2.7, RFC 4443 §2.4 e).
  public static func mayReport(_ frame: borrowing Frame) -> Bool {
    let (source, destination) = (frame.sourceAddress, frame.destinationAddress)
    guard !frame.destinationMAC.isGroup else { return false }
    switch frame.family {
    case .ipv4:
      guard let from = source.ipv4?.value, let to = destination.ipv4?.value, from != 0, from >> 28 < 14, from >> 24 != 127,
        to >> 28 < 14
      else { return false }
      guard let type = frame.icmpType else { return true }
      // Queries only.
      return [0, 8, 13, 14].contains(type)
    case .ipv6:
      guard source.high >> 56 != 0xff, destination.high >> 56 != 0xff, source != IPAddress(high: 0, low: 0) else { return false }
      return frame.icmpType.map { $0 >= 128 } ?? true
    case .arp, .none: return false
    }
  }

  /// Bytes of the frame that reports `frame`: as much of it is quoted as fits into 576 bytes, with IPv6 into 1280.
  public static func length(about frame: borrowing Frame) -> Int {
    max(60, Int(frame.networkOffset) + headerLength(frame) + 8 + quotedLength(frame))
  }

  private static func headerLength(_ frame: borrowing Frame) -> Int { frame.family == .ipv6 ? 40 : 20 }
  private static func quotedLength(_ frame: borrowing Frame) -> Int {
    min(frame.networkLength, (frame.family == .ipv6 ? 1_280 : 576) - headerLength(frame) - 8)
  }

  /// Writes the report over `report`, which has `length(about:)` zeroed bytes: back to the station it came from, in the
  /// name of `sender`, an address of the packet's family.
  public func write(to report: borrowing Frame, about frame: borrowing Frame, from sender: IPAddress) {
    let network = Int(frame.networkOffset)
    let (header, quoted) = (Self.headerLength(frame), Self.quotedLength(frame))
    precondition(Int(report.length) >= network + header + 8 + quoted, "a report has room for what it says")
    unsafe report.bytes.copyMemory(from: frame.bytes, byteCount: network)
    report.destinationMAC = frame.sourceMAC
    report.sourceMAC = frame.destinationMAC
    let message = network + header
    unsafe (report.bytes + message + 8).copyMemory(from: frame.bytes + network, byteCount: quoted)
    let isIPv6 = frame.family == .ipv6
    let (type, code, word): (UInt16, UInt16, UInt32) =
      switch self {
      case .timeExceeded: (isIPv6 ? 3 : 11, 0, 0)
      case .tooBig(let mtu): isIPv6 ? (2, 0, UInt32(truncatingIfNeeded: mtu)) : (3, 4, UInt32(truncatingIfNeeded: min(mtu, 65_535)))
      }
    report.store16(type << 8 | code, message)
    report.store16(0, message + 2)
    report.store32(word, message + 4)
    if isIPv6 {
      report.store32(0x6000_0000, network)
      report.store16(UInt16(truncatingIfNeeded: 8 + quoted), network + 4)
      report.store16(UInt16(IPProtocol.icmpv6) << 8 | 64, network + 6)
      for (offset, word) in [(8, sender.high), (16, sender.low), (24, frame.sourceAddress.high), (32, frame.sourceAddress.low)] {
        report.store32(UInt32(truncatingIfNeeded: word >> 32), network + offset)
        report.store32(UInt32(truncatingIfNeeded: word), network + offset + 4)
      }
    } else {
      report.store16(0x4500, network)
      report.store16(UInt16(truncatingIfNeeded: 28 + quoted), network + 2)
      report.store32(0, network + 4)
      report.store16(64 << 8 | UInt16(IPProtocol.icmp), network + 8)
      report.store16(0, network + 10)
      report.store32(sender.ipv4?.value ?? 0, network + 12)
      report.store32(frame.sourceAddress.ipv4?.value ?? 0, network + 16)
      let sum = unsafe Checksum.fold(Checksum.sumOfPlainHeader(report.bytes + network))
      unsafe report.bytes.storeBytes(of: ~sum, toByteOffset: network + 10, as: UInt16.self)
    }
    let pseudo =
      unsafe isIPv6
      ? Checksum.pseudoHeader(
        ipv6Source: report.bytes + network + 8, destination: report.bytes + network + 24, protocolNumber: IPProtocol.icmpv6,
        length: 8 + quoted) : 0
    let sum = unsafe Checksum.fold(Checksum.sum(report.bytes + message, count: 8 + quoted, initial: pseudo))
    unsafe report.bytes.storeBytes(of: ~sum, toByteOffset: message + 2, as: UInt16.self)
  }
}
