import FixedContainers

/// The receiving half of a channel: frames in any order come out as messages in the order they were sent, each once.
///
/// The frame that is due is read where it lies; one that is early is copied into a ring and waits. Messages are handed
/// out as views of that memory. Only a message that spans frames is put together in a buffer of its own.
@safe
@usableFromInline
struct ChannelReceiver: ~Copyable {
  /// Bodies of early frames, and their lengths; 0 = not here.
  @usableFromInline let lengths: UnsafeMutablePointer<UInt16>
  @usableFromInline let bodies: UnsafeMutableRawPointer
  @usableFromInline let assembly: UnsafeMutableRawPointer
  @usableFromInline let mask: UInt32
  @usableFromInline let capacity: Int
  @usableFromInline let bodySize: Int
  @usableFromInline let largestMessage: Int

  /// The frame that is due: all earlier ones were delivered.
  @usableFromInline private(set) var expected: SequenceNumber
  /// The first frame that the peer may not send yet. Never taken back.
  private(set) var limit: SequenceNumber
  /// Early frames in the ring.
  @usableFromInline var waiting = 0
  /// Bytes of a message whose end has not come, or `nil`.
  @usableFromInline var assembled: Int?

  init(_ settings: ChannelSettings, memory: MemorySource) {
    capacity = settings.receiveFrames
    mask = UInt32(capacity - 1)
    bodySize = settings.bodySize
    largestMessage = settings.largestMessage
    unsafe lengths = memory.allocate(UInt16.self, count: capacity)
    unsafe bodies = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: capacity * bodySize))
    unsafe assembly = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: largestMessage))
    expected = SequenceNumber(0)
    limit = SequenceNumber(0)
  }

  /// Begins a session whose first frame has this number.
  mutating func begin(_ first: SequenceNumber) {
    expected = first
    limit = first
    waiting = 0
    assembled = nil
    for index in 0..<capacity { unsafe lengths[index] = 0 }
  }

  /// Lets the peer have `frames` under way. What was promised before stays promised.
  mutating func allow(_ frames: Int) {
    limit = SequenceNumber.latest(limit, expected.advanced(by: min(frames, capacity)))
  }

  /// Which of the 64 frames after the one that is due have arrived.
  var selective: UInt64 {
    guard waiting > 0 else { return 0 }
    var bits: UInt64 = 0
    for distance in 1...min(64, capacity - 1)
    where unsafe lengths[Int(expected.advanced(by: distance).number & mask)] != 0 { bits |= 1 << UInt64(distance - 1) }
    return bits
  }

  @usableFromInline
  enum Arrival { case due, early, duplicate, beyondLimit, malformed }

  /// Says what to do with a frame, and keeps a copy if it is early.
  @usableFromInline
  mutating func arrive(_ sequence: SequenceNumber, _ body: UnsafeRawBufferPointer) -> Arrival {
    let distance = sequence.since(expected)
    if distance < 0 { return .duplicate }
    guard sequence < limit, body.count <= bodySize else { return .beyondLimit }
    guard unsafe Self.isWellFormed(body) else { return .malformed }
    if distance == 0 { return .due }
    let place = Int(sequence.number & mask)
    guard unsafe lengths[place] == 0 else { return .duplicate }
    unsafe (bodies + place * bodySize).copyMemory(from: body.baseAddress!, byteCount: body.count)
    unsafe lengths[place] = UInt16(body.count)
    waiting += 1
    return .early
  }

  /// Whether the chunks fill the body exactly.
  private static func isWellFormed(_ body: UnsafeRawBufferPointer) -> Bool {
    var offset = 0
    while offset &+ 2 <= body.count {
      let word = unsafe UInt16(littleEndian: body.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      offset &+= 2 &+ Int(word & ChunkFlags.length)
    }
    return offset == body.count
  }

  /// Delivers the body of the frame that is due, and those that have waited for it.
  @inlinable @inline(__always)
  mutating func deliver(
    _ body: UnsafeRawBufferPointer, counters: inout ChannelCounters, _ message: (RawSpan) -> Void
  ) {
    unsafe deliverChunks(body, counters: &counters, message)
    advance()
    while waiting > 0 {
      let place = Int(expected.number & mask)
      let length = unsafe Int(lengths[place])
      guard length > 0 else { return }
      unsafe deliverChunks(UnsafeRawBufferPointer(start: bodies + place &* bodySize, count: length), counters: &counters, message)
      unsafe lengths[place] = 0
      waiting &-= 1
      advance()
    }
  }

  @usableFromInline
  mutating func advance() { expected = expected.advanced(by: 1) }

  @inlinable
  mutating func deliverChunks(
    _ body: UnsafeRawBufferPointer, counters: inout ChannelCounters, _ message: (RawSpan) -> Void
  ) {
    var offset = 0
    while offset < body.count {
      let word = unsafe UInt16(littleEndian: body.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      let count = Int(word & ChunkFlags.length)
      let chunk = unsafe UnsafeRawBufferPointer(start: body.baseAddress! + (offset &+ 2), count: count)
      offset &+= count &+ 2
      if word & (ChunkFlags.continues | ChunkFlags.goesOn) == 0, assembled == nil {
        counters.messagesDelivered &+= 1
        unsafe message(chunk.bytes)
      } else if let whole = unsafe assemble(chunk, word, counters: &counters) {
        counters.messagesDelivered &+= 1
        unsafe message(whole.bytes)
      }
    }
  }

  /// Adds a chunk to the message that spans frames; the message, once it is complete.
  @usableFromInline
  mutating func assemble(
    _ chunk: UnsafeRawBufferPointer, _ word: UInt16, counters: inout ChannelCounters
  ) -> UnsafeRawBufferPointer? {
    let continues = word & ChunkFlags.continues != 0
    let before = assembled ?? 0
    guard continues == (assembled != nil), before + chunk.count <= largestMessage else {
      counters.brokenMessages &+= 1
      assembled = nil
      return nil
    }
    if let source = chunk.baseAddress { unsafe (assembly + before).copyMemory(from: source, byteCount: chunk.count) }
    let isWhole = word & ChunkFlags.goesOn == 0
    assembled = isWhole ? nil : before + chunk.count
    return isWhole ? unsafe UnsafeRawBufferPointer(start: assembly, count: before + chunk.count) : nil
  }
}
