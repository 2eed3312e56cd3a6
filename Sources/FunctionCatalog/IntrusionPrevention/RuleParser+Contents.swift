// `content` and the keywords that say where it has to be.

extension RuleParser {
  /// `content:"GET |2f|x";`, `content:!"…";`
  func readContent(_ value: ArraySlice<UInt8>, in buffer: Rule.Buffer, _ rule: inout Rule) throws(RuleRefusal) {
    var value = value
    var content = Rule.Content(bytes: [])
    content.buffer = buffer
    if value.first == UInt8(ascii: "!") {
      content.isNegated = true
      value = RuleText.trimmed(value.dropFirst())
    }
    guard value.count >= 2, value.first == UInt8(ascii: "\""), value.last == UInt8(ascii: "\"") else {
      throw RuleRefusal("syntax", "a content is not in quotes, or something follows its quotes")
    }
    content.bytes = try contentBytes(value.dropFirst().dropLast())
    guard (1...PatternAutomaton.longestPattern).contains(content.bytes.count) else {
      throw RuleRefusal("syntax", "a content of \(content.bytes.count) bytes; 1 to 255 are possible")
    }
    rule.contents.append(content)
  }

  /// Text with bytes in hexadecimal between bars; `"`, `;`, `:` and `\` are escaped with a backslash.
  private func contentBytes(_ text: ArraySlice<UInt8>) throws(RuleRefusal) -> [UInt8] {
    var bytes: [UInt8] = []
    var isHexadecimal = false
    var isEscaped = false
    var high: UInt8?
    for byte in text {
      if isHexadecimal {
        if byte == UInt8(ascii: "|") {
          guard high == nil else { throw RuleRefusal("syntax", "an odd number of hexadecimal digits in a content") }
          isHexadecimal = false
        } else if !RuleText.isSpace(byte) {
          guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
            throw RuleRefusal("syntax", "between bars in a content are other bytes than hexadecimal digits")
          }
          if let first = high { bytes.append(first << 4 | UInt8(digit)) }
          high = high == nil ? UInt8(digit) : nil
        }
      } else if isEscaped {
        guard "\\\";:|".utf8.contains(byte) else { throw RuleRefusal("syntax", "an unknown escape in a content") }
        bytes.append(byte)
        isEscaped = false
      } else if byte == UInt8(ascii: "\\") {
        isEscaped = true
      } else if byte == UInt8(ascii: "|") {
        isHexadecimal = true
      } else if byte == UInt8(ascii: "\"") {
        throw RuleRefusal("syntax", "a quote inside a content is not escaped")
      } else {
        bytes.append(byte)
      }
    }
    guard !isHexadecimal, !isEscaped else { throw RuleRefusal("syntax", "a content ends within bars or an escape") }
    return bytes
  }

  // MARK: Where

  /// Changes the content before the keyword.
  func modify(_ keyword: String, _ rule: inout Rule, _ change: (inout Rule.Content) throws(RuleRefusal) -> Void)
    throws(RuleRefusal)
  {
    // The size of the buffer may be said in between.
    guard let last = rule.contents.indices.last(where: { rule.contents[$0].size == nil }), !rule.contents[last].bytes.isEmpty else {
      throw RuleRefusal("syntax", "\(keyword) without a content before it")
    }
    try change(&rule.contents[last])
    let content = rule.contents[last]
    guard !(content.isRelative && content.isAnchored) else {
      throw RuleRefusal("syntax", "distance or within together with offset, depth or startswith on one content")
    }
    for (name, room) in [("depth", content.depth), ("within", content.within)] {
      guard let room else { continue }
      guard room >= content.bytes.count else { throw RuleRefusal("syntax", "\(name) \(room) is less than its content has bytes") }
    }
  }

  func place(_ option: RuleText.Option, _ range: ClosedRange<Int>) throws(RuleRefusal) -> Int {
    guard let number = Int(option.text), range.contains(number) else {
      throw RuleRefusal(
        "syntax", "'\(option.text)' is no number that \(option.keyword) can have; variables of byte_extract are not known")
    }
    return number
  }

  /// `isdataat:10`, `isdataat:!1,relative`.
  func readDataAt(_ option: RuleText.Option, _ rule: inout Rule) throws(RuleRefusal) {
    var parts = option.text.split(separator: ",", omittingEmptySubsequences: false).map { $0.trimmed }
    var condition = Rule.Content(bytes: [])
    condition.buffer = buffer
    if parts[0].first == "!" {
      condition.isNegated = true
      parts[0] = parts[0].dropFirst().trimmed
    }
    guard let number = Int(parts[0]), (0...65_535).contains(number) else {
      throw RuleRefusal("syntax", "'\(option.text)' is not a distance for isdataat")
    }
    condition.dataAt = number
    for part in parts.dropFirst() {
      switch part {
      case "relative":
        condition.isRelativeDataAt = true
        condition.buffer = rule.contents.last?.buffer ?? buffer
      case "rawbytes": break
      default: throw RuleRefusal("syntax", "isdataat knows no '\(part)'")
      }
    }
    rule.contents.append(condition)
  }
}
