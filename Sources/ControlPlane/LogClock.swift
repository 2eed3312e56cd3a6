import ControlMessages

/// The core's only clock: it moves when a record moves it.
///
/// `now` is the largest timestamp seen. `elapsed` is the time that deadlines are measured in: it stands still while
/// the log does. When two neighbouring records are further apart than `stallBound`, nobody could have been heard, so
/// the gap counts for nothing, and a broker's election looks like no time at all instead of like dead nodes.
public struct LogClock: Hashable, Sendable {
  /// Replicas append a tick every second, so a longer gap says that the log stood still.
  public static let stallBound: UInt64 = 3_000

  public private(set) var now = Timestamp.zero
  /// Milliseconds of log time since the first record, without the stalls.
  public private(set) var elapsed: UInt64 = 0
  /// Milliseconds of stalls so far, that is, how far deadlines have moved.
  public private(set) var stalled: UInt64 = 0

  public init() {}

  public mutating func advance(to timestamp: Timestamp) {
    let gap = now == .zero ? 0 : timestamp.since(now)
    now = max(now, timestamp)
    // Neither sum can pass the last timestamp seen.
    if gap > Self.stallBound { stalled += gap } else { elapsed += gap }
  }
}
