// An IPv6 packet becomes an IPv4 packet and back: the IP/ICMP translation algorithm (RFC 7915). Nothing here knows of mappings
// or flows; whose addresses and ports are put in is for the caller to say.
//
// The transport stays where it is in memory. The link header moves towards it or away from it:
//
//     | Ethernet | IPv6, 40 bytes and extension headers | TCP/UDP/ICMP ...
//                          | Ethernet | IPv4, 20 bytes  | TCP/UDP/ICMP ...
//
// So a frame begins somewhere else afterwards. It may grow by 20 bytes, an ICMP error by 40, into the room before it that
// every frame has (`Frame.headroom`).

extension Frame {
  /// Bytes before a frame's first that are its own to grow into. Whoever makes frames provides them.
  public static var headroom: Int { 64 }

  /// Makes an IPv6 packet an IPv4 packet (RFC 7915 §5.1). TCP, UDP and ICMPv6 echo only.
  ///
  /// Extension headers are left out. A packet of no more than 1,260 bytes may be cut on its way, a longer one may not.
  ///
  /// - Parameters:
  ///   - sourcePort: or the identifier of an echo request.
  ///   - identification: different from that of other packets between the two addresses.
  /// - Returns: `false`, and no change, for a packet that cannot be translated: it is on its way to somebody else first (a
  ///   routing header with segments left), or is authenticated as it stands (RFC 4302).
  @inline(never)
  public mutating func translateToIPv4(
    source: IPv4Address, sourcePort: UInt16, destination: IPv4Address, identification: UInt16, keepsTrafficClass: Bool
  ) -> Bool {
    guard family == .ipv6, let number = Frame.ipv4Number(of: parsedProtocol), hasOnlyHeadersToSkip else { return false }
    let (link, transport) = (Int(networkOffset), Int(transportOffset))
    let length = Int(networkEnd) - transport
    let covered = pseudoHeaderAddresses
    var removing = Checksum.removed(load64(covered.source)) &+ Checksum.removed(load64(covered.source + 8))
    removing &+= Checksum.removed(load64(covered.destination)) &+ Checksum.removed(load64(covered.destination + 8))
    var adding = Checksum.added(source.value) &+ Checksum.added(destination.value)
    let header = IPv4Header(
      trafficClass: keepsTrafficClass ? UInt8(truncatingIfNeeded: load16(link) >> 4) : 0, totalLength: 20 + length,
      identification: identification, mayNotBeCut: 20 + length > 1_260, timeToLive: load8(link + 7), protocolNumber: number,
      source: source, destination: destination)
    if number == IPProtocol.icmp {
      guard let type = Frame.ipv4EchoType(load8(transport)), headerLength == 8 else { return false }
      // ICMP has no pseudo header over IPv4.
      removing &+= UInt64(~UInt16(truncatingIfNeeded: length)) &+ UInt64(~UInt16(IPProtocol.icmpv6)) &+ UInt64(~load16(transport))
      adding = UInt64(type) << 8
      store16(UInt16(type) << 8, transport)
    }
    let hasPort = replacePort(isSource: true, number, sourcePort, &removing, &adding)
    updateChecksum(number, removing: removing, adding: adding)
    let old = fiveTuple.transport
    let key = IPv4FiveTuple(
      source: source, destination: destination,
      transport: TransportKey(
        source: hasPort ? sourcePort : old.sourcePort, destination: old.destinationPort, protocolNumber: number, vlan: old.vlan))
    let shift = transport - link - 20
    begin(at: shift, length: Int(self.length) - shift, transport: link + 20, end: link + 20 + length)
    write(header, at: link)
    become(.ipv4, number, key)
    return true
  }

