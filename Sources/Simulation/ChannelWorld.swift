import FixedContainers
import ReliableChannels
import Wire

/// Two ends of a channel on a bad link, one seed, and a witness who knows what each end may deliver next.
///
/// The rule it holds them to: within a session, the receiver gets what the sender's end accepted since the session began,
/// each message once, whole, in order; and when the link heals, all of it.
public struct ChannelWorld {
  public struct Violation: Error, CustomStringConvertible {
    public let description: String
  }

  /// One life of one end.
  public final class End {
    public let incarnation: UInt64
    public var channel: ReliableChannel
    /// Messages accepted in this life, and how many were when the present session began.
    var accepted: UInt64 = 0
    var sessionStart: UInt64 = 0
    /// What the peer's life must be heard saying next.
    var due: UInt64?
    var heard: UInt64 = 0
    var isPaused = false
    /// For whoever tampers with its frames: what it has seen.
    public var seen: Set<SequenceNumber> = []

    init(side: Int, incarnation: UInt64, settings: ChannelSettings, now: Tick, memory: MemorySource) {
      self.incarnation = incarnation
      channel = ReliableChannel(
        from: UInt32(side + 1), incarnation: incarnation, to: UInt32(2 - side),
        link: ChannelLink(destination: MACAddress(UInt64(2 - side)), source: MACAddress(UInt64(side + 1))), settings: settings,
        now: now, memory: memory)
    }
  }

  /// Changes a frame just before an end reads it, or withholds it: how a test makes an end behave as if its code were wrong.
  public typealias Tampering = (inout [UInt8], _ end: End, _ key: ChannelKey?) -> Bool

  let seed: UInt64
  let tampering: Tampering?
  var chance: Chance
  var network = VirtualNetwork()
  var ends: [End]
  /// Lives that are over: frames of theirs may still be under way.
  private var past: [[UInt64]: End] = [:]
  var now = Tick(milliseconds: 1)
  var settings = ChannelSettings()
  private var lives: UInt64 = 1
  /// Messages that arrived.
  public private(set) var delivered = 0
  private let memory = WorldMemory()
  private let buffer = UnsafeMutableRawPointer.allocate(byteCount: 2_048, alignment: 8)

  public init(seed: UInt64, tampering: Tampering? = nil) {
    self.seed = seed
    self.tampering = tampering
    chance = Chance(seed: seed)
    settings.mtu = [300, 500, 900][chance.below(3)]
    settings.sendFrames = 8 << chance.below(3)
    settings.receiveFrames = 4 << chance.below(3)
    settings.largestMessage = 1_200
    settings.leastTimeout = 200_000
    settings.initialTimeout = 500_000
    settings.greatestTimeout = 5_000_000
    settings.helloInterval = 300_000
    settings.keepaliveInterval = 500_000
    // The numbers wrap during the run, more often than not.
    settings.firstSequence = SequenceNumber(UInt32.max - UInt32(chance.below(60)))
    if chance.happens(200) { settings.key = ChannelKey(low: 3, high: 4) }
    ends = []
    ends = (0..<2).map { End(side: $0, incarnation: 1, settings: settings, now: now, memory: memory.source) }
  }

  /// Damage for a while, then a healthy link; everything that is still owed must arrive.
  public mutating func run(passes: Int, restarts: Bool) throws(Violation) {
    defer { buffer.deallocate() }
    network.faults = restarts ? .drawn(&chance) : .severe
    for _ in 0..<passes {
      for side in 0..<2 {
        if restarts, chance.happens(12) { restart(side) }
        if chance.happens(10) { ends[side].isPaused.toggle() }
        if chance.happens(20) { ends[side].channel.credit = chance.below(settings.receiveFrames + 1) }
      }
      try pass(20_000, sending: true)
    }
    network.faults = .none
    for end in ends {
      end.isPaused = false
      end.channel.credit = settings.receiveFrames
    }
    for _ in 0..<2_000 {
      try pass(100_000, sending: false)
      if isSettled { break }
    }
    for side in 0..<2 {
      let (end, peer) = (ends[side], ends[1 - side])
      guard peer.heard == end.incarnation, (peer.due ?? end.sessionStart) == end.accepted else {
        throw violation("\(end.accepted - (peer.due ?? 0)) messages accepted at end \(side) never arrived")
      }
      guard end.channel.unacknowledged == 0 else { throw violation("end \(side) still waits for acknowledgements") }
    }
  }

