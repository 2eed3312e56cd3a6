// The numbers of an archive: little-endian, in arrays of bytes.

extension [UInt8] {
  mutating func put(_ value: some FixedWidthInteger) {
    for shift in stride(from: 0, to: value.bitWidth, by: 8) { append(UInt8(truncatingIfNeeded: value >> shift)) }
  }

  /// With its length before it.
  mutating func put(_ text: String) {
    put(UInt16(clamping: text.utf8.count))
    append(contentsOf: text.utf8.prefix(Int(UInt16.max)))
  }
}

/// Takes values off the front of bytes that a stranger may have written; nil when they end too early.
struct ArchiveBytes {
  private(set) var rest: ArraySlice<UInt8>

  init(_ bytes: some Sequence<UInt8>) { rest = ArraySlice(bytes) }

  mutating func take<Value: FixedWidthInteger>(_: Value.Type = Value.self) -> Value? {
    guard let bytes = take(Value.bitWidth / 8) else { return nil }
    return bytes.reversed().reduce(0) { $0 << 8 | Value(truncatingIfNeeded: $1) }
  }

  mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
    guard count >= 0, count <= rest.count else { return nil }
    defer { rest = rest.dropFirst(count) }
    return rest.prefix(count)
  }

  mutating func takeText() -> String? {
    guard let count = take(UInt16.self), let bytes = take(Int(count)) else { return nil }
    return String(validating: bytes, as: UTF8.self)
  }
}

/// CRC-32C (Castagnoli), a byte a step: the checksum that Kafka, iSCSI (RFC 3720 §12.1) and others use.
enum CRC32C {
  static func checksum(_ bytes: some Sequence<UInt8>) -> UInt32 {
    ~bytes.reduce(0xffff_ffff) { crc, byte in (crc >> 8) ^ table[Int((crc ^ UInt32(byte)) & 0xff)] }
  }

  private static let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { crc, _ in crc & 1 == 1 ? (crc >> 1) ^ 0x82f6_3b78 : crc >> 1 }
  }
}
