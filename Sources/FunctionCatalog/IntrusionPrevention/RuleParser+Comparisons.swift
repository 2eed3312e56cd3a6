// Numbers and bits of headers, and what rules compare them with.

extension RuleParser {
  func number(_ option: RuleText.Option) throws(RuleRefusal) -> UInt32 {
    guard let number = UInt32(option.text) else {
      throw RuleRefusal("syntax", "'\(option.text)' is not a number for \(option.keyword)")
    }
    return number
  }

  /// `10`, `!10`, `<10`, `<=10`, `>8`, `>=8`, `8<>20` (both excluded), `8-20` (both included).
  func comparison(
    _ option: RuleText.Option, _ field: Rule.FieldTest.Field, _ largest: UInt32, names: [String: UInt32] = [:]
  ) throws(RuleRefusal) -> Rule.FieldTest {
    let text = option.text
    func value(_ text: Substring) throws(RuleRefusal) -> UInt32 {
      let text = text.trimmed
      guard let number = names[text.lowercased()] ?? UInt32(text), number <= largest else {
        throw RuleRefusal("syntax", "'\(option.text)' is not what \(option.keyword) can be compared with")
      }
      return number
    }
    func within(_ low: UInt32, _ high: UInt32) throws(RuleRefusal) -> Rule.FieldTest {
      guard low <= high else { throw RuleRefusal("syntax", "\(option.keyword):\(option.text) can never hold") }
      return .init(field: field, low: low, high: high)
    }
    if let range = text.firstRange(of: "<>") {
      let (low, high) = (try value(text[..<range.lowerBound]), try value(text[range.upperBound...]))
      guard high > 0, low < .max else { throw RuleRefusal("syntax", "\(option.keyword):\(option.text) can never hold") }
      return try within(low + 1, high - 1)
    }
    if text.hasPrefix("<=") { return try within(0, try value(text.dropFirst(2))) }
    if text.hasPrefix(">=") { return try within(try value(text.dropFirst(2)), .max) }
    if text.hasPrefix("<") {
      let bound = try value(text.dropFirst())
      guard bound > 0 else { throw RuleRefusal("syntax", "\(option.keyword):\(option.text) can never hold") }
      return try within(0, bound - 1)
    }
    if text.hasPrefix(">") {
      let bound = try value(text.dropFirst())
      guard bound < .max else { throw RuleRefusal("syntax", "\(option.keyword):\(option.text) can never hold") }
      return try within(bound + 1, .max)
    }
    if text.hasPrefix("!") {
      let excluded = try value(text.dropFirst())
      return .init(field: field, comparison: .outside, low: excluded, high: excluded)
    }
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
    // '-' also stands in names of protocols.
    if ends.count == 2, ends[0].trimmed.allSatisfy(\.isNumber) { return try within(try value(ends[0]), try value(ends[1])) }
    let exact = try value(text)
    return try within(exact, exact)
  }

  /// Of the sizes, only `<`, `<=` and `0` speak of packets without payload (as in Suricata).
  func readPayloadSize(_ option: RuleText.Option, _ rule: inout Rule) throws(RuleRefusal) {
    var test = try comparison(option, .payloadLength, 65_535)
    rule.tests.append(test)
    guard !option.text.hasPrefix("<"), test.low != 0 || test.comparison == .outside || test.high != 0 else { return }
    test = .init(field: .payloadLength, low: 1, high: .max)
    rule.tests.append(test)
  }

  /// `SA`, `!S`, `+A`, `*SF`, `S,12`: exactly these bits; not all of them; these and maybe others; any; but for 1 and 2.
  func bits(
    _ option: RuleText.Option, _ field: Rule.FieldTest.Field, letters: [Character: UInt32]
  ) throws(RuleRefusal) -> Rule.FieldTest {
    let parts = option.text.split(separator: ",", omittingEmptySubsequences: false).map { $0.trimmed }
    var test = Rule.FieldTest(field: field, comparison: .bitsEqual, low: 0, high: 255)
    var hasModifier = false
    func bit(_ letter: Character) throws(RuleRefusal) -> UInt32 {
      guard let bit = letters[letter] else { throw RuleRefusal("syntax", "\(option.keyword) knows no '\(letter)'") }
      return bit
    }
    for letter in parts[0] {
      let modifiers: [Character: Rule.FieldTest.Comparison] = ["!": .bitsNotAll, "+": .bitsAll, "*": .bitsAny]
      if let comparison = modifiers[letter] {
        guard !hasModifier else { throw RuleRefusal("syntax", "\(option.keyword) with two of !, + and *") }
        (test.comparison, hasModifier) = (comparison, true)
      } else {
        test.low |= try bit(letter)
      }
    }
    guard parts.count <= 2, !parts[0].isEmpty else {
      throw RuleRefusal("syntax", "\(option.keyword):\(option.text) is not understood")
    }
    for letter in parts.dropFirst().joined() { test.high &= ~(try bit(letter)) }
    guard test.low & ~test.high == 0 else { throw RuleRefusal("syntax", "\(option.keyword) asks for a bit and ignores it") }
    return test
  }
}
