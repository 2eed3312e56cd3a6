import ControlMessages

extension IntrusionPrevention {
  /// Rules in code, for tests and benchmarks: all of them have to be understood.
  ///
  /// - Parameter rules: lines as in a rule file; the first that is refused stops the program with its reason.
  public init(rules text: String, options: Options = Options()) {
    let rules = RuleSet(text: text)
    precondition(rules.report.refused.isEmpty, rules.report.refused.map(\.description).joined(separator: "\n"))
    self.init(rules, options: options)
  }

  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["rules", "refused", "mode", "out-of-order", "variables", "alerts", "thresholds"])
    var options = Options()
    if let mode = try reader.optional("mode") { options.prevents = try mode.choice(["prevent": true, "detect": false]) }
    if let order = try reader.optional("out-of-order") {
      options.dropsOutOfOrder = try order.choice(["scan": false, "drop": true])
    }
    if let alerts = try reader.optional("alerts") { options.alertCapacity = try alerts.integer(in: 1...1_000_000) }
    if let thresholds = try reader.optional("thresholds") {
      options.thresholdCapacity = try thresholds.integer(in: 4...4_000_000)
    }
    var skipsRefused = false
    if let refused = try reader.optional("refused") { skipsRefused = try refused.choice(["stop": false, "skip": true]) }

    let rules = try Self.rules(try reader.required("rules"), variables: try Self.variables(reader.optional("variables")))
    if let first = rules.report.refused.first, !skipsRefused {
      throw SettingsError(
        path: reader.path + ".rules", line: first.line,
        message:
          "\(first.detail) (and \(rules.report.refused.count - 1) more rules are refused; 'refused: skip' goes on without them)")
    }
    self.init(rules, options: options)
  }

  /// A block of text (`rules: |`), or a list of rules.
  private static func rules(_ reader: SettingsReader, variables: RuleVariables) throws(SettingsError) -> RuleSet {
    guard case .list = reader.settings.value else {
      // The text begins on the line after its key.
      let text = Array(repeating: UInt8(ascii: "\n"), count: reader.settings.line) + Array(try reader.string().utf8)
      return RuleSet(text: text, variables: variables)
    }
    var files: [(name: String, text: [UInt8])] = []
    for item in try reader.items() {
      files.append(
        ("rules", Array(repeating: UInt8(ascii: "\n"), count: max(0, item.settings.line - 1)) + Array(try item.string().utf8)))
    }
    return RuleSet(files: files, variables: variables)
  }

  private static func variables(_ reader: SettingsReader?) throws(SettingsError) -> RuleVariables {
    var values: [String: String] = [:]
    for (name, value) in try reader?.entries() ?? [] {
      values[name] = try value.string()
    }
    return RuleVariables(values)
  }
}
