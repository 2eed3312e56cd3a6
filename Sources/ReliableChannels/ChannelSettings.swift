/// The sizes and times of a channel. Times are nanoseconds.
public struct ChannelSettings: Equatable, Sendable {
  /// Bytes of a frame after its link header. Both ends must have the same.
  public var mtu = 1_500
  /// Frames kept until they are acknowledged, and so the messages that can wait: a power of two.
  public var sendFrames = 256
  /// Frames that may arrive early, and the most the peer may have under way: a power of two.
  public var receiveFrames = 256
  /// Bytes of the longest message.
  public var largestMessage = 65_535
  /// Retransmission timeout before anything was measured, its lower and its upper bound.
  public var initialTimeout: UInt64 = 10_000_000
  public var leastTimeout: UInt64 = 1_000_000
  public var greatestTimeout: UInt64 = 100_000_000
  /// Time between two attempts to begin a session.
  public var helloInterval: UInt64 = 5_000_000
  /// An idle channel shows that it lives once in this time.
  public var keepaliveInterval: UInt64 = 5_000_000
  /// A peer not heard for this long is reported.
  public var silenceDeadline: UInt64 = 50_000_000
  /// The number of the first frame of every session. Tests begin just before the numbers wrap.
  public var firstSequence = SequenceNumber(0)
  /// With a key, frames carry a keyed hash and those without are refused.
  public var key: ChannelKey?

  public init() {}

  /// Room for chunks in one frame.
  public var bodySize: Int { mtu - ChannelFrame.headerLength }
}

/// What a channel has done. Frames refused are in `refused`, by reason.
public struct ChannelCounters: Sendable {
  public var framesSent: UInt64 = 0
  public var framesReceived: UInt64 = 0
  public var messagesSent: UInt64 = 0
  public var messagesDelivered: UInt64 = 0
  /// Messages the queue had no room for; the caller was told each time.
  public var messagesRefused: UInt64 = 0
  /// Messages whose delivery to a life of the peer that is over was never acknowledged.
  public var messagesAbandoned: UInt64 = 0
  /// Frames sent again: after a gap was seen, and after a timeout.
  public var fastRetransmits: UInt64 = 0
  public var timeoutRetransmits: UInt64 = 0
  public var timeouts: UInt64 = 0
  public var duplicates: UInt64 = 0
  public var outOfOrder: UInt64 = 0
  public var sessions: UInt64 = 0
  public var silences: UInt64 = 0
  /// Chunks that do not fit together: a defect of the peer.
  public var brokenMessages: UInt64 = 0
  public private(set) var refused: InlineArray<8, UInt64> = .init(repeating: 0)

  public init() {}

  public mutating func refuse(_ reason: FrameRefusal) { refused[Int(reason.rawValue)] &+= 1 }
  public subscript(reason: FrameRefusal) -> UInt64 { refused[Int(reason.rawValue)] }

}