  private var isSettled: Bool {
    (0..<2).allSatisfy { side in
      let (end, peer) = (ends[side], ends[1 - side])
      return peer.heard == end.incarnation && (peer.due ?? end.sessionStart) == end.accepted && end.channel.unacknowledged == 0
    }
  }

  private mutating func restart(_ side: Int) {
    past[[UInt64(side), ends[side].incarnation]] = ends[side]
    lives += 1
    ends[side] = End(side: side, incarnation: lives, settings: settings, now: now, memory: memory.source)
  }

  mutating func pass(_ nanoseconds: UInt64, sending: Bool) throws(Violation) {
    now = Tick(nanoseconds: now.nanoseconds + nanoseconds)
    while var arrival = network.take(by: now) {
      let side = arrival.destination
      if ends[side].isPaused { continue }
      if let tampering, !tampering(&arrival.frame, ends[side], settings.key) { continue }
      try receive(arrival.frame, at: side)
    }
    for side in 0..<2 where !ends[side].isPaused {
      let end = ends[side]
      if sending { for _ in 0..<chance.below(4) { speak(end) } }
      _ = end.channel.poll(now: now)
      while case let length = end.channel.fill(buffer, now: now), length > 0 {
        let frame = Array(UnsafeRawBufferPointer(start: buffer, count: length))
        network.send(frame, from: side, to: 1 - side, now: now, chance: &chance)
      }
    }
  }

  /// Incarnation, number, and bytes that follow from both.
  private func message(_ incarnation: UInt64, _ number: UInt64) -> [UInt8] {
    var content = Chance(seed: incarnation << 32 ^ number)
    let count = 16 + (content.happens(60) ? content.below(1_100) : content.below(120))
    var bytes = withUnsafeBytes(of: (incarnation, number)) { Array($0) }
    bytes += Self.filling[content.below(256)...].prefix(count - 16)
    return bytes
  }

  private static let filling: [UInt8] = {
    var chance = Chance(seed: 1)
    return (0..<1_500).map { _ in UInt8(truncatingIfNeeded: chance.next()) }
  }()

  private func speak(_ end: End) {
    let message = message(end.incarnation, end.accepted)
    if end.channel.send(message.span.bytes) { end.accepted += 1 }
  }

  private mutating func receive(_ frame: [UInt8], at side: Int) throws(Violation) {
    let end = ends[side]
    let wasEstablished = end.channel.isEstablished
    let life = end.channel.peerIncarnation
    let peer = past[[UInt64(1 - side), life]] ?? ends[1 - side]
    var complaint: Violation?
    var count = 0
    let reception = frame.withUnsafeBytes { bytes in
      end.channel.receive(bytes, now: now) { delivered in
        guard delivered.byteCount >= 16 else {
          complaint = violation("a message of \(delivered.byteCount) bytes was never sent")
          return
        }
        let incarnation = delivered.unsafeLoad(as: UInt64.self, at: 0)
        let number = delivered.unsafeLoad(as: UInt64.self, at: 8)
        let due = end.due ?? peer.sessionStart
        if incarnation != life {
          complaint = violation("a message of life \(incarnation) came in the session with life \(life)")
        } else if number != due {
          complaint = violation("message \(number) came where \(due) was due")
        } else if delivered.withUnsafeBytes({ Array($0) }) != message(incarnation, number) {
          complaint = violation("message \(number) came damaged")
        }
        end.due = number + 1
        count += 1
      }
    }
    if case .sessionBegan = reception {
      end.heard = end.channel.peerIncarnation
      end.due = nil
      if wasEstablished { end.sessionStart = end.accepted }
    }
    delivered += count
    if let complaint { throw complaint }
  }

  private func violation(_ text: String) -> Violation {
    Violation(description: "seed \(seed): \(text)")
  }
}

extension RawSpan {
  func unsafeLoad<Word: BitwiseCopyable & FixedWidthInteger>(as type: Word.Type, at offset: Int) -> Word {
    unsafe Word(littleEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: type))
  }
}
