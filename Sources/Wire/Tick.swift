/// A worker's time: nanoseconds since it started. Time is a parameter everywhere below the nodes.
public struct Tick: Hashable, Comparable, Sendable, BitwiseCopyable {
  public var nanoseconds: UInt64

  @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
  @inlinable public init(milliseconds: UInt64) { nanoseconds = milliseconds &* 1_000_000 }

  public static let zero = Tick(nanoseconds: 0)

  @inlinable public var milliseconds: UInt64 { nanoseconds / 1_000_000 }
  @inlinable public static func < (a: Tick, b: Tick) -> Bool { a.nanoseconds < b.nanoseconds }
  @inlinable public func advanced(byMilliseconds count: UInt64) -> Tick {
    Tick(nanoseconds: nanoseconds &+ count &* 1_000_000)
  }
}
