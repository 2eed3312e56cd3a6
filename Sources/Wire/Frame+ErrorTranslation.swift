// ICMP errors of either family become errors of the other, with the header of the packet that they quote (RFC 7915 §4.2, §4.3,
// §5.2, §5.3).
//
//     | Ethernet | IPv4 | ICMP   | IPv4 | TCP/UDP/ICMP, as far as it is quoted |
//     | Ethernet | IPv6 | ICMPv6 | IPv6 | TCP/UDP/ICMP, as far as it is quoted |
//
// What is quoted of the transport stays where it is; everything before it is written anew. Extensions (RFC 4884) are left out.

extension Frame {
  /// Addresses and port for a translated error: the new ones of the error itself, and of the packet that it quotes.
  public struct ErrorEnds<Address> {
    public var source: Address
    public var destination: Address
    public var quotedSource: Address
    public var quotedDestination: Address
    /// The client's: of the quoted source over IPv6, of the quoted destination over IPv4. An echo's identifier.
    public var port: UInt16

    public init(source: Address, destination: Address, quotedSource: Address, quotedDestination: Address, port: UInt16) {
      self.source = source
      self.destination = destination
      self.quotedSource = quotedSource
      self.quotedDestination = quotedDestination
      self.port = port
    }
  }

  /// Makes an ICMP error an ICMPv6 error.
  ///
  /// - Returns: `false`, and no change, for an error that IPv6 does not have, or that is none (`ICMPError`).
  @inline(never)
  public mutating func translateErrorToIPv6(_ ends: ErrorEnds<IPAddress>, keepsTrafficClass: Bool) -> Bool {
    guard family == .ipv4, let size = quotedSize, !hasSourceRoute else { return false }
    let (link, message) = (Int(networkOffset), Int(transportOffset))
    let quoted = message + 8
    let inner = quoted + Int(load8(quoted) & 15) * 4
    let innerLength = Int(load16(quoted + 2)) - (inner - quoted)
    guard
      let said = ICMPMeaning.overIPv6(
        type: load8(message), code: load8(message + 1), pointer: load8(message + 4), mtu: load16(message + 6),
        quotedLength: Int(load16(quoted + 2))),
      let number = Frame.ipv6Number(of: load8(quoted + 9)), innerLength > 0, size > inner - quoted
    else { return false }
    // No error is longer than every link takes (RFC 4443 §2.4 c).
    let kept = min(size - (inner - quoted), 1_280 - 88)
    let innerHeader = IPv6Header(
      trafficClass: load8(quoted + 1), payloadLength: innerLength, protocolNumber: number, hopLimit: load8(quoted + 8),
      source: ends.quotedSource, destination: ends.quotedDestination)
    let header = IPv6Header(
      trafficClass: keepsTrafficClass ? load8(link + 1) : 0, payloadLength: 48 + kept, protocolNumber: IPProtocol.icmpv6,
      hopLimit: load8(link + 8), source: ends.source, destination: ends.destination)
    var removing = Checksum.removed(load32(quoted + 12)) &+ Checksum.removed(load32(quoted + 16))
    var adding = Checksum.added(ends.quotedSource.high) &+ Checksum.added(ends.quotedSource.low)
    adding &+= Checksum.added(ends.quotedDestination.high) &+ Checksum.added(ends.quotedDestination.low)
    if number == IPProtocol.icmpv6 {
      guard let type = Frame.ipv6EchoType(load8(inner)) else { return false }
      removing = UInt64(~load16(inner))
      adding &+= UInt64(truncatingIfNeeded: innerLength) &+ UInt64(IPProtocol.icmpv6) &+ UInt64(type) << 8
      store16(UInt16(type) << 8, inner)
    }
    replaceQuotedPort(at: inner, isSource: true, number, ends.port, &removing, &adding, count: kept)
    let shift = inner - 88 - link
    begin(at: shift, length: link + 88 + kept, transport: link + 40, end: link + 88 + kept)
    write(header, at: link)
    write(innerHeader, at: link + 48)
    writeMessage(said, at: link + 40)
    become(.ipv6, IPProtocol.icmpv6, errorKey(IPProtocol.icmpv6))
    writeIPv6Checksum(at: link + 42, length: 48 + kept)
    return true
  }

