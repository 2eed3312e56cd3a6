/// A rate that changes: straight lines between points of time, and the last rate for ever.
///
///     0:1000,15:50000,60:2000     packets per second at 0 s, 15 s and 60 s
public struct TrafficRamp: Equatable, Sendable {
  public struct Point: Equatable, Sendable {
    /// Since the run began.
    public var nanoseconds: UInt64
    /// Packets per second.
    public var rate: UInt64

    public init(nanoseconds: UInt64, rate: UInt64) {
      self.nanoseconds = nanoseconds
      self.rate = rate
    }
  }

  public let points: [Point]

  /// nil: there are no points, the first is not at the beginning, or time does not go on from one to the next.
  public init?(_ points: [Point]) {
    guard points.first?.nanoseconds == 0, zip(points, points.dropFirst()).allSatisfy({ $0.nanoseconds < $1.nanoseconds }) else {
      return nil
    }
    self.points = points
  }

  /// Packets that are due by then: the area under the lines.
  func packets(until nanoseconds: UInt64) -> UInt64 {
    var area = 0.0
    for (index, point) in points.enumerated() where point.nanoseconds < nanoseconds {
      guard index + 1 < points.count else {
        area += Double(nanoseconds - point.nanoseconds) * Double(point.rate)
        break
      }
      let next = points[index + 1]
      let length = Double(next.nanoseconds - point.nanoseconds)
      let passed = Double(min(nanoseconds, next.nanoseconds) - point.nanoseconds)
      let slope = (Double(next.rate) - Double(point.rate)) / length
      area += passed * (Double(point.rate) + slope * passed / 2)
    }
    return UInt64(max(0, area / 1e9))
  }
}
