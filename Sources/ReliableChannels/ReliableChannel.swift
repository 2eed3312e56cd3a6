import FixedContainers
import Wire

/// Messages between two nodes over a link that loses, doubles, reorders and damages frames: each once, in order.
///
/// A pure machine (paper §VI-B, done with selective acknowledgement, sessions and credit). The worker that owns it calls,
/// in every pass:
///
///     receive(frame)  for each frame that came     ─▶ what happened to the session
///     nextMessage()   until it is nil              ─▶ messages, in order
///     send(message)   for what it wants to say     ─▶ false: no room now, try in a later pass
///     poll(now)                                    ─▶ whether the peer has fallen silent
///     fill(buffer)    until it returns 0           ─▶ frames: data, data again, hellos, acknowledgements
///
/// **Sessions.** A session joins one life of this node with one life of the peer; both incarnations stand in every frame.
///
///     A, life 7                      B, life 3
///     hello 7 ▶ ?  ───────────────▶            B knows A
///                  ◀───────────────  hello 3 ▶ 7
///     A knows B, and that B knows A
///     data 7 ▶ 3   ───────────────▶            B knows that A knows B
///
/// A hello of a later life ends the session: what the earlier one had not acknowledged is given up, and counted, and the
/// caller is told. Frames of earlier lives, or to them, are refused. Numbers begin anew in every session.
///
/// Nothing is allocated after `init`; no clock is read. Costs two copies of a message: into its frame, and into the
/// port's memory.
@safe
public struct ReliableChannel: ~Copyable {
  public let localNode: UInt32
  public let peerNode: UInt32
  /// The number of this end's life: greater than that of any earlier channel to this peer.
  public let incarnation: UInt64
  public let settings: ChannelSettings
  public var link: ChannelLink
  @usableFromInline var sender: ChannelSender
  @usableFromInline var receiver: ChannelReceiver
  @usableFromInline var tally = ChannelCounters()

  /// The peer's life, 0 before it was heard of.
  public private(set) var peerIncarnation: UInt64 = 0
  /// Whether the peer knows this life: data may be sent.
  public private(set) var isEstablished = false
  public private(set) var isPeerSilent = false
  /// Frames the peer may have under way: what this end can take at once. 0 stops it; never more than `receiveFrames`.
  public var credit: Int {
    didSet {
      credit = max(0, min(credit, settings.receiveFrames))
      if credit > oldValue { owesAcknowledgement = true }
    }
  }

  /// Lives of the peer up to this one are over, by somebody's word: nothing of theirs is taken any more.
  private var fencedIncarnation: UInt64 = 0
  private var owesHello = true
  private var owesAcknowledgement = false
  private var nextHello: UInt64
  private var lastSent: UInt64
  private var lastHeard: UInt64

  public init(
    from localNode: UInt32, incarnation: UInt64, to peerNode: UInt32, link: ChannelLink, settings: ChannelSettings = .init(),
    now: Tick, memory: MemorySource
  ) {
    precondition(incarnation != 0, "0 stands for a life not heard of")
    precondition(
      settings.sendFrames.nonzeroBitCount == 1 && settings.receiveFrames.nonzeroBitCount == 1 && settings.receiveFrames > 1,
      "rings are powers of two")
    precondition(
      settings.bodySize >= 64 && settings.mtu <= 16_000, "a frame has room for chunks, and a chunk's length fits 14 bits")
    precondition(
      settings.largestMessage <= (settings.sendFrames - 1) * (settings.bodySize - 2),
      "the longest message fits into the send ring")
    self.localNode = localNode
    self.incarnation = incarnation
    self.peerNode = peerNode
    self.link = link
    self.settings = settings
    sender = ChannelSender(settings, memory: memory)
    receiver = ChannelReceiver(settings, memory: memory)
    credit = settings.receiveFrames
    nextHello = now.nanoseconds
    lastSent = now.nanoseconds
    lastHeard = now.nanoseconds
  }

  /// Longest frame that `fill` writes.
  public var longestFrame: Int { link.length + settings.mtu }
  /// Messages taken by `send` and not acknowledged yet.
  public var unacknowledged: Int { sender.unacknowledged }
  /// Smoothed round-trip time in nanoseconds, 0 before the first measurement.
  public var roundTripTime: UInt64 { sender.roundTrip.smoothedNanoseconds }

  public var counters: ChannelCounters { tally }

  // MARK: Messages

  /// Whether there is so much room that messages which can wait may be sent.
  public var hasRoomToSpare: Bool { sender.hasRoomToSpare }

  /// Takes a message of at most `largestMessage` bytes to be sent; `false` when there is no room for it now.
  ///
  /// Before the peer was ever heard of, messages wait for it. They are copied.
  @inlinable @inline(__always)
  public mutating func send(_ message: RawSpan) -> Bool {
    if unsafe message.withUnsafeBytes({ unsafe sender.send($0) }) { return true }
    refuse()
    return false
  }

