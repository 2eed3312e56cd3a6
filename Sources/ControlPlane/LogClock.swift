import ControlMessages

/// The core's only clock: it moves when a record moves it.
///
/// `now` is the largest timestamp seen. `elapsed` is the time that deadlines are measured in: it stands still while
/// the log does. When two neighbouring records are further apart than a bound, nobody could have been heard, so the
/// gap counts for nothing more than the bound, and a broker's election looks like a moment instead of like dead nodes.
public struct LogClock: Hashable, Sendable {
  /// Rules 1: replicas append a tick every second, so a longer gap says that the log stood still, and counts for nothing.
  public static let tickStallBound: UInt64 = 3_000
  /// From rules 2: replicas append beacons every 100 ms. A longer gap counts for this much, so that time goes on also
  /// where only a few agents speak.
  public static let stallBound: UInt64 = 300

  public private(set) var now = Timestamp.zero
  /// Milliseconds of log time since the first record, without the stalls.
  public private(set) var elapsed: UInt64 = 0
  /// Milliseconds of stalls so far, that is, how far deadlines have moved.
  public private(set) var stalled: UInt64 = 0
  /// `elapsed` when the last stall ended, or when rules 2 came into force.
  public internal(set) var lastStall: UInt64 = 0

  public init() {}

  package init(now: Timestamp, elapsed: UInt64, stalled: UInt64, lastStall: UInt64) {
    self.now = now
    self.elapsed = elapsed
    self.stalled = stalled
    self.lastStall = lastStall
  }

  mutating func advance(to timestamp: Timestamp, under rules: UInt32) {
    guard timestamp > now else { return }
    let gap = now == .zero ? 0 : timestamp.since(now)
    now = timestamp
    // No sum can pass the last timestamp seen.
    if rules < DecisionRules.failureDetection {
      if gap > Self.tickStallBound { stalled += gap } else { elapsed += gap }
    } else if gap > Self.stallBound {
      stalled += gap - Self.stallBound
      elapsed += Self.stallBound
      lastStall = elapsed
    } else {
      elapsed += gap
    }
  }
}
