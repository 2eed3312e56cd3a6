/// A neighbor solicitation or advertisement (RFC 4861 §4.3, §4.4): what ARP is to IPv4.
///
///     | Ethernet | IPv6, hop limit 255 | type code checksum flags | target | options: link-layer address |
public struct NeighborMessage: Equatable, Sendable {
  public enum Kind: UInt8, Sendable { case solicitation = 135, advertisement = 136 }

  public var kind: Kind
  /// Unspecified (`::`) when the sender asks whether the target is taken (RFC 4862 §5.4).
  public var source: IPAddress
  public var target: IPAddress
  /// Of the sender of a solicitation, of the target of an advertisement.
  public var linkAddress: MACAddress?
  /// Whether an advertisement answers a solicitation.
  public var isSolicited: Bool

  public static let frameLength = 14 + 40 + 24 + 8

  public init(kind: Kind, source: IPAddress, target: IPAddress, linkAddress: MACAddress?, isSolicited: Bool = false) {
    self.kind = kind
    self.source = source
    self.target = target
    self.linkAddress = linkAddress
    self.isSolicited = isSolicited
  }

  public static let unspecified = IPAddress(high: 0, low: 0)
  public static let allNodes = IPAddress(high: 0xff02_0000_0000_0000, low: 1)

  /// Reads the message of a frame that `parse` has taken; `nil` for any other packet, and for one that did not come from
  /// this link, is malformed or has a wrong checksum (RFC 4861 §7.1.1, §7.1.2).
  public init?(_ frame: borrowing Frame) {
    guard let type = frame.icmpType, frame.family == .ipv6, let kind = Kind(rawValue: type), frame.timeToLive == 255 else {
      return nil
    }
    let start = Int(frame.networkOffset) + 40
    // Behind no extension header: nobody sends it so.
    guard Int(frame.transportOffset) == start, case let end = Int(frame.networkEnd), end - start >= 24,
      frame.load8(start + 1) == 0, frame.checksumHolds(ofICMPv6: start, end)
    else { return nil }
    let target = IPAddress(high: frame.load64(start + 8), low: frame.load64(start + 16))
    guard target.high >> 56 != 0xff else { return nil }
    var link: MACAddress?
    var offset = start + 24
    while offset < end {
      guard offset + 2 <= end, case let size = Int(frame.load8(offset + 1)) * 8, size > 0, offset + size <= end else { return nil }
      if frame.load8(offset) == (kind == .solicitation ? 1 : 2), size == 8 {
        link = MACAddress(UInt64(frame.load16(offset + 2)) << 32 | UInt64(frame.load32(offset + 4)))
      }
      offset += size
    }
    if link?.isGroup == true { return nil }
    let source = frame.sourceAddress
    if kind == .solicitation, source == Self.unspecified, link != nil { return nil }
    self.init(
      kind: kind, source: source, target: target, linkAddress: link,
      isSolicited: kind == .advertisement && frame.load8(start + 4) & 0x40 != 0)
  }

  /// The group that whoever has the target listens to (RFC 4291 §2.7.1), and its link address (RFC 2464 §7).
  public static func solicitedNode(_ target: IPAddress) -> (address: IPAddress, link: MACAddress) {
    group(IPAddress(high: 0xff02_0000_0000_0000, low: 0x0001_ff00_0000 | target.low & 0xff_ffff))
  }

  public static func group(_ address: IPAddress) -> (address: IPAddress, link: MACAddress) {
    (address, MACAddress(0x3333_0000_0000 | address.low & 0xffff_ffff))
  }

  /// Writes the whole frame over `frame`'s first 86 bytes, which are zeroed.
  public func write(to frame: borrowing Frame, from station: MACAddress, to destination: (address: IPAddress, link: MACAddress)) {
    precondition(Int(frame.length) >= Self.frameLength, "a neighbor message has 86 bytes")
    frame.destinationMAC = destination.link
    frame.sourceMAC = station
    frame.store16(0x86dd, 12)
    frame.store32(0x6000_0000, 14)
    frame.store16(32, 18)
    frame.store16(UInt16(IPProtocol.icmpv6) << 8 | 255, 20)
    frame.store(source, 22)
    frame.store(destination.address, 38)
    frame.store16(UInt16(kind.rawValue) << 8, 54)
    frame.store16(0, 56)
    // An advertisement replaces what was known before ("override").
    frame.store32(kind == .solicitation ? 0 : (isSolicited ? 0x6000_0000 : 0x2000_0000), 58)
    frame.store(target, 62)
    let link = linkAddress ?? station
    frame.store16((kind == .solicitation ? 1 : 2) << 8 | 1, 78)
    frame.store16(UInt16(truncatingIfNeeded: link.value >> 32), 80)
    frame.store32(UInt32(truncatingIfNeeded: link.value), 82)
    let pseudo = unsafe Checksum.pseudoHeader(
      ipv6Source: frame.bytes + 22, destination: frame.bytes + 38, protocolNumber: IPProtocol.icmpv6, length: 32)
    let sum = unsafe Checksum.fold(Checksum.sum(frame.bytes + 54, count: 32, initial: pseudo))
    unsafe frame.bytes.storeBytes(of: ~sum, toByteOffset: 56, as: UInt16.self)
  }
}

extension Frame {
  func store(_ address: IPAddress, _ offset: Int) {
    for (index, word) in [address.high >> 32, address.high, address.low >> 32, address.low].enumerated() {
      store32(UInt32(truncatingIfNeeded: word), offset + index * 4)
    }
  }

  func checksumHolds(ofICMPv6 start: Int, _ end: Int) -> Bool {
    let addresses = Int(networkOffset) + 8
    let pseudo = unsafe Checksum.pseudoHeader(
      ipv6Source: bytes + addresses, destination: bytes + addresses + 16, protocolNumber: IPProtocol.icmpv6, length: end - start)
    return unsafe Checksum.fold(Checksum.sum(bytes + start, count: end - start, initial: pseudo)) == 0xffff
  }
}
