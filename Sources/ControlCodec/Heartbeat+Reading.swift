import ControlMessages

// Of ten records in a log nine are heartbeats, and `protobuf-c` spends on one a message of its own for the envelope, one for
// the body, and a string. Here they are read where they lie.
//
// What is not as our own writer writes it (another order, a field twice, anything unknown, any fault) is left to the
// general reader, whose judgement counts; a test compares the two on whatever bytes.

/// Fields of protobuf's wire format, as far as heartbeats have them.
private struct HeartbeatFields {
  private let bytes: UnsafeRawBufferPointer
  private var place = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  var isAtEnd: Bool { place == bytes.count }

  /// Whether the next byte is this key; if so, it is behind us.
  mutating func take(_ key: UInt8) -> Bool {
    guard place < bytes.count, bytes[place] == key else { return false }
    place += 1
    return true
  }

  /// nil where the bytes end, or where the number has more than 64 bits.
  mutating func number() -> UInt64? {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while place < bytes.count {
      let byte = bytes[place]
      place += 1
      guard shift < 63 || byte <= 1 else { return nil }
      value |= UInt64(byte & 0x7f) << shift
      if byte < 0x80 { return value }
      shift += 7
    }
    return nil
  }

  /// The bytes of a string or message.
  mutating func part() -> UnsafeRawBufferPointer? {
    guard let count = number(), count <= UInt64(bytes.count - place) else { return nil }
    defer { place += Int(count) }
    return UnsafeRawBufferPointer(rebasing: bytes[place..<(place + Int(count))])
  }
}

extension RecordCodec {
  /// A heartbeat written as ours are; nil if it is anything else.
  static func heartbeat(_ record: UnsafeRawBufferPointer) -> Event? {
    var fields = HeartbeatFields(record)
    guard fields.take(1 << 3), fields.number() == UInt64(version), fields.take(2 << 3 | 2), let name = fields.part() else { return nil }
    var incarnation: UInt64 = 0
    if fields.take(3 << 3) {
      guard let number = fields.number() else { return nil }
      incarnation = number
    }
    guard fields.take(4 << 3), let sequence = fields.number(), sequence != 0 else { return nil }
    // 17 << 3 | 2, a key of two bytes.
    guard fields.take(0x8a), fields.take(0x01), let body = fields.part(), fields.isAtEnd else { return nil }

    fields = HeartbeatFields(body)
    guard fields.take(1 << 3), let number = fields.number(), let short = UInt32(exactly: number), let node = NodeID(short) else { return nil }
    var loops: UInt64 = 0
    var busyLoops: UInt64 = 0
    if fields.take(2 << 3) {
      guard let number = fields.number() else { return nil }
      loops = number
    }
    if fields.take(3 << 3) {
      guard let number = fields.number() else { return nil }
      busyLoops = number
    }
    guard fields.isAtEnd, let producer = producer(name) else { return nil }
    return Event(
      producer: producer, incarnation: Incarnation(incarnation), sequence: sequence,
      body: .heartbeat(Heartbeat(node: node, workerLoops: loops, busyLoops: busyLoops)))
  }

  /// ASCII only: anything else has to be validated.
  private static func producer(_ name: UnsafeRawBufferPointer) -> ProducerID? {
    for byte in name where byte >= 0x80 { return nil }
    return ProducerID(String(decoding: name, as: UTF8.self))
  }
}
