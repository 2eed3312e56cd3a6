import ControlMessages
import NetworkFunctions
import Wire

/// Lets every flow send so many packets per second, and a burst of so many at once; drops the rest.
///
/// A token bucket: tokens drip into a flow's bucket until it is full, and every packet takes one out.
///
/// Settings:
///
///     per-second: 1000
///     burst: 100         # as many as per second if left out
public struct RateLimiter: NetworkFunction, Sendable {
  public let perSecond: UInt64
  public let burst: UInt64

  public init(perSecond: UInt64, burst: UInt64? = nil) {
    precondition(perSecond > 0 && burst != 0, "a flow that may send nothing is the firewall's business")
    self.perSecond = perSecond
    self.burst = burst ?? perSecond
  }

  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["per-second", "burst"])
    let perSecond = try reader.required("per-second").integer(in: 1...10_000_000)
    self.init(
      perSecond: UInt64(perSecond), burst: UInt64(try reader.optional("burst")?.integer(in: 1...10_000_000) ?? perSecond))
  }

  public struct FlowState: BitwiseCopyable, Sendable {
    /// Billionths of a token: what drips in within a nanosecond is a whole number of them.
    @usableFromInline var level: UInt64
    @usableFromInline var lastArrival = Tick.zero

    @inlinable init(level: UInt64) { self.level = level }
  }

  @usableFromInline static let token: UInt64 = 1_000_000_000

  public static let overRate = DropReason.function(0)
  public static var dropReasons: [DropReasonDescription] {
    [.init(overRate, "over-rate", "The flow sends more packets per second than it may.")]
  }

  @inlinable public func makeFlowState() -> FlowState { FlowState(level: burst * RateLimiter.token) }

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout Nothing) -> Verdict {
    let full = burst * RateLimiter.token
    let missing = full - min(flow.level, full)
    if frame.arrival > flow.lastArrival {
      let elapsed = min(frame.arrival.nanoseconds - flow.lastArrival.nanoseconds, missing / perSecond + 1)
      flow.level = min(full, flow.level + elapsed * perSecond)
    }
    flow.lastArrival = frame.arrival
    guard flow.level >= RateLimiter.token else { return .drop(RateLimiter.overRate) }
    flow.level -= RateLimiter.token
    return .forward
  }
}
