/// When a cluster gets more runtimes and when fewer: a kind and its numbers, put in force by a record of the log.
///
/// The core keeps the offset of that record as the policy's version, and names it in every command that follows.
/// Nothing here is a fraction: shares are parts per million, times milliseconds.
public struct ScalingPolicy: Hashable, Sendable {
  public enum Kind: Hashable, Sendable {
    /// The counts are the operator's.
    case manual
    case dropThreshold(DropThreshold)
    case targetUtilisation(TargetUtilisation)
  }

  /// The paper's (III-D): a runtime that loses packets has too much to do.
  public struct DropThreshold: Hashable, Sendable {
    /// More drops than this in one workload interval are an overload.
    public var drops: UInt64 = 100
    /// Drop reasons that count; none: all. A firewall's drops say nothing about load, the port's do.
    public var reasons: [String] = ["missed-by-port"]
    /// If the others would be busy for less than this after one runtime has gone, one goes. Parts per million.
    public var idleBusyShare: UInt32 = 300_000

    public init() {}
  }

  /// Keeps the runtimes' mean busy share near a target.
  public struct TargetUtilisation: Hashable, Sendable {
    /// Parts per million.
    public var busyShare: UInt32 = 600_000
    /// Nothing happens within this distance of the target: hysteresis. Parts per million.
    public var tolerance: UInt32 = 100_000

    public init() {}
  }

  public var kind: Kind
  public var minimumRuntimes: UInt32 = 1
  public var maximumRuntimes: UInt32 = ClusterSpec.maximumRuntimes
  /// Least time between two actions.
  public var cooldown: UInt64 = 5_000
  /// How long an overload, and how long idleness has to last before something is done.
  public var overloadPatience: UInt64 = 750
  public var idlePatience: UInt64 = 5_000
  /// Flows that one migration command moves (the paper: 500), and how many moves may be under way.
  public var flowsPerMove: UInt32 = 500
  public var concurrentMoves: UInt32 = 1
  /// A runtime that drains and still has flows after this is stopped all the same.
  public var drainTimeout: UInt64 = 300_000

  public init(_ kind: Kind) { self.kind = kind }
}

extension ScalingPolicy {
  public var name: String {
    switch kind {
    case .manual: "manual"
    case .dropThreshold: "drop-threshold"
    case .targetUtilisation: "target-utilisation"
    }
  }

  /// What is wrong with it; nil when nothing is.
  public var problem: String? {
    let most = ClusterSpec.maximumRuntimes
    if !(1...most).contains(minimumRuntimes) { return "minimum \(minimumRuntimes); it must be 1 to \(most)" }
    if !(minimumRuntimes...most).contains(maximumRuntimes) {
      return "maximum \(maximumRuntimes); it must be \(minimumRuntimes) to \(most)"
    }
    for (name, value) in [
      ("cooldown", cooldown), ("overload-patience", overloadPatience), ("idle-patience", idlePatience),
      ("drain-timeout", drainTimeout),
    ] where value > Self.longestTime { return "\(name) of \(value) ms; the most is \(Self.longestTime)" }
    if !(1...1_000_000).contains(flowsPerMove) { return "\(flowsPerMove) flows per move; it must be 1 to 1000000" }
    if !(1...most).contains(concurrentMoves) { return "\(concurrentMoves) concurrent moves; it must be 1 to \(most)" }
    switch kind {
    case .manual: return nil
    case .dropThreshold(let rule):
      if rule.idleBusyShare > 1_000_000 { return "idle-busy-share is more than the whole" }
      if rule.reasons.count > 64 { return "\(rule.reasons.count) drop reasons; the most is 64" }
      return nil
    case .targetUtilisation(let rule):
      if !(1...1_000_000).contains(rule.busyShare) { return "busy-share must be above 0% and at most 100%" }
      if rule.tolerance >= rule.busyShare { return "the tolerance reaches down to no load at all" }
      return nil
    }
  }

  static let longestTime: UInt64 = 86_400_000

  /// Reads a policy file; `docs/writing-a-policy.md` has the keys.
  public init(reader: SettingsReader) throws(SettingsError) {
    let shared = [
      "kind", "minimum", "maximum", "cooldown", "overload-patience", "idle-patience", "flows-per-move", "concurrent-moves",
      "drain-timeout",
    ]
    let kindReader = try reader.required("kind")
    switch try kindReader.string() {
    case "manual":
      try reader.allow(["kind"])
      self.init(.manual)
      return
    case "drop-threshold":
      try reader.allow(shared + ["drops", "reasons", "idle-busy-share"])
      var rule = DropThreshold()
      if let value = try reader.optional("drops") { rule.drops = UInt64(try value.integer(in: 0...1_000_000_000)) }
      if let value = try reader.optional("idle-busy-share") { rule.idleBusyShare = try value.share() }
      if let value = try reader.optional("reasons") {
        rule.reasons = []
        for item in try value.items() { rule.reasons.append(try item.string()) }
      }
      self.init(.dropThreshold(rule))
    case "target-utilisation":
      try reader.allow(shared + ["busy-share", "tolerance"])
      var rule = TargetUtilisation()
      if let value = try reader.optional("busy-share") { rule.busyShare = try value.share() }
      if let value = try reader.optional("tolerance") { rule.tolerance = try value.share() }
      self.init(.targetUtilisation(rule))
    case let other:
      throw kindReader.error("'\(other)' is no policy; there are: manual, drop-threshold, target-utilisation")
    }
    let most = Int(ClusterSpec.maximumRuntimes)
    if let value = try reader.optional("minimum") { minimumRuntimes = UInt32(try value.integer(in: 1...most)) }
    if let value = try reader.optional("maximum") { maximumRuntimes = UInt32(try value.integer(in: 1...most)) }
    let times: [(String, WritableKeyPath<Self, UInt64>)] = [
      ("cooldown", \.cooldown), ("overload-patience", \.overloadPatience), ("idle-patience", \.idlePatience),
      ("drain-timeout", \.drainTimeout),
    ]
    for (key, path) in times {
      if let value = try reader.optional(key) { self[keyPath: path] = try value.interval(in: 0...Self.longestTime) }
    }
    if let value = try reader.optional("flows-per-move") { flowsPerMove = UInt32(try value.integer(in: 1...1_000_000)) }
    if let value = try reader.optional("concurrent-moves") { concurrentMoves = UInt32(try value.integer(in: 1...most)) }
    if let problem { throw reader.error(problem) }
  }
}

extension SettingsReader {
  /// A share such as `60%`, whole percents, in parts per million.
  func share() throws(SettingsError) -> UInt32 {
    let text = try string()
    guard text.hasSuffix("%"), let percent = UInt32(text.dropLast()), percent <= 100 else {
      throw error("'\(text)' is not a share; write whole percents such as 60%")
    }
    return percent * 10_000
  }
}
