import Dataplane
import Wire

/// A 60-byte TCP frame (64 with its check sequence), its checksums right.
struct TCPFrame {
  private(set) var bytes: [UInt8]

  /// A client's packet: flow `n` comes from 10.x.y.z and a port of its own, to the virtual address.
  init(flow: Int, flags: UInt8, from peer: FabricAddress, to runtime: FabricAddress) {
    self.init(
      source: (UInt32(10 << 24 | 3 << 16) + UInt32(flow / 50_000), UInt16(1_024 + flow % 50_000)), destination: (0x0a01_ff64, 80),
      addresses: (peer.address(of: .client), runtime.address(of: .client)), sequence: flags & 2 != 0 ? 1_000 : 1_001, acknowledgement: flags & 16 != 0 ? 5_001 : 0, flags: flags)
  }

  /// A server's packet in answer to what left the chain.
  init(answering frame: [UInt8], from peer: FabricAddress, to runtime: FabricAddress) {
    func word(_ at: Int) -> UInt32 { frame[at..<at + 4].reduce(0) { $0 << 8 | UInt32($1) } }
    func half(_ at: Int) -> UInt16 { UInt16(frame[at]) << 8 | UInt16(frame[at + 1]) }
    self.init(
      source: (word(30), half(36)), destination: (word(26), half(34)),
      addresses: (peer.address(of: .server), runtime.address(of: .server)), sequence: 5_001, acknowledgement: 1_001, flags: 0x10)
  }

  private init(
    source: (UInt32, UInt16), destination: (UInt32, UInt16), addresses: (MACAddress, MACAddress), sequence: UInt32,
    acknowledgement: UInt32, flags: UInt8
  ) {
    func big<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }
    func mac(_ address: MACAddress) -> [UInt8] { Array(big(address.value).dropFirst(2)) }
    bytes = mac(addresses.1) + mac(addresses.0) + [0x08, 0x00]
    bytes += [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0, 0] + big(source.0) + big(destination.0)
    bytes += big(source.1) + big(destination.1) + big(sequence) + big(acknowledgement) + [0x50, flags] + big(UInt16(65_535)) + [0, 0, 0, 0]
    bytes += [UInt8](repeating: 0, count: 6)
    close()
  }

  /// The same packet with other control bits; a SYN-ACK comes one earlier.
  func with(flags: UInt8) -> [UInt8] {
    var copy = self
    copy.bytes[47] = flags
    if flags & 2 != 0 { copy.bytes.replaceSubrange(38..<42, with: [0, 0, 0x13, 0x88]) }
    copy.close()
    return copy.bytes
  }

  private mutating func close() {
    (bytes[24], bytes[25], bytes[50], bytes[51]) = (0, 0, 0, 0)
    let (network, transport) = bytes.withUnsafeBytes { bytes in
      let base = bytes.baseAddress!
      let pseudo = Checksum.pseudoHeader(addresses: base + 26, protocolNumber: 6, length: 26)
      return (~Checksum.fold(Checksum.sum(base + 14, count: 20)), ~Checksum.fold(Checksum.sum(base + 34, count: 26, initial: pseudo)))
    }
    // Sums are in memory order already.
    withUnsafeBytes(of: network) { (bytes[24], bytes[25]) = ($0[0], $0[1]) }
    withUnsafeBytes(of: transport) { (bytes[50], bytes[51]) = ($0[0], $0[1]) }
  }
}