  /// Makes an ICMPv6 error an ICMP error.
  @inline(never)
  public mutating func translateErrorToIPv4(
    _ ends: ErrorEnds<IPv4Address>, identification: UInt16, keepsTrafficClass: Bool
  ) -> Bool {
    guard family == .ipv6, let size = quotedSize, hasOnlyHeadersToSkip else { return false }
    let (link, message) = (Int(networkOffset), Int(transportOffset))
    let quoted = message + 8
    let inner = quoted + 40
    let innerLength = Int(load16(quoted + 4))
    guard
      let said = ICMPMeaning.overIPv4(type: load8(message), code: load8(message + 1), word: load32(message + 4)),
      let number = Frame.ipv4Number(of: load8(quoted + 6)), size > 40, innerLength <= 65_515
    else { return false }
    let kept = size - 40
    let innerHeader = IPv4Header(
      trafficClass: UInt8(truncatingIfNeeded: load16(quoted) >> 4), totalLength: 20 + innerLength, identification: 0,
      mayNotBeCut: 20 + innerLength > 1_260, timeToLive: load8(quoted + 7), protocolNumber: number,
      source: ends.quotedSource, destination: ends.quotedDestination)
    let header = IPv4Header(
      trafficClass: keepsTrafficClass ? UInt8(truncatingIfNeeded: load16(link) >> 4) : 0, totalLength: 48 + kept,
      identification: identification, mayNotBeCut: 48 + kept > 1_260, timeToLive: load8(link + 7),
      protocolNumber: IPProtocol.icmp, source: ends.source, destination: ends.destination)
    var removing = Checksum.removed(load64(quoted + 8)) &+ Checksum.removed(load64(quoted + 16))
    removing &+= Checksum.removed(load64(quoted + 24)) &+ Checksum.removed(load64(quoted + 32))
    var adding = Checksum.added(ends.quotedSource.value) &+ Checksum.added(ends.quotedDestination.value)
    if number == IPProtocol.icmp {
      guard let type = Frame.ipv4EchoType(load8(inner)) else { return false }
      removing &+= UInt64(~UInt16(truncatingIfNeeded: innerLength)) &+ UInt64(~UInt16(IPProtocol.icmpv6)) &+ UInt64(~load16(inner))
      adding = UInt64(type) << 8
      store16(UInt16(type) << 8, inner)
    }
    replaceQuotedPort(at: inner, isSource: false, number, ends.port, &removing, &adding, count: kept)
    let shift = inner - 48 - link
    begin(at: shift, length: link + 48 + kept, transport: link + 20, end: link + 48 + kept)
    write(header, at: link)
    write(innerHeader, at: link + 28)
    writeMessage(said, at: link + 20)
    become(
      .ipv4, IPProtocol.icmp,
      IPv4FiveTuple(source: ends.source, destination: ends.destination, transport: errorKey(IPProtocol.icmp).transport))
    let sum = unsafe ~Checksum.fold(Checksum.sum(bytes + link + 20, count: 28 + kept))
    unsafe bytes.storeBytes(of: sum, toByteOffset: link + 22, as: UInt16.self)
    return true
  }

  /// Bytes of the quoted packet that are here, without an extension behind them; `nil` if this is no error with a sound quotation.
  private var quotedSize: Int? {
    guard ICMPError(self) != nil else { return nil }
    let (message, isIPv6) = (Int(transportOffset), family == .ipv6)
    var size = Int(networkEnd) - message - 8
    // RFC 4884 §4: how long the quotation is, in words of 32 and 64 bits, where something follows it.
    let extended = isIPv6 ? Int(load8(message + 4)) * 8 : Int(load8(message + 5)) * 4
    let mayHaveExtension = isIPv6 ? [1, 3].contains(load8(message)) : [3, 11, 12].contains(load8(message))
    if mayHaveExtension, extended > 0 { size = min(size, extended) }
    let whole = isIPv6 ? 40 + Int(load16(message + 12)) : Int(load16(message + 10))
    return min(size, whole)
  }

  private func replaceQuotedPort(
    at inner: Int, isSource: Bool, _ number: UInt8, _ port: UInt16, _ removing: inout UInt64, _ adding: inout UInt64, count: Int
  ) {
    let hasPorts = number == IPProtocol.tcp || number == IPProtocol.udp
    let offset = inner + (hasPorts ? isSource ? 0 : 2 : 4)
    removing &+= UInt64(~load16(offset))
    adding &+= UInt64(port)
    store16(port, offset)
    let place = Frame.checksumPlace(number)
    guard place + 2 <= count, number != IPProtocol.udp || load16(inner + place) != 0 else { return }
    let updated = Checksum.update(load16(inner + place), removing: removing, adding: adding)
    store16(updated == 0 && number == IPProtocol.udp ? 0xffff : updated, inner + place)
  }

