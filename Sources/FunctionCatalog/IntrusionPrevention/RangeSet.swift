import Wire

/// Which addresses, or which ports, a rule speaks of: ascending ranges that neither touch nor overlap.
///
/// Rules nest groups and negations (`[$HOME_NET,!10.0.0.1]`, `!21:23`); as a set, all of that is worked out once, when
/// the rule is read.
struct RangeSet<Bound: FixedWidthInteger & UnsignedInteger & Sendable>: Hashable, Sendable {
  private(set) var ranges: [ClosedRange<Bound>]

  static var all: RangeSet { RangeSet(0...Bound.max) }
  static var none: RangeSet { RangeSet(ascending: []) }

  init(_ range: ClosedRange<Bound>) { ranges = [range] }
  private init(ascending: [ClosedRange<Bound>]) { ranges = ascending }

  var isAll: Bool { self == .all }
  var isEmpty: Bool { ranges.isEmpty }

  var complement: RangeSet {
    var result: [ClosedRange<Bound>] = []
    var next: Bound? = 0
    for range in ranges {
      if let start = next, start < range.lowerBound { result.append(start...range.lowerBound - 1) }
      next = range.upperBound == .max ? nil : range.upperBound + 1
    }
    if let start = next { result.append(start...Bound.max) }
    return RangeSet(ascending: result)
  }

  func union(_ other: RangeSet) -> RangeSet {
    var result: [ClosedRange<Bound>] = []
    for range in (ranges + other.ranges).sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = result.last, last.upperBound == .max || range.lowerBound <= last.upperBound + 1 {
        result[result.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        result.append(range)
      }
    }
    return RangeSet(ascending: result)
  }

  func subtracting(_ other: RangeSet) -> RangeSet { complement.union(other).complement }
}

/// IPv4 addresses as `::ffff:a.b.c.d`.
typealias AddressSet = RangeSet<UInt128>
typealias RulePorts = RangeSet<UInt16>

extension UInt128 {
  init(_ address: IPAddress) { self = UInt128(address.high) << 64 | UInt128(address.low) }
}
