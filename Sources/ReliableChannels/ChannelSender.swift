import FixedContainers
import Wire

/// The sending half of a channel: messages go into frames, and frames are kept until the peer has them.
///
/// A ring of frame bodies. Small messages share the open frame; it is closed when the next message does not fit, or
/// when it is asked for. What was sent stays where it is, to be sent again, until it is acknowledged.
///
///        base ─ sent, not acknowledged ─ next ─ closed, not sent ─ tail: the open frame
///
/// A frame is lost when a frame sent three or more transmissions later has arrived (the rule of RFC 9002 §6.1.1, which
/// also sees a retransmission that was lost), or when nothing was acknowledged for the retransmission timeout.
@safe
@usableFromInline
struct ChannelSender: ~Copyable {
  private struct Slot: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable { case waiting, underWay, lost, arrived }
    var sentAt: UInt64 = 0
    /// The order in which frames left: of this frame's first transmission and of its latest.
    var firstTransmission: UInt32 = 0
    var latestTransmission: UInt32 = 0
    var length: UInt16 = 0
    /// Messages that end in this frame.
    var messages: UInt16 = 0
    var state = State.waiting
    var wasSentAgain = false
  }

  private static var reorderThreshold: Int { 3 }

  private let slots: UnsafeMutablePointer<Slot>
  private let bodies: UnsafeMutableRawPointer
  private let mask: UInt32
  private let capacity: Int
  @usableFromInline let bodySize: Int
  private let largestMessage: Int
  private let firstSequence: SequenceNumber

  private(set) var base: SequenceNumber
  private(set) var next: SequenceNumber
  private var tail: SequenceNumber
  /// The open frame's body, and how much of it is written and free. No room while every slot is taken.
  @usableFromInline var openBody: UnsafeMutableRawPointer
  @usableFromInline var openLength = 0
  @usableFromInline var openRoom: Int
  @usableFromInline var openMessages: UInt16 = 0

  /// The peer's limit: the first frame that may not be sent yet.
  private(set) var limit: SequenceNumber
  private var transmissions: UInt32 = 0
  private var latestArrived: UInt32 = 0
  private var lostCount = 0
  /// No lost frame is earlier than this.
  private var firstLost: SequenceNumber
  private var deadline: UInt64?
  private(set) var roundTrip: RoundTripTime
  private let settings: ChannelSettings
  /// Messages accepted and not acknowledged.
  @usableFromInline private(set) var unacknowledged = 0

  init(_ settings: ChannelSettings, memory: MemorySource) {
    self.settings = settings
    capacity = settings.sendFrames
    mask = UInt32(capacity - 1)
    bodySize = settings.bodySize
    largestMessage = settings.largestMessage
    firstSequence = settings.firstSequence
    unsafe slots = memory.allocate(Slot.self, count: capacity)
    unsafe bodies = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: capacity * bodySize))
    (base, next, tail, limit, firstLost) = (firstSequence, firstSequence, firstSequence, firstSequence, firstSequence)
    unsafe openBody = bodies
    openRoom = 0
    roundTrip = RoundTripTime(settings)
    open()
  }

  /// Frames that were sent and not acknowledged.
  var underWay: Int { next.since(base) }
  var isIdle: Bool { base == tail && openLength == 0 }
  /// Whether most slots are free, so that what can wait takes nothing from what cannot.
  var hasRoomToSpare: Bool { tail.since(base) < capacity / 4 }

  private func slot(_ sequence: SequenceNumber) -> UnsafeMutablePointer<Slot> { unsafe slots + Int(sequence.number & mask) }
  private func body(_ sequence: SequenceNumber) -> UnsafeMutableRawPointer {
    unsafe bodies + Int(sequence.number & mask) &* bodySize
  }

  /// Behind every message taken so far: the frame after the one that the last of them ends in.
  var mark: SequenceNumber { openLength == 0 ? tail : tail.advanced(by: 1) }

  // MARK: Messages in

  /// Takes a message; `false` when there is no room for all of it.
  @inlinable @inline(__always)
  mutating func send(_ message: UnsafeRawBufferPointer) -> Bool {
    guard message.count &+ 2 <= openRoom else { return unsafe sendElsewhere(message) }
    unsafe append(message, flags: 0)
    openMessages &+= 1
    unacknowledged &+= 1
    return true
  }

  /// Takes a message of `count` bytes that the caller writes to where this points; `nil` when there is no room for it in one
  /// frame.
  @inlinable @inline(__always)
  mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer? {
    guard count &+ 2 <= openRoom else { return unsafe reserveElsewhere(count) }
    let place = unsafe openBody + openLength
    unsafe place.storeBytes(of: UInt16(truncatingIfNeeded: count).littleEndian, as: UInt16.self)
    openLength &+= count &+ 2
    openRoom &-= count &+ 2
    openMessages &+= 1
    unacknowledged &+= 1
    return unsafe place + 2
  }

  @usableFromInline
  mutating func reserveElsewhere(_ count: Int) -> UnsafeMutableRawPointer? {
    guard count + 2 <= bodySize, capacity - tail.since(base) > 1 else { return nil }
    close()
    return unsafe reserve(count)
  }

  @inlinable @inline(__always)
  mutating func append(_ chunk: UnsafeRawBufferPointer, flags: UInt16) {
    let place = unsafe openBody + openLength
    unsafe place.storeBytes(of: (UInt16(truncatingIfNeeded: chunk.count) | flags).littleEndian, as: UInt16.self)
    if let source = chunk.baseAddress { unsafe (place + 2).copyMemory(from: source, byteCount: chunk.count) }
    openLength &+= chunk.count &+ 2
    openRoom &-= chunk.count &+ 2
  }

  /// A message that begins a frame of its own, or spans several.
  @usableFromInline
  mutating func sendElsewhere(_ message: UnsafeRawBufferPointer) -> Bool {
    precondition(message.count <= largestMessage, "a message has at most `largestMessage` bytes")
    let freeFrames = capacity - tail.since(base)
    if message.count + 2 <= bodySize {
      guard freeFrames > 1 else { return false }
      close()
      return unsafe send(message)
    }
    // A chunk of it in the open frame, if there is room for one, and the rest in as many frames as it takes.
    let first = max(0, openRoom - 2)
    let chunk = bodySize - 2
    guard 1 + (message.count - first + chunk - 1) / chunk <= freeFrames else { return false }
    if first == 0 { close() }
    var offset = 0
    while offset < message.count {
      let count = min(openRoom - 2, message.count - offset)
      let isLast = offset + count == message.count
      let flags: UInt16 = (offset > 0 ? ChunkFlags.continues : 0) | (isLast ? 0 : ChunkFlags.goesOn)
      unsafe append(UnsafeRawBufferPointer(rebasing: message[offset..<offset + count]), flags: flags)
      offset += count
      if !isLast { close() }
    }
    openMessages += 1
    unacknowledged += 1
    return true
  }

  /// Closes the open frame and opens the next, if there is a free slot.
  private mutating func close() {
    unsafe slot(tail).pointee = Slot(length: UInt16(openLength), messages: openMessages)
    tail = tail.advanced(by: 1)
    (openLength, openMessages, openRoom) = (0, 0, 0)
    open()
  }

  private mutating func open() {
    guard tail.since(base) < capacity else { return }
    unsafe openBody = body(tail)
    if openLength == 0 { openRoom = bodySize }
  }

  // MARK: Frames out

  /// The next frame to send, now: a lost one, or one that the peer's limit lets through.
  mutating func nextFrame(now: Tick, counters: inout ChannelCounters) -> (SequenceNumber, UnsafeRawBufferPointer)? {
    if lostCount > 0 {
      while unsafe slot(firstLost).pointee.state != .lost { firstLost = firstLost.advanced(by: 1) }
      lostCount -= 1
      unsafe slot(firstLost).pointee.wasSentAgain = true
      return unsafe transmit(firstLost, now: now)
    }
    guard next < limit else { return nil }
    if next == tail {
      guard openLength > 0 else { return nil }
      close()
    }
    defer { next = next.advanced(by: 1) }
    counters.messagesSent &+= unsafe UInt64(slot(next).pointee.messages)
    return unsafe transmit(next, now: now)
  }

  private mutating func transmit(_ sequence: SequenceNumber, now: Tick) -> (SequenceNumber, UnsafeRawBufferPointer) {
    transmissions &+= 1
    let slot = unsafe slot(sequence)
    unsafe slot.pointee.state = .underWay
    unsafe slot.pointee.latestTransmission = transmissions
    if unsafe !slot.pointee.wasSentAgain { unsafe slot.pointee.firstTransmission = transmissions }
    unsafe slot.pointee.sentAt = now.nanoseconds
    if deadline == nil { deadline = now.nanoseconds &+ roundTrip.timeout }
    return unsafe (sequence, UnsafeRawBufferPointer(start: body(sequence), count: Int(slot.pointee.length)))
  }

  // MARK: Acknowledgements

  /// Learns what has arrived; `false` when the peer acknowledges what was never sent.
  mutating func acknowledge(_ header: ChannelHeader, now: Tick, counters: inout ChannelCounters) -> Bool {
    let count = header.acknowledged.since(base)
    guard count <= underWay else { return false }
    if header.limit.since(limit) > 0 { limit = header.limit }
    guard count >= 0 else { return true }  // overtaken by a later one
    var sample: UInt64?
    for _ in 0..<count {
      arrive(base, now: now, sample: &sample)
      unacknowledged -= unsafe Int(slot(base).pointee.messages)
      base = base.advanced(by: 1)
    }
    if firstLost < base { firstLost = base }
    var bits = header.selective
    while bits != 0 {
      let sequence = header.acknowledged.advanced(by: 1 + bits.trailingZeroBitCount)
      guard sequence < next else { return false }
      arrive(sequence, now: now, sample: &sample)
      bits &= bits &- 1
    }
    if header.selective != 0 { findLost(counters: &counters) }
    if let sample { roundTrip.sample(sample) }
    if count > 0 {
      roundTrip.progress()
      deadline = base == next ? nil : now.nanoseconds &+ roundTrip.timeout
      if openRoom == 0 { open() }
    }
    return true
  }

  private mutating func arrive(_ sequence: SequenceNumber, now: Tick, sample: inout UInt64?) {
    let slot = unsafe slot(sequence)
    guard unsafe slot.pointee.state != .arrived else { return }
    if unsafe slot.pointee.state == .lost { lostCount -= 1 }
    unsafe slot.pointee.state = .arrived
    // Of a frame that was sent again nobody knows which transmission arrived: the first is the careful guess.
    let transmission = unsafe slot.pointee.firstTransmission
    if Int32(bitPattern: transmission &- latestArrived) > 0 { latestArrived = transmission }
    if unsafe !slot.pointee.wasSentAgain { sample = unsafe now.nanoseconds &- slot.pointee.sentAt }
  }

  private mutating func findLost(counters: inout ChannelCounters) {
    for distance in 0..<min(underWay, 64) {
      let sequence = base.advanced(by: distance)
      let slot = unsafe slot(sequence)
      guard unsafe slot.pointee.state == .underWay,
        unsafe Int(Int32(bitPattern: latestArrived &- slot.pointee.latestTransmission)) >= Self.reorderThreshold
      else { continue }
      markLost(sequence)
      counters.fastRetransmits &+= 1
    }
  }

  private mutating func markLost(_ sequence: SequenceNumber) {
    unsafe slot(sequence).pointee.state = .lost
    if lostCount == 0 || sequence < firstLost { firstLost = sequence }
    lostCount += 1
  }

  /// Takes everything that was sent and has not arrived for lost, once the timeout has passed.
  mutating func poll(now: Tick, counters: inout ChannelCounters) {
    guard let due = deadline, now.nanoseconds >= due else { return }
    counters.timeouts &+= 1
    for distance in 0..<underWay {
      let sequence = base.advanced(by: distance)
      guard unsafe slot(sequence).pointee.state == .underWay else { continue }
      markLost(sequence)
      counters.timeoutRetransmits &+= 1
    }
    roundTrip.backOff()
    deadline = now.nanoseconds &+ roundTrip.timeout
  }

  /// Forgets everything: the life of the peer it was meant for is over. Numbers begin anew, as they do in every session.
  ///
  /// - Returns: messages that were not acknowledged.
  mutating func reset() -> Int {
    defer { unacknowledged = 0 }
    (base, next, tail, limit, firstLost) = (firstSequence, firstSequence, firstSequence, firstSequence, firstSequence)
    (openLength, openMessages, openRoom, lostCount, deadline) = (0, 0, 0, 0, nil)
    roundTrip = RoundTripTime(settings)
    open()
    return unacknowledged
  }
}

@usableFromInline
enum ChunkFlags {
  @usableFromInline static let length: UInt16 = 0x3fff
  /// Goes on with the message that the frame before ended with.
  @usableFromInline static let continues: UInt16 = 0x4000
  /// The next frame goes on with this message.
  @usableFromInline static let goesOn: UInt16 = 0x8000
}