  private func writeMessage(_ said: ICMPMeaning, at offset: Int) {
    store16(UInt16(said.type) << 8 | UInt16(said.code), offset)
    store16(0, offset + 2)
    store32(said.word, offset + 4)
  }

  private func errorKey(_ number: UInt8) -> IPv4FiveTuple {
    IPv4FiveTuple(
      source: IPv4Address(0), destination: IPv4Address(0),
      transport: TransportKey(source: 0, destination: 0, protocolNumber: number, vlan: fiveTuple.transport.vlan))
  }
}

/// Type, code and second word of an ICMP error, as the other family says it.
struct ICMPMeaning: Equatable {
  var type: UInt8
  var code: UInt8
  var word: UInt32 = 0

  /// RFC 7915 §4.2; `nil` for what is not translated.
  ///
  /// - Parameter quotedLength: of the packet that was too long, where its reporter does not say what would not be.
  static func overIPv6(type: UInt8, code: UInt8, pointer: UInt8, mtu: UInt16, quotedLength: Int) -> ICMPMeaning? {
    switch (type, code) {
    case (3, 0), (3, 1), (3, 5), (3, 6), (3, 7), (3, 8), (3, 11), (3, 12): ICMPMeaning(type: 1, code: 0)
    // The protocol stands where IPv6 has its next header.
    case (3, 2): ICMPMeaning(type: 4, code: 1, word: 6)
    case (3, 3): ICMPMeaning(type: 1, code: 4)
    case (3, 4): ICMPMeaning(type: 2, code: 0, word: UInt32(max(1_280, (mtu == 0 ? plateau(below: quotedLength) : Int(mtu)) + 20)))
    case (3, 9), (3, 10), (3, 13), (3, 15): ICMPMeaning(type: 1, code: 1)
    case (11, _): ICMPMeaning(type: 3, code: code)
    case (12, 0), (12, 2): ipv6Pointer(pointer).map { ICMPMeaning(type: 4, code: 0, word: $0) }
    default: nil
    }
  }

  /// RFC 7915 §5.2; `nil` for what is not translated.
  static func overIPv4(type: UInt8, code: UInt8, word: UInt32) -> ICMPMeaning? {
    switch (type, code) {
    case (1, 0), (1, 2), (1, 3): ICMPMeaning(type: 3, code: 1)
    case (1, 1): ICMPMeaning(type: 3, code: 10)
    case (1, 4): ICMPMeaning(type: 3, code: 3)
    case (2, _): ICMPMeaning(type: 3, code: 4, word: min(max(word, 88) - 20, 65_535))
    case (3, _): ICMPMeaning(type: 11, code: code)
    case (4, 0): ipv4Pointer(word).map { ICMPMeaning(type: 12, code: 0, word: $0 << 24) }
    case (4, 1): ICMPMeaning(type: 3, code: 2)
    default: nil
    }
  }

  /// What a router that does not say so probably takes (RFC 1191 §7): the largest common size below that of the packet.
  private static func plateau(below length: Int) -> Int {
    switch length {
    case 32_001...: 32_000
    case 17_915...: 17_914
    case 8_167...: 8_166
    case 4_353...: 4_352
    case 2_003...: 2_002
    case 1_493...: 1_492
    default: 1_280
    }
  }

  /// RFC 7915 figure 3: which field of the other header is meant.
  private static func ipv6Pointer(_ pointer: UInt8) -> UInt32? {
    switch pointer {
    case 0: 0
    case 1: 1
    case 2, 3: 4
    case 8: 7
    case 9: 6
    case 12...15: 8
    case 16...19: 24
    default: nil
    }
  }

  /// RFC 7915 figure 6.
  private static func ipv4Pointer(_ pointer: UInt32) -> UInt32? {
    switch pointer {
    case 0: 0
    case 1: 1
    case 4, 5: 2
    case 6: 9
    case 7: 8
    case 8...23: 12
    case 24...39: 16
    default: nil
    }
  }
}