  /// Takes a message of `count` bytes, which the caller writes to where this points before it asks the channel for anything
  /// else: a message that is made piece by piece is so copied once less. `nil` when it does not fit into a frame, or there
  /// is no room now.
  @inlinable @inline(__always)
  @unsafe
  public mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer? { unsafe sender.reserve(count) }

  @usableFromInline
  mutating func refuse() { tally.messagesRefused &+= 1 }

  /// A place in the stream of messages: behind all that `send` has taken so far.
  public var mark: SequenceNumber { sender.mark }
  /// Whether the peer has everything before this place, which is of the present session.
  public func hasArrived(_ mark: SequenceNumber) -> Bool { sender.base.since(mark) >= 0 }

  // MARK: Frames in

  /// What a frame meant, besides the messages it carried.
  public enum Reception: Equatable, Sendable {
    case taken
    /// A life of the peer not known before. `abandoned` messages to the life before it may never have arrived.
    case sessionBegan(abandoned: Int)
    case refused(FrameRefusal)
  }

  /// Takes one frame, link header included. Then `nextMessage` has the messages that are complete and due; all are
  /// taken, and the frame's memory stays, before the next frame comes.
  public mutating func receive(_ frame: UnsafeRawBufferPointer, now: Tick) -> Reception {
    switch unsafe open(frame, now: now) {
    case .settled(let reception):
      return reception
    case .due(let offset, let length):
      unsafe receiver.open(UnsafeRawBufferPointer(rebasing: frame[offset..<offset + length]))
      return .taken
    }
  }

  /// The next message, in order; `nil` when there is none. Its bytes are valid until the next frame is received: the
  /// caller may send through this very channel meanwhile.
  @inlinable @inline(__always)
  @unsafe
  public mutating func nextMessage() -> UnsafeRawBufferPointer? { unsafe receiver.next(counters: &tally) }

  /// The next messages, in order, as many as can be valid at once: until this is called again or the next frame is received.
  ///
  /// - Returns: how many there are in `messages`; 0 when there are no more.
  @inlinable @inline(__always)
  @unsafe
  public mutating func nextMessages(into messages: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
    var count = 0
    while count < messages.count, let message = unsafe receiver.next(counters: &tally) {
      unsafe messages.initializeElement(at: count, to: message)
      count &+= 1
      if receiver.isAssembled(message) { break }
    }
    return count
  }

  /// Takes one frame and hands each message to `message`, whose bytes are valid during that call.
  @inlinable
  public mutating func receive(_ frame: UnsafeRawBufferPointer, now: Tick, _ message: (RawSpan) -> Void) -> Reception {
    let reception = unsafe receive(frame, now: now)
    while let next = unsafe nextMessage() { unsafe message(next.bytes) }
    return reception
  }

  private enum Opening {
    case settled(Reception)
    case due(bodyOffset: Int, length: Int)
  }

  /// Everything about a frame but the delivery.
  private mutating func open(_ frame: UnsafeRawBufferPointer, now: Tick) -> Opening {
    switch unsafe ChannelFrame.read(frame, key: settings.key) {
    case .refused(let reason): return .settled(refuse(reason))
    case .header(let header, let bodyOffset):
      guard header.sourceNode == peerNode, header.destinationNode == localNode else { return .settled(refuse(.node)) }
      guard header.sourceIncarnation > fencedIncarnation else { return .settled(refuse(.session)) }
      if header.kind == .hello { return .settled(hear(header, now: now)) }
      guard header.sourceIncarnation == peerIncarnation, peerIncarnation != 0, header.destinationIncarnation == incarnation else {
        // The peer, or somebody's late frame, does not know who lives here now.
        if header.sourceIncarnation >= peerIncarnation { owesHello = true }
        return .settled(refuse(.session))
      }
      isEstablished = true
      guard sender.acknowledge(header, now: now, counters: &tally) else { return .settled(refuse(.window)) }
      noteHeard(now)
      guard header.kind == .data else { return .settled(.taken) }
      owesAcknowledgement = true
      let length = Int(header.bodyLength)
      switch unsafe receiver.arrive(header.sequence, UnsafeRawBufferPointer(rebasing: frame[bodyOffset..<bodyOffset + length])) {
      case .due: return .due(bodyOffset: bodyOffset, length: length)
      case .early: tally.outOfOrder &+= 1
      case .duplicate: tally.duplicates &+= 1
      case .beyondLimit: return .settled(refuse(.window))
      case .malformed: return .settled(refuse(.malformed))
      }
      return .settled(.taken)
    }
  }

  private mutating func refuse(_ reason: FrameRefusal) -> Reception {
    tally.refuse(reason)
    return .refused(reason)
  }

