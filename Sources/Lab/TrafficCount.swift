/// What the clients have reported, added up.
///
/// A client's own word is the only one that counts here: a request that the platform lost is one that some program
/// did not get answered.
public struct TrafficCount: Equatable, Sendable {
  public struct Kept: Equatable, Sendable {
    public var requests: UInt64 = 0
    public var failed: UInt64 = 0
    public var bytes: UInt64 = 0
    /// Microseconds; known at the end.
    public var p50: UInt64 = 0
    public var p99: UInt64 = 0
    public var longest: UInt64 = 0
    public var isFinal = false
  }

  public struct Fresh: Equatable, Sendable {
    public var requests: UInt64 = 0
    public var failed: UInt64 = 0
    public var bytes: UInt64 = 0
    public var byServer: [String: UInt64] = [:]
  }

  /// Requests over connections that are kept (wrk).
  public private(set) var kept = Kept()
  /// Requests with a connection of their own (curl).
  public private(set) var fresh = Fresh()
  /// The first few complaints, as they were written.
  public private(set) var complaints: [String] = []

  public init() {}

  public var requests: UInt64 { kept.requests + fresh.requests }
  public var failed: UInt64 { kept.failed + fresh.failed }
  public var bytes: UInt64 { kept.bytes + fresh.bytes }

  /// A line of wrk's report: totals so far, or at the end wrk's own errors. Its other lines are for people.
  public mutating func readKept(_ line: Substring) {
    let fields = Self.fields(line)
    guard let requests = fields["requests"].flatMap({ UInt64($0) }) else {
      if line.contains("unable to connect") { complain("wrk", line) }
      return
    }
    func number(_ key: Substring) -> UInt64 { fields[key].flatMap { UInt64($0) } ?? 0 }
    kept.requests = max(kept.requests, requests)
    if fields["final"] == nil {
      kept.failed = number("failed")
      kept.bytes = number("bytes")
    } else {
      // What the script found wrong and wrk did not (a page that is not the page) is in `failed` already.
      kept.failed = max(kept.failed, number("status")) + number("errors") - number("status")
      (kept.p50, kept.p99, kept.longest) = (number("p50us"), number("p99us"), number("maxus"))
      kept.isFinal = true
      if number("errors") > 0 { complain("wrk", line) }
    }
  }

  /// A line of a loop: one request.
  public mutating func readFresh(_ line: Substring, client: String) {
    let fields = Self.fields(line)
    guard fields["requests"] == "1" else { return complain(client, line) }
    fresh.requests += 1
    guard fields["failed"] == nil else {
      fresh.failed += 1
      return complain(client, line)
    }
    fresh.bytes += fields["bytes"].flatMap { UInt64($0) } ?? 0
    fresh.byServer[String(fields["server"] ?? Substring("unknown")), default: 0] += 1
  }

  private mutating func complain(_ client: String, _ line: Substring) {
    if complaints.count < 20 { complaints.append("\(client): \(line)") }
  }

  private static func fields(_ line: Substring) -> [Substring: Substring] {
    var fields: [Substring: Substring] = [:]
    for word in line.split(separator: " ") {
      guard let equals = word.firstIndex(of: "=") else { continue }
      fields[word[..<equals]] = word[word.index(after: equals)...]
    }
    return fields
  }
}
