/// Writes Kafka's primitive types. The counterpart of `ProtocolReader`; it cannot fail, because what it
/// writes was made here.
import NIOCore

struct ProtocolWriter {
  private(set) var buffer: ByteBuffer

  init(_ buffer: ByteBuffer) { self.buffer = buffer }

  mutating func integer<T: FixedWidthInteger>(_ value: T) { buffer.writeInteger(value) }

  mutating func bool(_ value: Bool) { buffer.writeInteger(value ? UInt8(1) : 0) }

  mutating func string(_ value: String) {
    precondition(value.utf8.count <= Int(Int16.max), "a string of the protocol holds at most 32767 bytes")
    buffer.writeInteger(Int16(value.utf8.count))
    buffer.writeString(value)
  }

  mutating func nullableString(_ value: String?) {
    guard let value else { return buffer.writeInteger(Int16(-1)).discard() }
    string(value)
  }

  mutating func bytes(_ value: ByteBuffer?) {
    guard let value else { return buffer.writeInteger(Int32(0)).discard() }
    buffer.writeInteger(Int32(value.readableBytes))
    buffer.writeImmutableBuffer(value)
  }

  mutating func array<Element>(_ elements: [Element], _ write: (inout ProtocolWriter, Element) -> Void) {
    buffer.writeInteger(Int32(elements.count))
    for element in elements { write(&self, element) }
  }

  mutating func unsignedVarint(_ value: UInt32) {
    var rest = value
    while rest >= 0x80 {
      buffer.writeInteger(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    buffer.writeInteger(UInt8(rest))
  }

  mutating func noTaggedFields() { buffer.writeInteger(UInt8(0)) }
}

extension Int {
  fileprivate func discard() {}
}
