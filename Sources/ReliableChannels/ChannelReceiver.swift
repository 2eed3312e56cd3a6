import FixedContainers

/// The receiving half of a channel: frames in any order come out as messages in the order they were sent, each once.
///
/// The frame that is due is read where it lies; one that is early is copied into a ring and waits. Messages are handed
/// out as views of that memory. Only a message that spans frames is put together in a buffer of its own.
@safe
@usableFromInline
struct ChannelReceiver: ~Copyable {
  /// Bodies of early frames, and their lengths; 0 = not here.
  private let lengths: UnsafeMutablePointer<UInt16>
  private let bodies: UnsafeMutableRawPointer
  @usableFromInline let assembly: UnsafeMutableRawPointer
  private let mask: UInt32
  private let capacity: Int
  private let bodySize: Int
  private let largestMessage: Int

  /// The frame that is due: all earlier ones were delivered.
  private(set) var expected: SequenceNumber
  /// The first frame that the peer may not send yet. Never taken back.
  private(set) var limit: SequenceNumber
  /// The frame that is being read, and how far.
  @usableFromInline var opened = UnsafeRawBufferPointer(start: nil, count: 0)
  @usableFromInline var offset = 0
  @usableFromInline var isOpen = false
  /// Early frames in the ring.
  private var waiting = 0
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
    unsafe opened = .init(start: nil, count: 0)
    (offset, isOpen) = (0, false)
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

  /// Begins to read the body of the frame that is due.
  @inlinable @inline(__always)
  mutating func open(_ body: UnsafeRawBufferPointer) {
    precondition(offset == opened.count, "the messages of a frame are taken before the next frame comes")
    unsafe opened = body
    offset = 0
    isOpen = true
  }

  /// The next message of the frame that is open, and then of those that have waited for it.
  @inlinable @inline(__always)
  mutating func next(counters: inout ChannelCounters) -> UnsafeRawBufferPointer? {
    while true {
      while offset < opened.count {
        let word = unsafe UInt16(littleEndian: opened.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
        let count = Int(word & ChunkFlags.length)
        let chunk = unsafe UnsafeRawBufferPointer(start: opened.baseAddress! + (offset &+ 2), count: count)
        offset &+= count &+ 2
        if word & (ChunkFlags.continues | ChunkFlags.goesOn) == 0, assembled == nil {
          counters.messagesDelivered &+= 1
          return unsafe chunk
        }
        if let whole = unsafe assemble(chunk, word, counters: &counters) {
          counters.messagesDelivered &+= 1
          return unsafe whole
        }
      }
      guard isOpen, openWaiting() else { return nil }
    }
  }

  /// Whether a message was put together, in memory that the next such message will take.
  @inlinable @inline(__always)
  func isAssembled(_ message: UnsafeRawBufferPointer) -> Bool { unsafe message.baseAddress == UnsafeRawPointer(assembly) }

  /// Closes the frame that was read, and opens the next if it is here.
  @usableFromInline
  mutating func openWaiting() -> Bool {
    let place = Int(expected.number & mask)
    if unsafe lengths[place] > 0 {
      unsafe lengths[place] = 0
      waiting -= 1
    }
    expected = expected.advanced(by: 1)
    let next = Int(expected.number & mask)
    offset = 0
    isOpen = unsafe waiting > 0 && lengths[next] > 0
    unsafe opened =
      isOpen ? UnsafeRawBufferPointer(start: bodies + next * bodySize, count: Int(lengths[next])) : .init(start: nil, count: 0)
    return isOpen
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
