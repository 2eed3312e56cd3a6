import ControlMessages
import NetworkFunctions

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
    try reader.allow(["rules", "refused", "mode", "out-of-order", "variables", "alerts", "thresholds", "stream-memory"])
    var options = Options()
    if let mode = try reader.optional("mode") { options.prevents = try mode.choice(["prevent": true, "detect": false]) }
    if let order = try reader.optional("out-of-order") {
      options.dropsOutOfOrder = try order.choice(["scan": false, "drop": true])
    }
    if let alerts = try reader.optional("alerts") { options.alertCapacity = try alerts.integer(in: 1...1_000_000) }
    if let thresholds = try reader.optional("thresholds") {
      options.thresholdCapacity = try thresholds.integer(in: 4...4_000_000)
    }
    if let memory = try reader.optional("stream-memory") {
      options.streamMemory = try memory.choice(["0": 0, "512": 512, "2048": 2_048, "8192": 8_192])
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
    guard streamMemory > 0 || !program.speaksOfHTTP else {
      throw reader.error("rules look into HTTP messages: that needs a 'stream-memory'")
    }
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

/// Something to be done with a network function of whatever type.
protocol FunctionUse {
  associatedtype Result
  func use(_ function: some NetworkFunction) -> Result
}

extension IntrusionPrevention {
  /// Uses the network function that keeps as much of a flow's streams as the settings say.
  func withMemory<Use: FunctionUse>(_ body: Use) -> Use.Result {
    switch streamMemory {
    case 0: body.use(self)
    case 512: body.use(StreamInspection<512>(self))
    case 2_048: body.use(StreamInspection<2_048>(self))
    default: body.use(StreamInspection<8_192>(self))
    }
  }
}