  /// Makes an IPv4 packet an IPv6 packet (RFC 7915 §4.1). TCP, UDP and ICMP echo only.
  ///
  /// Options are left out. A UDP datagram without a checksum gets one (§4.5).
  ///
  /// - Returns: `false`, and no change, for a packet that cannot be translated: its route is prescribed, or it would be too long.
  @inline(never)
  public mutating func translateToIPv6(
    source: IPAddress, destination: IPAddress, destinationPort: UInt16, keepsTrafficClass: Bool
  ) -> Bool {
    guard family == .ipv4, let number = Frame.ipv6Number(of: parsedProtocol), !hasSourceRoute else { return false }
    let (link, transport) = (Int(networkOffset), Int(transportOffset))
    let length = Int(networkEnd) - transport
    let shift = transport - link - 40
    guard Int(self.length) - shift <= 65_535 else { return false }
    var removing = Checksum.removed(load32(link + 12)) &+ Checksum.removed(load32(link + 16))
    var adding = Checksum.added(source.high) &+ Checksum.added(source.low)
    adding &+= Checksum.added(destination.high) &+ Checksum.added(destination.low)
    let header = IPv6Header(
      trafficClass: keepsTrafficClass ? load8(link + 1) : 0, payloadLength: length, protocolNumber: number,
      hopLimit: load8(link + 8), source: source, destination: destination)
    if number == IPProtocol.icmpv6 {
      guard let type = Frame.ipv6EchoType(load8(transport)) else { return false }
      removing = UInt64(~load16(transport))
      adding &+= UInt64(length) &+ UInt64(IPProtocol.icmpv6) &+ UInt64(type) << 8
      store16(UInt16(type) << 8, transport)
    }
    let lacksChecksum = lacksUDPChecksum
    let hasPort = replacePort(isSource: false, number, destinationPort, &removing, &adding)
    if !lacksChecksum { updateChecksum(number, removing: removing, adding: adding) }
    let old = fiveTuple.transport
    let key = TransportKey(
      source: old.sourcePort, destination: hasPort ? destinationPort : old.destinationPort, protocolNumber: number, vlan: old.vlan)
    begin(at: shift, length: Int(self.length) - shift, transport: link + 40, end: link + 40 + length)
    write(header, at: link)
    become(
      .ipv6, number,
      IPv4FiveTuple(source: IPv4Address(load32(link + 12)), destination: IPv4Address(load32(link + 16)), transport: key))
    if lacksChecksum { writeIPv6Checksum(at: Int(transportOffset) + 6, length: length) }
    return true
  }

  /// UDP without a checksum, as only IPv4 has it (RFC 768).
  public var lacksUDPChecksum: Bool { parsedProtocol == IPProtocol.udp && load16(Int(transportOffset) + 6) == 0 }

  // MARK: What cannot be translated

  /// Whether all extension headers are such as a translator skips (RFC 7915 §5.1).
  var hasOnlyHeadersToSkip: Bool {
    var (next, offset) = (load8(Int(networkOffset) + 6), Int(networkOffset) + 40)
    while offset < Int(transportOffset) {
      if next == 51 || (next == 43 && load8(offset + 3) > 0) { return false }
      let size = (Int(load8(offset + 1)) + 1) * 8
      next = load8(offset)
      offset += size
    }
    return true
  }

  /// Whether an IPv4 option prescribes a route that is not at its end (RFC 791 §3.1).
  var hasSourceRoute: Bool {
    let end = Int(transportOffset)
    var offset = Int(networkOffset) + 20
    while offset < end {
      let kind = load8(offset)
      if kind == 0 { return false }
      if kind == 1 {
        offset += 1
        continue
      }
      guard offset + 2 < end else { return false }
      let size = Int(load8(offset + 1))
      guard size >= 3 else { return false }
      if kind == 131 || kind == 137, Int(load8(offset + 2)) <= size { return true }
      offset += size
    }
    return false
  }

  // MARK: Numbers of either family

  static func ipv4Number(of number: UInt8) -> UInt8? {
    switch number {
    case IPProtocol.tcp, IPProtocol.udp: number
    case IPProtocol.icmpv6: IPProtocol.icmp
    default: nil
    }
  }

  static func ipv6Number(of number: UInt8) -> UInt8? {
    switch number {
    case IPProtocol.tcp, IPProtocol.udp: number
    case IPProtocol.icmp: IPProtocol.icmpv6
    default: nil
    }
  }

  static func ipv4EchoType(_ type: UInt8) -> UInt8? { type == 128 ? 8 : type == 129 ? 0 : nil }
  static func ipv6EchoType(_ type: UInt8) -> UInt8? { type == 8 ? 128 : type == 0 ? 129 : nil }

  // MARK: Writing

  /// Puts another port in, if there is one at this end.
  ///
  /// - Parameter number: the protocol; the type of an ICMP message is already that of the other family.
  /// - Returns: whether there is.
  private func replacePort(
    isSource: Bool, _ number: UInt8, _ port: UInt16, _ removing: inout UInt64, _ adding: inout UInt64
  ) -> Bool {
    let offset: Int
    switch number {
    case IPProtocol.tcp, IPProtocol.udp: offset = Int(transportOffset) + (isSource ? 0 : 2)
    default:
      // The identifier is the client's port: the source of a request, the destination of a reply.
      let type = load8(Int(transportOffset))
      guard isSource ? type == 8 || type == 128 : type == 0 || type == 129 else { return false }
      offset = Int(transportOffset) + 4
    }
    removing &+= UInt64(~load16(offset))
    adding &+= UInt64(port)
    store16(port, offset)
    return true
  }

