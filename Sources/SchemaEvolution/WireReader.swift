/// The fields of one message in protobuf's wire format (protobuf.dev/programming-guides/encoding): what a set of descriptors
/// is written in. Reads bytes of a stranger: what is no message throws.
struct WireReader {
  enum Value: Equatable {
    case number(UInt64)
    case bytes(ArraySlice<UInt8>)
  }

  struct Malformed: Error {}

  private var rest: ArraySlice<UInt8>

  init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

  /// Every field in the order in which it stands there.
  static func fields(_ bytes: ArraySlice<UInt8>) throws(Malformed) -> [(number: UInt64, value: Value)] {
    var reader = WireReader(bytes)
    var fields: [(number: UInt64, value: Value)] = []
    while !reader.rest.isEmpty {
      let tag = try reader.varint()
      switch tag & 7 {
      case 0: fields.append((tag >> 3, .number(try reader.varint())))
      case 1: fields.append((tag >> 3, .number(try reader.fixed(8))))
      case 2:
        let count = try reader.varint()
        guard count <= UInt64(reader.rest.count) else { throw Malformed() }
        fields.append((tag >> 3, .bytes(reader.rest.prefix(Int(count)))))
        reader.rest = reader.rest.dropFirst(Int(count))
      case 5: fields.append((tag >> 3, .number(try reader.fixed(4))))
      default: throw Malformed()
      }
    }
    return fields
  }

  private mutating func varint() throws(Malformed) -> UInt64 {
    var value: UInt64 = 0
    for shift in stride(from: UInt64(0), to: 70, by: 7) {
      guard let byte = rest.popFirst() else { throw Malformed() }
      value |= UInt64(byte & 0x7f) << shift
      if byte & 0x80 == 0 { return value }
    }
    throw Malformed()
  }

  private mutating func fixed(_ count: Int) throws(Malformed) -> UInt64 {
    guard rest.count >= count else { throw Malformed() }
    defer { rest = rest.dropFirst(count) }
    return rest.prefix(count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
}
