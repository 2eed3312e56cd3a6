/// Link types of captures that carry Ethernet frames or IP packets, by libpcap's DLT number.
enum LinkType: Int32 {
  case loopbackNull = 0  // four bytes of address family, in the byte order of the writer
  case ethernet = 1
  case rawBSD = 12
  case raw = 101
  case loopback = 108  // as null, in network order
  case linuxCooked = 113
  case linuxCooked2 = 276

  /// Copies a captured packet as an Ethernet frame to `target` and returns its length.
  ///
  /// What had no Ethernet header gets one with zero addresses; the source is kept where it is known.
  @unsafe
  func frame(_ data: UnsafePointer<UInt8>, count: Int, into target: UnsafeMutableRawPointer) -> Int {
    let raw = unsafe UnsafeRawPointer(data)
    switch self {
    case .ethernet:
      unsafe target.copyMemory(from: raw, byteCount: count)
      return count
    case .raw, .rawBSD:
      return unsafe reframe(raw, count, skipping: 0, etherType: etherType(ofPacketAt: raw, count), into: target)
    case .loopbackNull, .loopback:
      guard count >= 4 else { return unsafe reframe(raw, count, skipping: count, etherType: 0, into: target) }
      return unsafe reframe(raw, count, skipping: 4, etherType: etherType(ofPacketAt: raw + 4, count - 4), into: target)
    case .linuxCooked:  // type 2, address type 2, address length 2, address 8, protocol 2
      return unsafe cooked(raw, count, header: 16, protocolAt: 14, addressAt: 6, into: target)
    case .linuxCooked2:  // protocol 2, reserved 2, interface 4, address type 2, type 1, length 1, address 8
      return unsafe cooked(raw, count, header: 20, protocolAt: 0, addressAt: 12, into: target)
    }
  }

  @unsafe
  private func cooked(
    _ raw: UnsafeRawPointer, _ count: Int, header: Int, protocolAt: Int, addressAt: Int, into target: UnsafeMutableRawPointer
  ) -> Int {
    guard count >= header else { return unsafe reframe(raw, count, skipping: count, etherType: 0, into: target) }
    let etherType = unsafe UInt16(bigEndian: raw.loadUnaligned(fromByteOffset: protocolAt, as: UInt16.self))
    let length = unsafe reframe(raw, count, skipping: header, etherType: etherType, into: target)
    unsafe (target + 6).copyMemory(from: raw + addressAt, byteCount: 6)
    return length
  }

  @unsafe
  private func etherType(ofPacketAt packet: UnsafeRawPointer, _ count: Int) -> UInt16 {
    guard count > 0 else { return 0 }
    switch unsafe packet.load(as: UInt8.self) >> 4 {
    case 4: return 0x0800
    case 6: return 0x86dd
    default: return 0
    }
  }

  @unsafe
  private func reframe(
    _ raw: UnsafeRawPointer, _ count: Int, skipping: Int, etherType: UInt16, into target: UnsafeMutableRawPointer
  ) -> Int {
    unsafe target.initializeMemory(as: UInt8.self, repeating: 0, count: 14)
    unsafe target.storeBytes(of: etherType.bigEndian, toByteOffset: 12, as: UInt16.self)
    unsafe (target + 14).copyMemory(from: raw + skipping, byteCount: count - skipping)
    return count - skipping + 14
  }
}
