/// One packet: a checked view of bytes that a batch owns.
///
/// A frame can be neither copied nor kept, so a network function cannot leak or free a packet; it reads
/// and rewrites fields and says by a verdict what should become of it. `parse` checks every length
/// once, at the edge; after that no accessor can fail.
///
///     bytes                                                       networkEnd   length
///     | Ethernet | VLAN* | IPv4 or IPv6 + extensions | TCP/UDP/ICMP | payload |  padding |
///                        networkOffset               transportOffset payloadOffset
///
/// Sixty-four bytes, so that a batch of frames is as many cache lines.
@safe
public struct Frame: ~Copyable {
  /// First byte of the Ethernet header; `length` bytes are readable and writable.
  @usableFromInline let bytes: UnsafeMutableRawPointer
  /// What the batch must give back: an mbuf, or a slot of a pcap reader.
  public let buffer: UnsafeMutableRawPointer?
  @usableFromInline var key: IPv4FiveTuple
  public let arrival: Tick

  /// The flow's slot, and the hash it was found by: the flow table's notes.
  public var hash: UInt64
  public var slot: UInt32

  public let length: UInt16
  @usableFromInline var transportOffset: UInt16
  @usableFromInline var networkEnd: UInt16
  @usableFromInline var networkOffset: UInt8
  /// Of the transport header, in bytes.
  @usableFromInline var headerLength: UInt8
  /// TCP's control bits in the lower six bits, the family in the upper two.
  @usableFromInline var familyAndFlags: UInt8
  @usableFromInline var parsedProtocol: UInt8

  /// Which way the packet travels through its flow; set by the flow table.
  public var direction: Direction
  /// Set when the packet is dropped.
  public var dropReason: DropReason

  public enum Family: UInt8, Sendable, BitwiseCopyable { case none, ipv4, ipv6, arp }

  /// - Parameter bytes: with `headroom` bytes of its own before it, where a port allows resizing.
  @inlinable
  @unsafe
  public init(bytes: UnsafeMutableRawPointer, length: Int, buffer: UnsafeMutableRawPointer?, arrival: Tick) {
    self.bytes = bytes
    self.buffer = buffer
    self.arrival = arrival
    self.length = UInt16(truncatingIfNeeded: min(length, 65_535))
    key = .none
    hash = 0
    slot = .max
    transportOffset = 0
    networkEnd = 0
    networkOffset = 0
    headerLength = 0
    familyAndFlags = 0
    parsedProtocol = 0
    direction = .forward
    dropReason = .truncated
  }
}

/// The side a flow's packet comes from: `forward` is the way its first packet took.
public enum Direction: UInt8, Sendable, BitwiseCopyable {
  case forward, reverse

  @inlinable public var opposite: Direction { self == .forward ? .reverse : .forward }
}

/// TCP control bits (RFC 9293 §3.1).
public struct TCPFlags: OptionSet, Hashable, Sendable, BitwiseCopyable {
  public let rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let fin = TCPFlags(rawValue: 1)
  public static let syn = TCPFlags(rawValue: 2)
  public static let rst = TCPFlags(rawValue: 4)
  public static let psh = TCPFlags(rawValue: 8)
  public static let ack = TCPFlags(rawValue: 16)
  public static let urg = TCPFlags(rawValue: 32)
}

extension Frame {
  /// The key as the packet stands now; rewriting keeps it true. IPv4 only: see `ipv6FiveTuple`.
  @inlinable public var fiveTuple: IPv4FiveTuple { key }
  @inlinable public var family: Family {
    switch familyAndFlags >> 6 {
    case 1: .ipv4
    case 2: .ipv6
    case 3: .arp
    default: .none
    }
  }
  @inlinable @inline(__always)
  mutating func set(_ family: Family, flags: UInt8 = 0) { familyAndFlags = family.rawValue << 6 | flags & 0x3f }
  /// Of the IPv4 header, or of the last IPv6 extension header.
  @inlinable public var protocolNumber: UInt8 { parsedProtocol }
  @inlinable public var tcpFlags: TCPFlags { TCPFlags(rawValue: familyAndFlags & 0x3f) }

