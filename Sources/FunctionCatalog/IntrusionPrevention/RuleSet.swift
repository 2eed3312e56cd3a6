/// The rules of one or several files, as far as they are understood, and a report of those that are not.
///
///     let rules = RuleSet(file: "local.rules", text: bytes)
///     for refused in rules.report.refused { print(refused) }
///
/// A rule is loaded as a whole or not at all. Reading takes time in proportion to the text and never fails.
public struct RuleSet: Sendable {
  /// In the order they are judged in: pass, drop, alert; makers of flowbits before those who ask for them; urgent ones first.
  let rules: [Rule]
  public let report: RuleSetReport

  public init(file: String = "rules", text: [UInt8], variables: RuleVariables = RuleVariables()) {
    self.init(files: [(file, text)], variables: variables)
  }

  public init(file: String = "rules", text: String, variables: RuleVariables = RuleVariables()) {
    self.init(file: file, text: Array(text.utf8), variables: variables)
  }

  public init(files: [(name: String, text: [UInt8])], variables: RuleVariables = RuleVariables()) {
    var parser = RuleParser(variables: variables)
    var rules: [Rule] = []
    var report = RuleSetReport()
    var places: [UInt64: String] = [:]
    for (file, text) in files {
      for (line, text) in RuleText.lines(of: text) {
        do throws(RuleRefusal) {
          let rule = try parser.parse(text, number: line)
          let identity = UInt64(rule.gid) << 32 | UInt64(rule.sid)
          if let other = places[identity] { throw RuleRefusal("sid is taken", "sid \(rule.sid) is already that of \(other)") }
          guard rules.count < Self.capacity else { throw RuleRefusal("too many rules", "more than \(Self.capacity) rules") }
          places[identity] = "\(file):\(line)"
          rules.append(rule)
        } catch {
          report.refused.append(RefusedRule(file: file, line: line, reason: error.reason, detail: error.detail))
        }
      }
    }
    report.loaded = rules.count
    report.ignoredKeywords = parser.ignored
    self.rules = rules.enumerated().sorted { Self.order($0) < Self.order($1) }.map(\.element)
    self.report = report
  }

  /// What the loaded rules call themselves: alerts have numbers only.
  public var signatures: [RuleSignature] {
    rules.map { RuleSignature(gid: $0.gid, sid: $0.sid, revision: $0.revision, message: $0.message) }
  }

  /// A match has 24 bits for its number.
  static let capacity = 1 << 20

  private static func order(_ rule: (offset: Int, element: Rule)) -> (UInt8, Int, UInt8, Int) {
    let bits = rule.element.flowbits
    let rank = bits.changes ? (bits.asks ? 1 : 0) : (bits.asks ? 2 : 3)
    return (rule.element.action.rawValue, rank, rule.element.priority, rule.offset)
  }
}

/// A rule as people know it.
public struct RuleSignature: Hashable, Sendable {
  public let gid: UInt32
  public let sid: UInt32
  public let revision: UInt32
  public let message: String
}

/// What became of the rules of a text.
public struct RuleSetReport: Sendable {
  public var loaded = 0
  /// In the order they stand.
  public var refused: [RefusedRule] = []
  /// Keywords without effect here, and how many loaded rules have them.
  public var ignoredKeywords: [String: Int] = [:]

  public init() {}

  /// Refused rules by reason, most frequent first.
  public var refusedByReason: [(reason: String, count: Int)] {
    Dictionary(refused.map { ($0.reason, 1) }, uniquingKeysWith: +).map { (reason: $0.key, count: $0.value) }
      .sorted { ($1.count, $0.reason) < ($0.count, $1.reason) }
  }
}

/// A rule that is not loaded.
public struct RefusedRule: Hashable, Sendable, CustomStringConvertible {
  public let file: String
  /// From 1; the first line of a rule that goes over several.
  public let line: Int
  /// The same for all that are refused alike: `keyword 'pcre'`.
  public let reason: String
  public let detail: String

  public var description: String { "\(file):\(line): \(detail)" }
}
