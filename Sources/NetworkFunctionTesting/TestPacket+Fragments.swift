// Datagrams in fragments, written and put together byte by byte (RFC 791 §3.2, RFC 8200 §4.5).

import Wire

extension TestPacket {
  /// Bytes behind the IP header of a frame without tags and options.
  public var fragmentableLength: Int { bytes.count - fragmentableStart }

  private var fragmentableStart: Int { layout.isIPv4 ? 34 : 54 }

  /// A part of the packet's IP payload as a fragment.
  ///
  /// - Parameter isLast: whether it says so; if left out, whether it is.
  public func fragment(_ part: Range<Int>, id: UInt16 = 7, isLast: Bool? = nil) -> TestPacket {
    let header = fragmentableStart
    let more = !(isLast ?? (header + part.upperBound == bytes.count))
    let body = bytes[header + part.lowerBound..<header + part.upperBound]
    var whole = Array(bytes[..<header])
    if layout.isIPv4 {
      whole.replaceSubrange(
        16..<22, with: Self.words(UInt16(20 + part.count), id, UInt16(part.lowerBound / 8) | (more ? 0x2000 : 0)))
      return TestPacket(bytes: whole + body).withChecksums(transportAt: nil)
    }
    whole.replaceSubrange(18..<21, with: Self.words(UInt16(8 + part.count)) + [44])
    whole += [bytes[20], 0] + Self.words(UInt16(part.lowerBound) | (more ? 1 : 0), 0, id)
    return TestPacket(bytes: whole + body)
  }

  /// The packet that these are the fragments of, all of them, in any order; a single packet that is none is itself.
  public init?(fragments: [TestPacket]) {
    guard let any = fragments.first else { return nil }
    let isIPv4 = any.layout.isIPv4
    func place(_ packet: TestPacket) -> (offset: Int, isLast: Bool, bytes: ArraySlice<UInt8>) {
      if isIPv4 {
        let field = packet.word(20)
        return (Int(field & 0x1fff) * 8, field & 0x2000 == 0, packet.bytes[34..<14 + Int(packet.word(16))])
      }
      guard packet.bytes[20] == 44 else { return (0, true, packet.bytes[54...]) }
      let field = packet.word(56)
      return (Int(field & 0xfff8), field & 1 == 0, packet.bytes[62..<54 + Int(packet.word(18))])
    }
    let parts = fragments.map(place).sorted { $0.offset < $1.offset }
    var payload: [UInt8] = []
    for part in parts {
      guard part.offset == payload.count else { return nil }
      payload += part.bytes
    }
    guard parts.last?.isLast == true else { return nil }
    var header = Array(any.bytes[..<(isIPv4 ? 34 : 54)])
    if isIPv4 {
      header.replaceSubrange(16..<18, with: Self.words(UInt16(20 + payload.count)))
      header.replaceSubrange(20..<22, with: [0, 0])
      self = TestPacket(bytes: header + payload).withChecksums(transportAt: nil)
    } else {
      if any.bytes[20] == 44 { header[20] = any.bytes[54] }
      header.replaceSubrange(18..<20, with: Self.words(UInt16(payload.count)))
      self = TestPacket(bytes: header + payload)
    }
  }
}
