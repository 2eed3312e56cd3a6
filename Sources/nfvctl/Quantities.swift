import ControlMessages
import Glibc

/// Times, spans and rates, as people and as programs read them.
enum Quantity {
  /// 350ms, 4.2s, 3m, 2h, 5d
  static func span(milliseconds: UInt64) -> String {
    switch milliseconds {
    case ..<1_000: "\(milliseconds)ms"
    case ..<60_000: "\(milliseconds / 1_000).\(milliseconds % 1_000 / 100)s"
    case ..<3_600_000: "\(milliseconds / 60_000)m"
    case ..<172_800_000: "\(milliseconds / 3_600_000)h"
    default: "\(milliseconds / 86_400_000)d"
    }
  }

  /// What a count of an interval makes in a second.
  static func perSecond(_ count: UInt64, interval: UInt64) -> UInt64 {
    guard interval > 0 else { return 0 }
    let (high, low) = count.multipliedFullWidth(by: 1_000)
    return high < interval ? interval.dividingFullWidth((high, low)).quotient : .max
  }

  /// Megabits with one decimal.
  static func megabits(_ bits: UInt64) -> String { "\(bits / 1_000_000).\(bits % 1_000_000 / 100_000)" }

  /// Percent with one decimal, from parts per million.
  static func percent(_ partsPerMillion: UInt32) -> String { "\(partsPerMillion / 10_000).\(partsPerMillion % 10_000 / 1_000)" }
}

extension Timestamp {
  /// 2026-11-22T22:31:21.123Z
  var iso8601: String {
    var seconds = time_t(clamping: milliseconds / 1_000)
    var parts = tm()
    guard gmtime_r(&seconds, &parts) != nil else { return "\(milliseconds)" }
    func padded(_ value: some BinaryInteger, _ width: Int) -> String {
      let digits = String(value)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    let date = "\(padded(Int64(parts.tm_year) + 1900, 4))-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
    let time = "\(padded(parts.tm_hour, 2)):\(padded(parts.tm_min, 2)):\(padded(parts.tm_sec, 2))"
    return "\(date)T\(time).\(padded(milliseconds % 1_000, 3))Z"
  }

  /// 22:31:21.123, for terminals.
  var clockTime: String { String(iso8601.drop { $0 != "T" }.dropFirst().dropLast()) }
}
