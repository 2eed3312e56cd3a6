// The outer form of rules: lines, header, options. What they mean is read in RuleParser and RuleOptions.

/// Why a rule is not loaded.
struct RuleRefusal: Error, Hashable {
  /// The same for all rules refused alike: `keyword 'pcre'`.
  let reason: String
  let detail: String

  init(_ reason: String, _ detail: String) {
    self.reason = reason
    self.detail = detail
  }
}

/// One rule's line, cut into the parts of its header and its options.
///
///     alert tcp $EXTERNAL_NET any -> $HOME_NET 21 (msg:"…"; content:"USER "; depth:5; sid:2010642;)
struct RuleText {
  struct Option {
    let keyword: String
    /// Behind the colon, without spaces around it; bytes, because contents may hold any.
    let value: ArraySlice<UInt8>

    /// For people and for numbers; bytes that are no text are replaced.
    var text: Substring { String(decoding: value, as: UTF8.self)[...].trimmed }
  }

  var header: [String] = []
  var options: [Option] = []

  init(_ line: ArraySlice<UInt8>) throws(RuleRefusal) {
    guard line.count <= 65_536 else { throw RuleRefusal("syntax", "a rule longer than 65536 bytes") }
    guard let open = line.firstIndex(of: UInt8(ascii: "(")) else { throw RuleRefusal("syntax", "there is no '(' before options") }
    guard let close = line.lastIndex(of: UInt8(ascii: ")")), close > open, line[(close + 1)...].allSatisfy(Self.isSpace) else {
      throw RuleRefusal("syntax", "the options do not end with ')'")
    }
    header = Self.words(line[..<open])
    guard header.count == 7 else {
      throw RuleRefusal("syntax", "the header is not 'action protocol address port -> address port'")
    }
    try readOptions(line[(open + 1)..<close])
  }

  /// Lines of a rule file that may hold a rule, numbered from 1. A backslash at its end joins a line with the next; a
  /// comment ends with its line.
  static func lines(of file: [UInt8]) -> [(number: Int, text: ArraySlice<UInt8>)] {
    var lines: [(number: Int, text: ArraySlice<UInt8>)] = []
    var joined: [UInt8] = []
    var start: Int?
    for (index, part) in file.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      let text = trimmed(part)
      if start == nil, text.isEmpty || text.first == UInt8(ascii: "#") { continue }
      let goesOn = text.last == UInt8(ascii: "\\")
      if start == nil, !goesOn {
        lines.append((index + 1, text))
        continue
      }
      start = start ?? index + 1
      // Spaces between words of two lines count; those at the ends of a line are gone.
      joined += (goesOn ? text.dropLast() : text) + [UInt8(ascii: " ")]
      if goesOn { continue }
      lines.append((start ?? 0, trimmed(joined[...])))
      (start, joined) = (nil, [])
    }
    if let start { lines.append((start, trimmed(joined[...]))) }
    return lines
  }

  // MARK: Parts

  /// Words between spaces; brackets keep theirs together. Direction and action are words, too.
  private static func words(_ text: ArraySlice<UInt8>) -> [String] {
    var words: [String] = []
    var word: [UInt8] = []
    var depth = 0
    for byte in text {
      if byte == UInt8(ascii: "[") { depth += 1 }
      if byte == UInt8(ascii: "]") { depth -= 1 }
      if !isSpace(byte) {
        word.append(byte)
      } else if depth <= 0, !word.isEmpty {
        words.append(String(decoding: word, as: UTF8.self))
        word = []
      }
    }
    if !word.isEmpty { words.append(String(decoding: word, as: UTF8.self)) }
    return words
  }

  /// Options end with a semicolon; one that belongs to a value is written `\;`.
  private mutating func readOptions(_ text: ArraySlice<UInt8>) throws(RuleRefusal) {
    var start = text.startIndex
    var isEscaped = false
    for index in text.indices {
      if isEscaped {
        isEscaped = false
      } else if text[index] == UInt8(ascii: "\\") {
        isEscaped = true
      } else if text[index] == UInt8(ascii: ";") {
        try readOption(Self.trimmed(text[start..<index]))
        start = index + 1
      }
    }
    guard text[start...].allSatisfy(Self.isSpace) else { throw RuleRefusal("syntax", "the last option does not end with ';'") }
  }

  private mutating func readOption(_ text: ArraySlice<UInt8>) throws(RuleRefusal) {
    guard !text.isEmpty else { return }
    guard options.count < 256 else { throw RuleRefusal("syntax", "more than 256 options") }
    let colon = text.firstIndex(of: UInt8(ascii: ":"))
    let keyword = Self.trimmed(text[..<(colon ?? text.endIndex)])
    let value = colon.map { Self.trimmed(text[($0 + 1)...]) } ?? []
    options.append(Option(keyword: String(decoding: keyword, as: UTF8.self), value: value))
  }

  static func isSpace(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 || byte == 13 }

  static func trimmed(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    var text = text.drop(while: isSpace)
    while let last = text.last, isSpace(last) { text = text.dropLast() }
    return text
  }
}