  // MARK: Loads and stores. Every offset below was checked by `parse`.

  @inlinable @inline(__always)
  func load8(_ offset: Int) -> UInt8 { unsafe bytes.load(fromByteOffset: offset, as: UInt8.self) }
  @inlinable @inline(__always)
  func load16(_ offset: Int) -> UInt16 { unsafe UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self)) }
  @inlinable @inline(__always)
  func load32(_ offset: Int) -> UInt32 { unsafe UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
  @inlinable @inline(__always)
  func load64(_ offset: Int) -> UInt64 { unsafe UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
  @inlinable @inline(__always)
  func store16(_ value: UInt16, _ offset: Int) {
    unsafe bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }
  @inlinable @inline(__always)
  func store32(_ value: UInt32, _ offset: Int) {
    unsafe bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }

  // MARK: Link

  /// Destination, or zero for a frame too short to have one.
  @inlinable public var destinationMAC: MACAddress {
    get { length >= 14 ? MACAddress(load64(0) >> 16) : .zero }
    nonmutating set { storeMAC(newValue, 0) }
  }

  @inlinable public var sourceMAC: MACAddress {
    get { length >= 14 ? MACAddress(load64(6) >> 16) : .zero }
    nonmutating set { storeMAC(newValue, 6) }
  }

  @inlinable func storeMAC(_ address: MACAddress, _ offset: Int) {
    guard length >= 14 else { return }
    store16(UInt16(truncatingIfNeeded: address.value >> 32), offset)
    store32(UInt32(truncatingIfNeeded: address.value), offset + 2)
  }

  /// Exchanges sender and receiver, and changes the last byte of either by `mask`: what answering costs on the fabric.
  @inlinable @inline(__always)
  public func exchangeMACAddresses(changingLastByte mask: UInt8) {
    guard length >= 14 else { return }
    let flip = UInt64(mask) << 40
    let destination = unsafe bytes.loadUnaligned(as: UInt64.self) & 0xffff_ffff_ffff ^ flip
    let source = unsafe bytes.loadUnaligned(fromByteOffset: 4, as: UInt64.self) >> 16 ^ flip
    unsafe bytes.storeBytes(of: source | destination << 48, as: UInt64.self)
    unsafe bytes.storeBytes(of: UInt32(truncatingIfNeeded: destination >> 16), toByteOffset: 8, as: UInt32.self)
  }

  /// Makes the source address that of a packet that somebody else releases for its sender: another address of that node,
  /// so that no bridge takes the one for the other.
  @inlinable @inline(__always)
  public func markReleased() {
    guard length >= 14 else { return }
    let last = unsafe bytes.load(fromByteOffset: 11, as: UInt8.self)
    unsafe bytes.storeBytes(of: last | 0x10, toByteOffset: 11, as: UInt8.self)
  }

  // MARK: Network

  @inlinable public var sourceAddress: IPAddress {
    @inline(__always) get {
      switch family {
      case .ipv4: IPAddress(fiveTuple.source)
      case .ipv6: IPAddress(high: load64(Int(networkOffset) + 8), low: load64(Int(networkOffset) + 16))
      case .arp, .none: IPAddress(high: 0, low: 0)
      }
    }
  }

  @inlinable public var destinationAddress: IPAddress {
    @inline(__always) get {
      switch family {
      case .ipv4: IPAddress(fiveTuple.destination)
      case .ipv6: IPAddress(high: load64(Int(networkOffset) + 24), low: load64(Int(networkOffset) + 32))
      case .arp, .none: IPAddress(high: 0, low: 0)
      }
    }
  }

  /// The key of an IPv6 packet; meaningless for another family.
  @inlinable public var ipv6FiveTuple: IPv6FiveTuple {
    @inline(__always) get {
      IPv6FiveTuple(source: sourceAddress, destination: destinationAddress, transport: fiveTuple.transport)
    }
  }

  /// The bytes of the IP packet, its header included: what flow statistics count.
  @inlinable public var networkLength: Int { Int(networkEnd) - Int(networkOffset) }

  // MARK: Transport

  @inlinable var payloadOffset: Int { Int(transportOffset) &+ Int(headerLength) }

  @inlinable public var sourcePort: UInt16 { fiveTuple.transport.sourcePort }
  @inlinable public var destinationPort: UInt16 { fiveTuple.transport.destinationPort }

  /// Sequence number of a TCP packet; 0 for any other protocol.
  @inlinable public var tcpSequence: UInt32 { protocolNumber == IPProtocol.tcp ? load32(Int(transportOffset) + 4) : 0 }
  @inlinable public var tcpAcknowledgement: UInt32 { protocolNumber == IPProtocol.tcp ? load32(Int(transportOffset) + 8) : 0 }
  @inlinable public var tcpWindow: UInt16 { protocolNumber == IPProtocol.tcp ? load16(Int(transportOffset) + 14) : 0 }

  /// The shift of the window scale option (RFC 7323 §2), which only a SYN can carry; `nil` without one.
  ///
  /// Walks the options: not for every packet. A shift above 14 counts as 14, as the RFC says.
  @inlinable @inline(__always)
  public var tcpWindowScale: UInt8? {
    guard tcpFlags.contains(.syn), protocolNumber == IPProtocol.tcp else { return nil }
    return unsafe Frame.windowScale(among: bytes + Int(transportOffset) + 20, count: Int(headerLength) - 20)
  }

  /// Apart from the frame: what is not inlined would take a copy of it.
  @inlinable @inline(never)
  @unsafe
  static func windowScale(among options: UnsafeRawPointer, count: Int) -> UInt8? {
    var offset = 0
    while offset < count {
      let kind = unsafe options.load(fromByteOffset: offset, as: UInt8.self)
      if kind == 0 { return nil }
      if kind == 1 {
        offset += 1
        continue
      }
      guard offset + 2 <= count else { return nil }
      let size = unsafe Int(options.load(fromByteOffset: offset + 1, as: UInt8.self))
      guard size >= 2, offset + size <= count else { return nil }
      if kind == 3, size == 3 { return unsafe min(options.load(fromByteOffset: offset + 2, as: UInt8.self), 14) }
      offset += size
    }
    return nil
  }

  /// Type of an ICMP or ICMPv6 packet; `nil` for any other protocol.
  @inlinable public var icmpType: UInt8? {
    // Either in the other family's packet is any protocol, and may be empty.
    headerLength > 0 && (protocolNumber == IPProtocol.icmp || protocolNumber == IPProtocol.icmpv6) ? load8(Int(transportOffset)) : nil
  }

  @inlinable public var isICMPEchoRequest: Bool {
    icmpType == (protocolNumber == IPProtocol.icmp ? 8 : 128)
  }

  @inlinable public var isICMPEchoReply: Bool {
    icmpType == (protocolNumber == IPProtocol.icmp ? 0 : 129)
  }

  @inlinable public var payloadLength: Int { Int(networkEnd) &- payloadOffset }

  /// Lends the transport payload; the span ends with the closure.
  @inlinable
  public func withPayload<Result>(_ body: (RawSpan) -> Result) -> Result {
    unsafe body(UnsafeRawBufferPointer(start: bytes + payloadOffset, count: payloadLength).bytes)
  }

  /// Whether it is of this EtherType, behind one VLAN tag at most. Needs no `parse`.
  @inlinable @inline(__always)
  public func isOfType(_ etherType: UInt16) -> Bool {
    guard length >= 18 else { return false }
    let type = load16(12)
    return type == etherType || (type == 0x8100 && load16(16) == etherType)
  }

  /// Overwrites the frame's first bytes.
  @unsafe
  public func write(_ source: UnsafeRawPointer, count: Int) {
    precondition(count <= Int(length), "bytes fit into the frame they are written to")
    unsafe bytes.copyMemory(from: source, byteCount: count)
  }

  /// Lends the IP header with its options or extension headers.
  @inlinable
  public func withNetworkHeader<Result>(_ body: (RawSpan) -> Result) -> Result {
    unsafe body(UnsafeRawBufferPointer(start: bytes + Int(networkOffset), count: Int(transportOffset) - Int(networkOffset)).bytes)
  }

  /// Lends the TCP, UDP or ICMP header with its options; empty for any other protocol.
  @inlinable
  public func withTransportHeader<Result>(_ body: (RawSpan) -> Result) -> Result {
    unsafe body(
      UnsafeRawBufferPointer(start: bytes + Int(transportOffset), count: Int(payloadOffset) - Int(transportOffset)).bytes)
  }

  /// Lends the whole frame, Ethernet header first.
  @inlinable
  public func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    unsafe body(UnsafeRawBufferPointer(start: bytes, count: Int(length)))
  }

  // MARK: Rewriting

  /// Gives an IPv4 packet another source; checksums follow incrementally (RFC 1624).
  ///
  /// The port of an ICMP echo request is its identifier. Ports of other protocols do not change.
  @inlinable @inline(__always)
  public mutating func rewriteSource(_ address: IPv4Address, port: UInt16) {
    guard isTCPOverIPv4 else { return rewriteSourceOfAny(address, port: port) }
    rewriteTCP(address, port, addressOffset: 12, portOffset: 0)
    key.addresses = key.addresses & ~0xffff_ffff | UInt64(address.value)
    key.transport = TransportKey(word: key.transport.word & ~0xffff | UInt64(port))
  }

  /// Gives an IPv4 packet another destination. The port of an ICMP echo reply is its identifier.
  @inlinable @inline(__always)
  public mutating func rewriteDestination(_ address: IPv4Address, port: UInt16) {
    guard isTCPOverIPv4 else { return rewriteDestinationOfAny(address, port: port) }
    rewriteTCP(address, port, addressOffset: 16, portOffset: 2)
    key.addresses = key.addresses & 0xffff_ffff | UInt64(address.value) << 32
    key.transport = TransportKey(word: key.transport.word & ~0xffff_0000 | UInt64(port) << 16)
  }

  @inlinable @inline(__always)
  var isTCPOverIPv4: Bool { parsedProtocol == IPProtocol.tcp && familyAndFlags >> 6 == Family.ipv4.rawValue }

  /// Everything in memory order: one's complement sums do not mind (RFC 1071 §2). What changes in the addresses
  /// changes both checksums alike.
  @inlinable @inline(__always)
  func rewriteTCP(_ address: IPv4Address, _ port: UInt16, addressOffset: Int, portOffset: Int) {
    let network = unsafe bytes + Int(networkOffset)
    let transport = unsafe bytes + Int(transportOffset)
    let (newAddress, newPort) = (address.value.bigEndian, port.bigEndian)
    let oldAddress = unsafe network.loadUnaligned(fromByteOffset: addressOffset, as: UInt32.self)
    let oldPort = unsafe transport.loadUnaligned(fromByteOffset: portOffset, as: UInt16.self)
    let headerChecksum = unsafe network.loadUnaligned(fromByteOffset: 10, as: UInt16.self)
    let checksum = unsafe transport.loadUnaligned(fromByteOffset: 16, as: UInt16.self)
    let change = UInt64(~oldAddress) &+ UInt64(newAddress)
    unsafe network.storeBytes(of: Checksum.update(headerChecksum, by: change), toByteOffset: 10, as: UInt16.self)
    unsafe transport.storeBytes(
      of: Checksum.update(checksum, by: change &+ UInt64(~oldPort) &+ UInt64(newPort)), toByteOffset: 16, as: UInt16.self)
    unsafe network.storeBytes(of: newAddress, toByteOffset: addressOffset, as: UInt32.self)
    unsafe transport.storeBytes(of: newPort, toByteOffset: portOffset, as: UInt16.self)
  }

  // MARK: Rewriting what is not TCP

  @inlinable @inline(never)
  mutating func rewriteSourceOfAny(_ address: IPv4Address, port: UInt16) {
    rewrite(address, port, old: fiveTuple.source, oldPort: sourcePort, addressOffset: 12, portOffset: 0)
    key = IPv4FiveTuple(source: address, destination: fiveTuple.destination, transport: transportKey(source: port))
  }

  @inlinable @inline(never)
  mutating func rewriteDestinationOfAny(_ address: IPv4Address, port: UInt16) {
    rewrite(address, port, old: fiveTuple.destination, oldPort: destinationPort, addressOffset: 16, portOffset: 2)
    key = IPv4FiveTuple(source: fiveTuple.source, destination: address, transport: transportKey(destination: port))
  }

  /// Offset of the transport checksum, or `nil` where none is to be kept: other protocols, and UDP
  /// over IPv4 sent without one (RFC 768).
  @inlinable @inline(__always)
  var checksumOffset: Int? {
    switch protocolNumber {
    case IPProtocol.tcp: return Int(transportOffset) + 16
    case IPProtocol.udp: return load16(Int(transportOffset) + 6) == 0 ? nil : Int(transportOffset) + 6
    case IPProtocol.icmp: return Int(transportOffset) + 2
    default: return nil
    }
  }

  @inlinable @inline(__always)
  func transportKey(source: UInt16? = nil, destination: UInt16? = nil) -> TransportKey {
    let hasPort: Bool =
      switch protocolNumber {
      case IPProtocol.tcp, IPProtocol.udp: true
      case IPProtocol.icmp: source != nil ? isICMPEchoRequest : isICMPEchoReply
      default: false
      }
    return TransportKey(
      source: hasPort ? source ?? sourcePort : sourcePort,
      destination: hasPort ? destination ?? destinationPort : destinationPort,
      protocolNumber: protocolNumber, vlan: fiveTuple.transport.vlan)
  }

  @inlinable @inline(__always)
  mutating func rewrite(
    _ address: IPv4Address, _ port: UInt16, old: IPv4Address, oldPort: UInt16, addressOffset: Int, portOffset: Int
  ) {
    guard family == .ipv4 else { return }
    let network = Int(networkOffset)
    let addressChange = (Checksum.removed(old.value), Checksum.added(address.value))
    store32(address.value, network + addressOffset)
    store16(Checksum.update(load16(network + 10), removing: addressChange.0, adding: addressChange.1), network + 10)

    var removing: UInt64 = 0
    var adding: UInt64 = 0
    switch protocolNumber {
    case IPProtocol.tcp, IPProtocol.udp:
      (removing, adding) = (addressChange.0 &+ UInt64(~oldPort), addressChange.1 &+ UInt64(port))
      store16(port, Int(transportOffset) + portOffset)
    case IPProtocol.icmp where portOffset == 0 ? isICMPEchoRequest : isICMPEchoReply:
      // No pseudo header over IPv4 (RFC 792): only the identifier counts.
      (removing, adding) = (UInt64(~oldPort), UInt64(port))
      store16(port, Int(transportOffset) + 4)
    default:
      return
    }
    guard let offset = checksumOffset else { return }
    let updated = Checksum.update(load16(offset), removing: removing, adding: adding)
    // A UDP checksum that comes out as zero is sent as all ones (RFC 768).
    store16(updated == 0 && protocolNumber == IPProtocol.udp ? 0xffff : updated, offset)
  }
}
