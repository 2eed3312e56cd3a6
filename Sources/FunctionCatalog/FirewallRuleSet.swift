import ControlMessages
import Wire

/// An ordered list of rules with what holds when none matches, compiled: a value that replaces another between
/// two bursts (`Firewall.replaceRules`).
///
/// Made on a control thread, since compiling takes its time; asked by the worker.
public struct FirewallRuleSet: Sendable {
  public let rules: [FirewallRule]
  public let otherwise: FirewallRule.Action
  private let classifier: RuleClassifier

  public init(rules: [FirewallRule], otherwise: FirewallRule.Action) {
    self.rules = rules
    self.otherwise = otherwise
    classifier = .linearScan(rules)
  }

  public init(
    rules: [FirewallRule], otherwise: FirewallRule.Action, compiler: RuleClassifier.Compiler
  ) throws(RuleCompilationError) {
    self.rules = rules
    self.otherwise = otherwise
    classifier = try compiler(rules)
  }

  /// Whether there is a rule that lets the server side open flows.
  public var admitsFromServerSide: Bool { rules.contains { $0.action == .allow && $0.direction != .forward } }

  public struct Decision: Hashable, Sendable {
    public let action: FirewallRule.Action
    /// Position of the rule; `nil` for the default.
    public let rule: Int?
    public let isLogged: Bool
  }

  public func decision(for key: ClassificationKey) -> Decision {
    guard let index = classifier.firstMatch(key) else { return Decision(action: otherwise, rule: nil, isLogged: false) }
    return Decision(action: rules[index].action, rule: index, isLogged: rules[index].isLogged)
  }
}

extension FirewallRuleSet {
  /// Reads `default` and `rules`.
  public init(reader: SettingsReader, compiler: RuleClassifier.Compiler) throws(SettingsError) {
    var rules: [FirewallRule] = []
    let list = try reader.optional("rules")
    for item in try list?.items() ?? [] { rules.append(try FirewallRule(reader: item)) }
    guard rules.count <= 65_536 else { throw reader.error("at most 65536 rules, not \(rules.count)") }
    let otherwise: FirewallRule.Action =
      try reader.optional("default")?.choice(["allow": .allow, "deny": .deny]) ?? .deny
    do throws(RuleCompilationError) {
      try self.init(rules: rules, otherwise: otherwise, compiler: compiler)
    } catch {
      throw (list ?? reader).error(error.description)
    }
  }
}