  private mutating func noteHeard(_ now: Tick) {
    tally.framesReceived &+= 1
    lastHeard = now.nanoseconds
    isPeerSilent = false
  }

  private mutating func hear(_ hello: ChannelHeader, now: Tick) -> Reception {
    guard hello.sourceIncarnation >= peerIncarnation, hello.sourceIncarnation != 0 else { return refuse(.session) }
    noteHeard(now)
    let knowsUs = hello.destinationIncarnation == incarnation
    if knowsUs { owesAcknowledgement = true } else { owesHello = true }
    guard hello.sourceIncarnation > peerIncarnation else {
      if knowsUs { establish(hello, now: now) }
      return .taken
    }
    // Before the peer knew this life nothing was sent: what waits, waits for whoever comes first.
    let abandoned = isEstablished ? sender.reset() : 0
    tally.messagesAbandoned &+= UInt64(abandoned)
    tally.sessions &+= 1
    peerIncarnation = hello.sourceIncarnation
    isEstablished = false
    receiver.begin(hello.sequence)
    if knowsUs { establish(hello, now: now) }
    return .sessionBegan(abandoned: abandoned)
  }

  /// The peer knows this life, and its hello says how much it lets through.
  private mutating func establish(_ hello: ChannelHeader, now: Tick) {
    isEstablished = true
    if !sender.acknowledge(hello, now: now, counters: &tally) { tally.refuse(.window) }
  }

  /// This life of the peer is over: whatever still comes of it, or of an earlier one, is refused.
  public mutating func fence(_ incarnation: UInt64) {
    fencedIncarnation = max(fencedIncarnation, incarnation)
    guard peerIncarnation <= fencedIncarnation, isEstablished else { return }
    // The next life begins with the first number, and so must this end.
    tally.messagesAbandoned &+= UInt64(sender.reset())
    isEstablished = false
  }

  // MARK: Frames out

  /// Writes the next frame to be sent now into `buffer`, which has room for `longestFrame` bytes.
  ///
  /// - Returns: the frame's length, or 0 when there is nothing more to send in this pass.
  public mutating func fill(_ buffer: UnsafeMutableRawPointer, now: Tick) -> Int {
    if owesHello || (!isEstablished && now.nanoseconds >= nextHello) {
      owesHello = false
      nextHello = now.nanoseconds &+ settings.helloInterval
      return unsafe write(.hello, sequence: settings.firstSequence, body: nil, to: buffer, now: now)
    }
    guard isEstablished else { return 0 }
    if let (sequence, body) = unsafe sender.nextFrame(now: now, counters: &tally) {
      return unsafe write(.data, sequence: sequence, body: body, to: buffer, now: now)
    }
    guard owesAcknowledgement || now.nanoseconds &- lastSent >= settings.keepaliveInterval else { return 0 }
    return unsafe write(.acknowledgement, sequence: sender.next, body: nil, to: buffer, now: now)
  }

  private mutating func write(
    _ kind: ChannelHeader.Kind, sequence: SequenceNumber, body: UnsafeRawBufferPointer?, to buffer: UnsafeMutableRawPointer,
    now: Tick
  ) -> Int {
    if peerIncarnation != 0 { receiver.allow(credit) }
    let header = ChannelHeader(
      kind: kind, bodyLength: UInt16(body?.count ?? 0), sourceNode: localNode, destinationNode: peerNode,
      sourceIncarnation: incarnation, destinationIncarnation: peerIncarnation, sequence: sequence,
      acknowledged: receiver.expected, selective: receiver.selective, limit: receiver.limit)
    unsafe link.write(to: buffer)
    let start = unsafe buffer + link.length
    if let body { unsafe (start + ChannelFrame.headerLength).copyMemory(from: body.baseAddress!, byteCount: body.count) }
    unsafe ChannelFrame.write(header, to: start, key: settings.key)
    // Every frame acknowledges; a hello does so only to those who take it for more than a hello.
    if kind != .hello { owesAcknowledgement = false }
    lastSent = now.nanoseconds
    tally.framesSent &+= 1
    return link.length + ChannelFrame.headerLength + Int(header.bodyLength)
  }

  // MARK: Time

  /// Looks at the timers. Called in every pass, before `fill`.
  ///
  /// - Returns: `true` once when the peer has been silent for `silenceDeadline`: evidence for the failure detector.
  ///   It is heard again when `isPeerSilent` is false.
  public mutating func poll(now: Tick) -> Bool {
    if isEstablished { sender.poll(now: now, counters: &tally) }
    guard !isPeerSilent, now.nanoseconds &- lastHeard >= settings.silenceDeadline else { return false }
    isPeerSilent = true
    tally.silences &+= 1
    return true
  }
}