  private func updateChecksum(_ number: UInt8, removing: UInt64, adding: UInt64) {
    let offset = Int(transportOffset) + Frame.checksumPlace(number)
    // Over IPv6 some tunnels do without (RFC 6935), and may over IPv4.
    guard number != IPProtocol.udp || load16(offset) != 0 else { return }
    let updated = Checksum.update(load16(offset), removing: removing, adding: adding)
    store16(updated == 0 && number == IPProtocol.udp ? 0xffff : updated, offset)
  }

  static func checksumPlace(_ number: UInt8) -> Int {
    switch number {
    case IPProtocol.tcp: 16
    case IPProtocol.udp: 6
    default: 2
    }
  }

  /// Lets the frame begin `shift` bytes further on, with the same link header.
  mutating func begin(at shift: Int, length: Int, transport: Int, end: Int) {
    let link = Int(networkOffset)
    unsafe (bytes + shift).copyMemory(from: bytes, byteCount: link)
    var moved = unsafe Frame(bytes: bytes + shift, length: length, buffer: buffer, arrival: arrival)
    moved.key = key
    moved.hash = hash
    moved.slot = slot
    moved.transportOffset = UInt16(truncatingIfNeeded: transport)
    moved.networkEnd = UInt16(truncatingIfNeeded: end)
    moved.networkOffset = networkOffset
    moved.headerLength = headerLength
    moved.familyAndFlags = familyAndFlags
    moved.parsedProtocol = parsedProtocol
    moved.direction = direction
    moved.dropReason = dropReason
    self = moved
  }

  mutating func become(_ family: Family, _ number: UInt8, _ key: IPv4FiveTuple) {
    store16(family == .ipv4 ? 0x0800 : 0x86dd, Int(networkOffset) - 2)
    set(family, flags: familyAndFlags & 0x3f)
    parsedProtocol = number
    self.key = key
  }

  struct IPv4Header {
    var trafficClass: UInt8
    var totalLength: Int
    var identification: UInt16
    var mayNotBeCut: Bool
    var timeToLive: UInt8
    var protocolNumber: UInt8
    var source: IPv4Address
    var destination: IPv4Address
  }

  func write(_ header: IPv4Header, at start: Int) {
    store16(0x4500 | UInt16(header.trafficClass), start)
    store16(UInt16(truncatingIfNeeded: header.totalLength), start + 2)
    store16(header.identification, start + 4)
    store16(header.mayNotBeCut ? 0x4000 : 0, start + 6)
    store16(UInt16(header.timeToLive) << 8 | UInt16(header.protocolNumber), start + 8)
    store16(0, start + 10)
    store32(header.source.value, start + 12)
    store32(header.destination.value, start + 16)
    let sum = unsafe Checksum.fold(Checksum.sumOfPlainHeader(bytes + start))
    unsafe bytes.storeBytes(of: ~sum, toByteOffset: start + 10, as: UInt16.self)
  }

  struct IPv6Header {
    var trafficClass: UInt8
    var payloadLength: Int
    var protocolNumber: UInt8
    var hopLimit: UInt8
    var source: IPAddress
    var destination: IPAddress
  }

  func write(_ header: IPv6Header, at start: Int) {
    store32(0x6000_0000 | UInt32(header.trafficClass) << 20, start)
    store16(UInt16(truncatingIfNeeded: header.payloadLength), start + 4)
    store16(UInt16(header.protocolNumber) << 8 | UInt16(header.hopLimit), start + 6)
    store64(header.source.high, start + 8)
    store64(header.source.low, start + 16)
    store64(header.destination.high, start + 24)
    store64(header.destination.low, start + 32)
  }

  /// Computes the checksum of this IPv6 packet's transport, which is without extension headers, in full.
  func writeIPv6Checksum(at offset: Int, length: Int) {
    let (link, transport) = (Int(networkOffset), Int(transportOffset))
    store16(0, offset)
    let pseudo = unsafe Checksum.pseudoHeader(
      ipv6Source: bytes + link + 8, destination: bytes + link + 24, protocolNumber: parsedProtocol, length: length)
    let sum = unsafe ~Checksum.fold(Checksum.sum(bytes + transport, count: length, initial: pseudo))
    unsafe bytes.storeBytes(of: sum == 0 ? 0xffff : sum, toByteOffset: offset, as: UInt16.self)
  }
}
