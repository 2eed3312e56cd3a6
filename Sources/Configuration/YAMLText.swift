/// What is refused before a YAML parser sees it, because the parser would be hurt by it or say it badly.
///
/// These checks look at characters, not at YAML: inside a quoted text or a comment they refuse a little more than
/// they need to, and every message says what to write instead.
struct YAMLText {
  private let text: String
  private let file: String

  /// Yams compares the keys of a map by all that their aliases stand for, which doubles with every alias of an
  /// alias. With this few, the product stays small, and the first anchor is refused once its line is known.
  static let toleratedAliases = 8

  init(_ text: String, file: String) {
    self.text = text
    self.file = file
  }

  func check() throws(ConfigurationError) {
    var line = 1
    var isIndentation = true
    var hasTab = false
    var aliases = 0
    var previous: Unicode.Scalar = "\n"
    var isAfterStar = false
    for scalar in text.unicodeScalars {
      func refuse(_ message: String) -> ConfigurationError { ConfigurationError(file: file, line: line, message: message) }
      if isAfterStar, Self.canNameAnchor(scalar) {
        aliases += 1
        guard aliases <= Self.toleratedAliases else {
          throw refuse("aliases (*) are not read; write the value out, and put a space behind a '*' in a comment")
        }
      }
      isAfterStar = scalar == "*" && Self.canPrecedeAlias(previous)
      switch scalar {
      case "\n":
        line += 1
        isIndentation = true
        hasTab = false
      case "\t":
        if isIndentation { hasTab = true }
      case " ", "\r":
        break
      default:
        guard !hasTab else { throw refuse("a tab in the indentation; YAML is indented with spaces") }
        isIndentation = false
        guard !Self.isControl(scalar) else {
          throw refuse("the character U+\(String(scalar.value, radix: 16, uppercase: true)) cannot be part of a configuration")
        }
      }
      previous = scalar
    }
  }

  private static func canPrecedeAlias(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "\n", "\r", " ", "\t", ",", "[", "{", ":", "?", "-", "\u{85}", "\u{2028}", "\u{2029}", "\u{feff}", "\"", "'", "}", "]":
      true
    default: false
    }
  }

  private static func canNameAnchor(_ scalar: Unicode.Scalar) -> Bool {
    scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == "_" || scalar == "-")
  }

  /// What YAML does not allow in a file. Line breaks and tabs were looked at before.
  private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7f..<0xa0, 0xfeff, 0xfffe, 0xffff: scalar.value != 0x85
    default: false
    }
  }
}
