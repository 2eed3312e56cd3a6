import ControlMessages
import Wire

/// How it is found out whether a backend works: somebody connects to it by TCP again and again.
///
///     health: {interval: 2s, timeout: 1s, rise: 2, fall: 3, port: 8081}
public struct HealthCheck: Hashable, Sendable {
  /// Milliseconds from one check to the next, and until one has failed.
  public var interval: UInt64 = 2_000
  public var timeout: UInt64 = 1_000
  /// Checks in a row that must succeed until a backend that was down is up, and that must fail until it is down.
  public var rise = 2
  public var fall = 3
  /// `nil`: the port that the flows go to.
  public var port: UInt16?

  public init() {}

  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["interval", "timeout", "rise", "fall", "port"])
    if let value = try reader.optional("interval") {
      interval = try value.milliseconds()
      guard (100...3_600_000).contains(interval) else { throw value.error("checks are 100ms to 1h apart") }
    }
    timeout = min(timeout, interval)
    if let value = try reader.optional("timeout") {
      timeout = try value.milliseconds()
      guard timeout > 0, timeout <= interval else { throw value.error("a check has to end before the next one begins") }
    }
    rise = try reader.optional("rise")?.integer(in: 1...100) ?? rise
    fall = try reader.optional("fall")?.integer(in: 1...100) ?? fall
    port = UInt16(try reader.optional("port")?.integer(in: 1...65_535) ?? 0)
    if port == 0 { port = nil }
  }
}

/// What checks have said of one backend so far. A backend begins as up: a balancer that has just started sends flows.
public struct BackendHealth: Hashable, Sendable {
  public private(set) var isUp = true
  /// Checks in a row that spoke against `isUp`.
  public private(set) var contradictions = 0
  public private(set) var checks: UInt64 = 0
  public private(set) var failures: UInt64 = 0

  public init() {}

  /// Notes how a check ended; `true` when that makes the backend go up or down.
  public mutating func note(_ succeeded: Bool, _ rules: HealthCheck) -> Bool {
    checks &+= 1
    if !succeeded { failures &+= 1 }
    guard succeeded != isUp else {
      contradictions = 0
      return false
    }
    contradictions += 1
    guard contradictions >= (isUp ? rules.fall : rules.rise) else { return false }
    isUp = succeeded
    contradictions = 0
    return true
  }
}
