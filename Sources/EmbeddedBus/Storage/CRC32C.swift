/// The checksum of a record batch: CRC-32C (Castagnoli), eight bytes a step by table.
///
/// About 1.5 GB/s in release mode, which is less than a tenth of what a produce request costs; so
/// no processor's own instruction is used.
enum CRC32C {
  static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    tables.withUnsafeBufferPointer { table in
      var crc: UInt32 = 0xffff_ffff
      var offset = 0
      while offset &+ 8 <= bytes.count {
        let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) ^ UInt64(crc)
        crc = table[Int(7 &* 256 &+ (word & 0xff))]
        crc ^= table[Int(6 &* 256 &+ ((word &>> 8) & 0xff))]
        crc ^= table[Int(5 &* 256 &+ ((word &>> 16) & 0xff))]
        crc ^= table[Int(4 &* 256 &+ ((word &>> 24) & 0xff))]
        crc ^= table[Int(3 &* 256 &+ ((word &>> 32) & 0xff))]
        crc ^= table[Int(2 &* 256 &+ ((word &>> 40) & 0xff))]
        crc ^= table[Int(1 &* 256 &+ ((word &>> 48) & 0xff))]
        crc ^= table[Int(word &>> 56)]
        offset &+= 8
      }
      while offset < bytes.count {
        crc = (crc &>> 8) ^ table[Int((crc ^ UInt32(bytes[offset])) & 0xff)]
        offset &+= 1
      }
      return ~crc
    }
  }

  /// `tables[k * 256 + b]` is the effect of byte `b` followed by `k` zero bytes.
  private static let tables: [UInt32] = {
    var tables = [UInt32](repeating: 0, count: 8 * 256)
    for byte in 0..<256 {
      var crc = UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0x82f6_3b78 : crc >> 1 }
      tables[byte] = crc
    }
    for k in 1..<8 {
      for byte in 0..<256 {
        let before = tables[(k - 1) * 256 + byte]
        tables[k * 256 + byte] = (before >> 8) ^ tables[Int(before & 0xff)]
      }
    }
    return tables
  }()
}
