/// A frame's number in its session, from 2^32 that follow each other in a circle (RFC 1982).
///
/// "Before" and "after" mean within half the circle, which is far more than a window: wrapping needs no care.
public struct SequenceNumber: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public var number: UInt32

  @inlinable public init(_ number: UInt32) { self.number = number }

  /// How many frames later than `earlier` this one is; negative when it is earlier.
  @inlinable @inline(__always)
  public func since(_ earlier: SequenceNumber) -> Int { Int(Int32(bitPattern: number &- earlier.number)) }

  @inlinable @inline(__always)
  public func advanced(by count: Int) -> SequenceNumber { SequenceNumber(number &+ UInt32(truncatingIfNeeded: count)) }

  @inlinable @inline(__always)
  public static func < (a: SequenceNumber, b: SequenceNumber) -> Bool { a.since(b) < 0 }

  @inlinable public static func latest(_ a: SequenceNumber, _ b: SequenceNumber) -> SequenceNumber { a < b ? b : a }

  public var description: String { "\(number)" }
}
