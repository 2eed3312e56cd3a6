import Foundation

/// A classic pcap file, read and judged without any code of the product.
struct CaptureBytes {
  var frames: [[UInt8]] = []

  /// The header of a file without packets: version 2.4, Ethernet.
  static let empty = Data([0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0])

  init(contentsOf path: String) throws {
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    var offset = 24
    while offset + 16 <= bytes.count {
      let length = (0..<4).reduce(0) { $0 | Int(bytes[offset + 8 + $1]) << (8 * $1) }
      guard offset + 16 + length <= bytes.count else { break }
      frames.append(Array(bytes[offset + 16..<offset + 16 + length]))
      offset += 16 + length
    }
  }

  /// The one's complement sum of 16-bit words, byte by byte as RFC 1071 writes it.
  private static func sum(_ bytes: some Collection<UInt8>, _ initial: UInt32 = 0) -> UInt32 {
    var sum = initial
    for (index, byte) in bytes.enumerated() { sum += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte) }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    return sum
  }

  /// Whether lengths and both checksums of an IPv4 packet without options hold.
  static func isSound(_ frame: [UInt8]) -> Bool {
    guard frame.count >= 42, frame[12] == 8, frame[13] == 0, frame[14] == 0x45 else { return false }
    let total = Int(frame[16]) << 8 | Int(frame[17])
    guard total == frame.count - 14, sum(frame[14..<34]) == 0xffff else { return false }
    let pseudo = sum(frame[26..<34]) + UInt32(frame[23]) + UInt32(total - 20)
    return sum(frame[34...], pseudo) == 0xffff
  }

  /// Source and destination address and ports.
  static func endpoints(_ frame: [UInt8]) -> [UInt8] { Array(frame[26..<38]) }
}
