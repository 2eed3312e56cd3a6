import FoundationEssentials

/// What a scaling run has seen, twice a second, and what was decided meanwhile: the data of a figure.
public struct ScalingRecord: Sendable {
  /// What the generator reports: packets since it began.
  struct Offer: Decodable, Sendable {
    var seconds = 0.0
    var offered: UInt64 = 0
    var sent: UInt64 = 0
    var received: UInt64 = 0
  }

  public struct Sample: Codable, Sendable {
    /// Since the load began.
    public var seconds: Double
    /// Packets per second in the interval before.
    public var offered: Double
    public var achieved: Double
    /// Runtimes.
    public var serving: Int
    public var draining: Int
    public var starting: Int
    /// Flows moved so far.
    public var moved: UInt64
    public var busyShares: [Double]
  }

  /// A command, or a runtime that has started.
  public struct Note: Codable, Sendable {
    public var seconds: Double
    public var what: String
    public var node: UInt32
    public var why: String
  }

  public var samples: [Sample] = []
  public var notes: [Note] = []
  var total = Offer()
  var peak: UInt64 = 0, flows = 0, workerShare: UInt64 = 0
  var dropped: [String: UInt64] = [:]
  var policy = ""

  mutating func begin(_ settings: ScalingRun.Settings, policy: String) {
    (peak, flows, workerShare, self.policy) = (settings.peak, settings.flows, settings.workerShare, policy)
  }

  mutating func note(_ seconds: Double, _ what: String, _ node: UInt32, _ why: String) {
    notes.append(Note(seconds: seconds, what: what, node: node, why: why))
  }

  mutating func take(_ picture: LogPicture) {
    for (reason, packets) in picture.drops { dropped[reason] = packets }
  }

  // MARK: Figures

  /// Packets that arrived, of those that were due.
  public var deliveredShare: Double { Double(total.received) / Double(max(1, total.offered)) }
  /// The same while the load fell.
  public var deliveredShareGoingDown: Double {
    guard let top = samples.max(by: { $0.offered < $1.offered })?.seconds else { return 0 }
    let rest = samples.filter { $0.seconds > top }
    return rest.reduce(0) { $0 + $1.achieved } / max(1, rest.reduce(0) { $0 + $1.offered })
  }
  /// Packets that the generator could not send in time are the machine's shortcoming, not the platform's.
  public var unsentShare: Double { Double(total.offered - min(total.offered, total.sent)) / Double(max(1, total.offered)) }
  public var mostRuntimes: Int { samples.map(\.serving).max() ?? 0 }
  public var lastRuntimes: Int { samples.last?.serving ?? 0 }
  public var movedFlows: UInt64 { samples.last?.moved ?? 0 }
  /// Seconds in which less than 95 % of what was offered arrived.
  public var shortSeconds: Double { Double(samples.count { $0.achieved < 0.95 * $0.offered }) / 2 }

  /// One object in each line: first what was run, then samples and notes by time.
  public func jsonLines() -> String {
    struct Head: Encodable {
      let figure = "scaling", policy: String, peakPacketsPerSecond: UInt64, flows: Int, workerShareOfCore: Double
      let offeredPackets: UInt64, sentPackets: UInt64, receivedPackets: UInt64, drops: [String: UInt64]
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    func line(_ value: some Encodable) -> String { (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "{}" }
    let head = Head(
      policy: policy, peakPacketsPerSecond: peak, flows: flows, workerShareOfCore: Double(workerShare) / 1_000,
      offeredPackets: total.offered, sentPackets: total.sent, receivedPackets: total.received, drops: dropped)
    let rest = samples.map { ($0.seconds, line($0)) } + notes.map { ($0.seconds, line($0)) }
    return ([line(head)] + rest.sorted { $0.0 < $1.0 }.map(\.1)).joined(separator: "\n") + "\n"
  }

  public var text: String {
    func percent(_ share: Double) -> String { "\(Double(Int((share * 1_000).rounded())) / 10) %" }
    var lines = [
      "offered \(total.offered) packets, sent \(total.sent), received \(total.received): \(percent(deliveredShare)), "
        + "going down \(percent(deliveredShareGoingDown)); \(shortSeconds) s below 95 %",
      "runtimes: up to \(mostRuntimes), \(lastRuntimes) at the end; \(movedFlows) flows moved",
      "dropped: " + dropped.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", "),
    ]
    for note in notes { lines.append("\(note.seconds) s  \(note.what) \(note.node)  \(note.why)") }
    return lines.joined(separator: "\n")
  }
}
