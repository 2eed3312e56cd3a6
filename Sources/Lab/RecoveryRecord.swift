import FoundationEssentials

/// What a recovery run has seen: one line for each death, and the figures over all of them.
public struct RecoveryRecord: Sendable {
  /// What the generator's watch has seen (`nfvactor traffic --watch`). Times are microseconds since `begin`.
  struct Outage: Decodable, Sendable {
    /// On the system's monotonic clock, in nanoseconds.
    var begin: UInt64
    var flows: Int
    var sent: UInt64
    var lost: UInt64
    var from: UInt64?
    var until: UInt64?
    var lostLater: UInt64
    var flowsHit: Int
    var mostOfOneFlow: Int
    var flowsHeard: Int
    var lastFirst: UInt64?
    var longestWait: UInt64
  }

  /// A runtime that was killed. Times are milliseconds since then.
  public struct Kill: Codable, Sendable {
    public var number: Int
    public var node: UInt32
    public var incarnation: UInt64
    public var flows: Int
    /// `processExited` is in the log.
    public var evidence: Double?
    /// `recover` is in the log.
    public var decision: Double?
    /// The holder's word that it has heard is in the log.
    public var heard: Double?
    /// The holder's word that it has all flows is in the log.
    public var finished: Double?
    /// What the holder needed for them, packets or not, from the command on; by its own clock.
    public var microseconds: UInt64?
    public var recovered: UInt64?
    public var onDemand: UInt64?
    public var refused: UInt64?
    /// No packet that was written later was lost.
    public var served: Double?
    /// A packet of every flow, written since, has come. The rate sets a limit to this.
    public var lastFirst: Double?
    /// Packets of the outage, and the most of one flow.
    public var lost: UInt64 = 0
    public var flowsHit = 0
    public var mostOfOneFlow = 0
    /// Packets that were lost when all were served again, for another reason.
    public var lostLater: UInt64 = 0
    public var longestWait: Double = 0
    /// The next life has started; every flow has a replica again, and everything serves.
    public var restarted: Double?
    public var isProtectedAgain: Double?

    init(number: Int, node: UInt32, incarnation: UInt64, flows: Int) {
      (self.number, self.node, self.incarnation, self.flows) = (number, node, incarnation, flows)
    }

    mutating func take(_ outage: Outage, killedAt moment: UInt64) {
      /// The watch began a little before.
      let before = Double(moment) / 1e6 - Double(outage.begin) / 1e6
      func since(_ microseconds: UInt64) -> Double { max(0, ((Double(microseconds) / 1e3 - before) * 100).rounded() / 100) }
      served = outage.until.map(since) ?? 0
      lastFirst = outage.lastFirst.map(since)
      lost = outage.lost - min(outage.lost, outage.lostLater)
      (flowsHit, mostOfOneFlow, lostLater) = (outage.flowsHit, outage.mostOfOneFlow, outage.lostLater)
      longestWait = Double(outage.longestWait) / 1e3
    }

    /// From the command on.
    var afterCommand: Double? {
      guard let served, let decision else { return nil }
      return max(0, served - decision)
    }

    public var text: String {
      func ms(_ time: Double?) -> String { time.map { "\(($0 * 10).rounded() / 10)" } ?? "-" }
      return "  \(number). node \(node): in the log after \(ms(evidence)) ms, decided \(ms(decision)), heard \(ms(heard)), served \(ms(served)), "
        + "taken over in \(ms(microseconds.map { Double($0) / 1e3 })) (\(onDemand ?? 0) asked for); lost \(lost) packets of \(flowsHit) flows, "
        + "\(mostOfOneFlow) of one, \(lostLater) later; last flow heard \(ms(lastFirst)), longest wait \(ms(longestWait)), "
        + "new life \(ms(restarted)), protected \(ms(isProtectedAgain))"
    }
  }

  public var kills: [Kill] = []
  public var dropped: [String: UInt64] = [:]
  let flows: Int
  let rate: UInt64

  init(_ settings: RecoveryRun.Settings) { (flows, rate) = (settings.flows, settings.rate) }

  /// One object in each line: what was run, then the deaths.
  public func jsonLines() -> String {
    struct Head: Encodable {
      let figure = "recovery", flows: Int, packetsPerSecond: UInt64, drops: [String: UInt64]
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    func line(_ value: some Encodable) -> String { (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "{}" }
    return ([line(Head(flows: flows, packetsPerSecond: rate, drops: dropped))] + kills.map(line)).joined(separator: "\n") + "\n"
  }

  /// The figures, each over all deaths: median, 99th percentile, greatest.
  public var figures: [(name: String, unit: String, p50: Double, p99: Double, max: Double)] {
    let all: [(String, String, [Double?])] = [
      ("served", "ms", kills.map(\.served)), ("detection", "ms", kills.map(\.evidence)),
      ("decision", "ms", kills.map { kill in kill.evidence.flatMap { evidence in kill.decision.map { Swift.max(0, $0 - evidence) } } }),
      ("after-the-command", "ms", kills.map(\.afterCommand)),
      ("taken-over", "ms", kills.map { $0.microseconds.map { Double($0) / 1e3 } }),
      ("last-flow-heard", "ms", kills.map(\.lastFirst)), ("protected-again", "ms", kills.map(\.isProtectedAgain)),
      ("lost-per-flow", "packets", kills.map { Double($0.lost) / Double(Swift.max(1, $0.flows)) }),
      ("lost-of-one-flow", "packets", kills.map { Double($0.mostOfOneFlow) }),
    ]
    return all.compactMap { name, unit, values in
      let sorted = values.compactMap { $0 }.sorted()
      guard let greatest = sorted.last else { return nil }
      func percentile(_ share: Double) -> Double { sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))] }
      return (name, unit, percentile(0.5), percentile(0.99), greatest)
    }
  }

  public var text: String {
    func number(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }
    var lines = ["\(kills.count) deaths, \(flows) flows, \(rate) packets/s: p50, p99, greatest"]
    for figure in figures {
      lines.append("  \(figure.name): \(number(figure.p50)), \(number(figure.p99)), \(number(figure.max)) \(figure.unit)")
    }
    lines.append("  dropped: " + dropped.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", "))
    return lines.joined(separator: "\n")
  }
}
