import ArgumentParser
import ControlMessages
import Glibc

/// A point of a cluster's events: an offset, a time in UTC, or a time ago. Records at the point belong to it.
enum LogPoint: ExpressibleByArgument, Equatable {
  case offset(Offset)
  case time(Timestamp)

  /// 1234, 2026-11-22T22:31:21.123Z (parts from the right may be left out down to the day), or 10m.
  init?(argument: String) {
    if let offset = UInt64(argument) {
      self = .offset(Offset(offset))
    } else if let span = Span(argument: argument) {
      let now = Timestamp.now.milliseconds
      self = .time(Timestamp(milliseconds: now - min(now, UInt64(span.milliseconds))))
    } else if let time = Timestamp(iso8601: argument) {
      self = .time(time)
    } else {
      return nil
    }
  }

  /// Whether a record lies at it or before it.
  func includes(_ offset: Offset, _ timestamp: Timestamp) -> Bool {
    switch self {
    case .offset(let end): offset <= end
    case .time(let end): timestamp <= end
    }
  }

  static let help = "an offset, a time such as 2026-11-22T22:31:21.5Z, or a time ago such as 10m"
}

extension Timestamp {
  /// As `iso8601` writes it; seconds, minutes and hours may be left out.
  init?(iso8601 text: String) {
    guard
      let match = text.wholeMatch(of: /(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,3}))?)?)?)?Z?/)
    else { return nil }
    func number(_ part: Substring?) -> Int32 { part.flatMap { Int32($0) } ?? 0 }
    let fields = match.output
    var parts = tm()
    parts.tm_year = number(fields.1) - 1900
    parts.tm_mon = number(fields.2) - 1
    parts.tm_mday = number(fields.3)
    parts.tm_hour = number(fields.4)
    parts.tm_min = number(fields.5)
    parts.tm_sec = number(fields.6)
    let wanted = parts
    let seconds = timegm(&parts)
    // timegm makes March 2 of February 30; we do not.
    guard seconds >= 0, parts.tm_mon == wanted.tm_mon, parts.tm_mday == wanted.tm_mday, parts.tm_hour == wanted.tm_hour,
      parts.tm_min == wanted.tm_min
    else { return nil }
    let fraction = fields.7.map { String($0) + String(repeating: "0", count: 3 - $0.count) } ?? "0"
    self.init(milliseconds: UInt64(seconds) * 1_000 + (UInt64(fraction) ?? 0))
  }
}
