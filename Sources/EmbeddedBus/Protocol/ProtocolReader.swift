/// Reads Kafka's primitive types out of bytes that somebody else sent.
///
/// Every read is checked against what is left, and an array's length against the room its elements
/// need at least, so that a hostile length costs an error and never memory. The number formats are
/// those of https://kafka.apache.org/protocol#protocol_types: big endian, and since the "flexible"
/// versions also unsigned varints, compact strings and tagged fields.
import NIOCore

/// Why bytes are no request. The connection that sent them is closed, as Kafka does.
enum ProtocolError: Error, Equatable {
  case truncated
  case invalidLength(Int)
  case invalidText
  case unsupported(apiKey: Int16, version: Int16)
}

struct ProtocolReader {
  private var buffer: ByteBuffer

  init(_ buffer: ByteBuffer) { self.buffer = buffer }

  var remaining: Int { buffer.readableBytes }

  mutating func integer<T: FixedWidthInteger>(_: T.Type = T.self) throws(ProtocolError) -> T {
    guard let value = buffer.readInteger(as: T.self) else { throw .truncated }
    return value
  }

  mutating func bool() throws(ProtocolError) -> Bool { try integer(UInt8.self) != 0 }

  mutating func string() throws(ProtocolError) -> String {
    guard let text = try nullableString() else { throw .invalidLength(-1) }
    return text
  }

  mutating func nullableString() throws(ProtocolError) -> String? {
    let length = Int(try integer(Int16.self))
    return length == -1 ? nil : try text(length)
  }

  /// Bytes as a view of the request: nothing is copied.
  mutating func nullableBytes() throws(ProtocolError) -> ByteBuffer? {
    let length = Int(try integer(Int32.self))
    if length == -1 { return nil }
    guard length >= 0 else { throw .invalidLength(length) }
    guard let bytes = buffer.readSlice(length: length) else { throw .truncated }
    return bytes
  }

  /// An array of elements of which each takes at least `elementSize` bytes; nil where Kafka's null array stands.
  mutating func nullableArray<Element>(
    elementSize: Int, _ element: (inout ProtocolReader) throws(ProtocolError) -> Element
  ) throws(ProtocolError) -> [Element]? {
    let count = Int(try integer(Int32.self))
    if count == -1 { return nil }
    guard count >= 0, count <= remaining / elementSize else { throw .invalidLength(count) }
    var elements: [Element] = []
    elements.reserveCapacity(count)
    for _ in 0..<count { elements.append(try element(&self)) }
    return elements
  }

  mutating func array<Element>(
    elementSize: Int, _ element: (inout ProtocolReader) throws(ProtocolError) -> Element
  ) throws(ProtocolError) -> [Element] {
    try nullableArray(elementSize: elementSize, element) ?? []
  }

  // MARK: Flexible versions

  mutating func unsignedVarint() throws(ProtocolError) -> UInt32 {
    var value: UInt32 = 0
    for shift in stride(from: UInt32(0), through: 28, by: 7) {
      let byte = try integer(UInt8.self)
      value |= UInt32(byte & 0x7f) << shift
      if byte & 0x80 == 0 { return value }
    }
    throw .invalidLength(-1)
  }

  mutating func compactNullableString() throws(ProtocolError) -> String? {
    let length = Int(try unsignedVarint()) - 1
    return length == -1 ? nil : try text(length)
  }

  /// Tagged fields are additions that an older reader may skip; this broker knows none.
  mutating func skipTaggedFields() throws(ProtocolError) {
    let count = Int(try unsignedVarint())
    guard count <= remaining / 2 else { throw .invalidLength(count) }
    for _ in 0..<count {
      _ = try unsignedVarint()
      let size = Int(try unsignedVarint())
      guard buffer.readSlice(length: size) != nil else { throw .truncated }
    }
  }

  private mutating func text(_ length: Int) throws(ProtocolError) -> String {
    guard length >= 0 else { throw .invalidLength(length) }
    guard let bytes = buffer.readSlice(length: length) else { throw .truncated }
    guard let text = String(validating: bytes.readableBytesView, as: UTF8.self) else { throw .invalidText }
    return text
  }
}
