import Wire

/// Makes a SYN into the SYN-ACK that a server would send, in place: the frame keeps its length, the packet shrinks to its
/// headers and what is left is padding.
enum SYNAnswer {
  /// The frame is one that `Frame.parse` has found to be TCP over IPv4; tags and options may be in it.
  @unsafe
  static func write(_ frame: UnsafeMutableRawBufferPointer) {
    let bytes = unsafe frame.baseAddress!
    func load16(_ offset: Int) -> UInt16 {
      unsafe UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }
    func load32(_ offset: Int) -> UInt32 {
      unsafe UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    func store16(_ value: UInt16, _ offset: Int) {
      unsafe bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
    }
    func store32(_ value: UInt32, _ offset: Int) {
      unsafe bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
    }

    var network = 14
    while load16(network - 2) != 0x0800 { network += 4 }  // tags
    let headerLength = Int(load16(network) >> 8 & 15) * 4
    let transport = network + headerLength
    for offset in stride(from: 0, to: 6, by: 2) {
      let destination = load16(offset)
      store16(load16(6 + offset), offset)
      store16(destination, 6 + offset)
    }
    let (source, destination) = (load32(network + 12), load32(network + 16))
    store32(destination, network + 12)
    store32(source, network + 16)
    let (sourcePort, destinationPort) = (load16(transport), load16(transport + 2))
    store16(destinationPort, transport)
    store16(sourcePort, transport + 2)

    store16(UInt16(headerLength + 20), network + 2)
    store32(load32(transport + 4) &+ 1, transport + 8)
    store32(TrafficGenerator.serverSequence, transport + 4)
    store16(0x5000 | UInt16(TCPFlags.syn.rawValue | TCPFlags.ack.rawValue), transport + 12)
    store32(UInt32(65_535) << 16, transport + 14)  // window, no checksum yet
    store16(0, transport + 18)
    store16(0, network + 10)
    unsafe bytes.storeBytes(
      of: ~Checksum.fold(Checksum.sum(bytes + network, count: headerLength)), toByteOffset: network + 10, as: UInt16.self)
    let pseudoHeader = unsafe Checksum.pseudoHeader(addresses: bytes + network + 12, protocolNumber: IPProtocol.tcp, length: 20)
    unsafe bytes.storeBytes(
      of: ~Checksum.fold(Checksum.sum(bytes + transport, count: 20, initial: pseudoHeader)), toByteOffset: transport + 16,
      as: UInt16.self)
  }
}
