import ControlMessages
import Testing

@testable import Configuration

/// YAML is where people's files come in: each mistake has to name its line and say what to do.
@Suite struct ConfigurationYAMLTests {
  struct Mistake: Sendable, CustomTestStringConvertible {
    let text: String
    let complaint: String
    init(_ text: String, _ complaint: String) {
      self.text = text
      self.complaint = complaint
    }
    var testDescription: String { complaint }
  }

  static let mistakes: [Mistake] = [
    Mistake("", "f.yaml: the file holds no settings"),
    Mistake("# only a comment\n", "f.yaml: the file holds no settings"),
    Mistake("a: 1\nb: 2\na: 3\n", "f.yaml:1: the key 'a' is written twice, first here"),
    Mistake("a:\n  x: 1\n  \"x\": 2\n", "f.yaml:2: the key 'x' is written twice, first here"),
    Mistake("a: 1\n\tb: 2\n", "f.yaml:2: a tab in the indentation; YAML is indented with spaces"),
    Mistake("a: 1\n---\nb: 2\n", "f.yaml:2: a second document begins here; one file holds one"),
    Mistake("a: &x 1\nb: 2\n", "f.yaml:1: a: anchors (&) and aliases (*) are not read; write the value out"),
    Mistake("a: 1\nb: *x\n", "f.yaml:2: anchors (&) and aliases (*) are not read; write the value out"),
    Mistake("a: 1\n[b, c]: 2\n", "f.yaml:2: a key is a plain word, such as 'name: value'"),
    Mistake("? {b: c}\n: 2\n", "f.yaml:1: a key is a plain word, such as 'name: value'"),
    Mistake(": 2\n", "f.yaml:1: not YAML: did not find expected key while parsing a block mapping"),
    Mistake("\"\": 2\n", "f.yaml:1: a key is a plain word, such as 'name: value'"),
    Mistake("a:\n  - b\n  - !!binary aGk=\n", "f.yaml:3: a[1]: tags (!) are not read; quote a text that begins with '!'"),
    Mistake("a: !thing {b: 1}\n", "f.yaml:1: a: tags (!) are not read"),
    Mistake(
      "a: [1, 2\nb: 3\n",
      "f.yaml:2: not YAML: did not find expected ',' or ']' while parsing a flow sequence that begins in line 1"),
    Mistake(
      "a: 'text\n", "f.yaml:1: not YAML: found unexpected end of stream while scanning a quoted scalar"),
    Mistake("a: b: c\n", "f.yaml:1: not YAML: mapping values are not allowed in this context"),
    Mistake("a: 1\nb: \u{7}\n", "f.yaml:2: the character U+7 cannot be part of a configuration"),
    Mistake("a: \u{fffe}\n", "f.yaml:1: the character U+FFFE cannot be part of a configuration"),
    Mistake("%YAML 7.0\n---\na: 1\n", "f.yaml:1: not YAML: found incompatible YAML document"),
    Mistake("a: @b\n", "f.yaml:1: not YAML: found character that cannot start any token while scanning for the next token"),
  ]

  @Test(arguments: mistakes) func `a mistake is refused with its line and a sentence`(_ mistake: Mistake) {
    let error = #expect(throws: ConfigurationError.self) { try YAMLFile.settings(text: mistake.text, name: "f.yaml") }
    #expect(error?.description == mistake.complaint)
  }

  @Test func `values keep their text and their line`() throws {
    let text = """
      # a comment
      name: web
      list:
        - one
        - "two: 2"   # quoted
      empty:
      yes: 0x10
      text: |
        a
        b
      """
    let settings = try YAMLFile.settings(text: text, name: "f.yaml")
    #expect(
      settings
        == Settings(
          .map([
            .init("name", Settings(.scalar("web"), line: 2)),
            .init("list", Settings(.list([Settings(.scalar("one"), line: 4), Settings(.scalar("two: 2"), line: 5)]), line: 3)),
            .init("empty", Settings(.scalar(""), line: 6)),
            .init("yes", Settings(.scalar("0x10"), line: 7)),
            .init("text", Settings(.scalar("a\nb"), line: 8)),
          ]), line: 2))
  }

  @Test(arguments: ["\r\n", "\n"]) func `line numbers do not depend on the kind of line end`(_ end: String) throws {
    let settings = try YAMLFile.settings(text: ["---", "a: 1", "", "b: 2", ""].joined(separator: end), name: "f.yaml")
    #expect(try SettingsReader(settings).required("b").settings == Settings(.scalar("2"), line: 4))
  }

  /// Short texts are stored inside a Swift string, where a parser must not point at them.
  @Test func `texts of every length are read`() throws {
    for length in 1...64 {
      let word = String(repeating: "x", count: length)
      #expect(try YAMLFile.settings(text: word, name: "f.yaml") == Settings(.scalar(word), line: 1))
    }
  }

  // MARK: Bounds

  @Test func `a bomb of aliases is refused before it is expanded`() {
    var text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for level in 1...30 {
      let aliases = repeatElement("*a\(level - 1)", count: 9).joined(separator: ", ")
      text += "a\(level): &a\(level) [\(aliases)]\n"
    }
    text += "? *a30\n: 1\n? *a30\n: 2\n"
    let error = #expect(throws: ConfigurationError.self) { try YAMLFile.settings(text: text, name: "f.yaml") }
    #expect(error?.line == 2)
    #expect(error?.message.hasPrefix("aliases (*) are not read") == true)
  }

  @Test func `the few aliases that are tolerated cannot become many`() {
    // The worst that passes the first check: every alias doubles a key, which is compared in full.
    let wide = repeatElement("x", count: 30_000).joined(separator: ",")
    let text = """
      ? &a [\(wide)]
      : 1
      ? &b [*a, *a]
      : 1
      ? &c [*b, *b]
      : 1
      ? [*c, *c]
      : 1
      ? [*c, *c]
      : 2
      """
    #expect(throws: ConfigurationError.self) { try YAMLFile.settings(text: text, name: "f.yaml") }
  }

  @Test(arguments: [32, 500, 900, 5_000, 100_000]) func `depth is bounded`(_ depth: Int) {
    let text = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    #expect(throws: ConfigurationError.self) { try YAMLFile.settings(text: text, name: "f.yaml") }
    let block = (0..<min(depth, 600)).map { String(repeating: " ", count: $0) + "a:\n" }.joined()
    #expect(throws: ConfigurationError.self) { try YAMLFile.settings(text: block, name: "f.yaml") }
  }

  @Test func `depth up to the bound is read`() throws {
    let depth = YAMLFile.maximumDepth
    let text = String(repeating: "[", count: depth) + "x" + String(repeating: "]", count: depth)
    _ = try YAMLFile.settings(text: text, name: "f.yaml")
  }

  @Test func `size and number of values are bounded`() {
    let many = "[" + repeatElement("1", count: YAMLFile.maximumValues).joined(separator: ",") + "]"
    let error = #expect(throws: ConfigurationError.self) { try YAMLFile.settings(text: many, name: "f.yaml") }
    #expect(error?.message == "more than 32768 values")
    let long = "a: " + String(repeating: "x", count: YAMLFile.maximumBytes)
    let other = #expect(throws: ConfigurationError.self) { try YAMLFile.settings(text: long, name: "f.yaml") }
    #expect(other?.description == "f.yaml: 524291 bytes; a configuration has at most 524288")
  }

  // MARK: Chance

  /// Damaged and invented texts: each is read or refused, and what is read keeps the bounds.
  @Test(arguments: [UInt64(1), 2, 3]) func `no text makes it fail otherwise than by a sentence`(_ seed: UInt64) {
    var random = RandomNumbers(seed: seed)
    let pieces: [String] = [
      "a", "b", "key", "1", ": ", ":", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ",", "\"", "'", "|", ">", "&a ", "*a",
      "!!str ",
      "!t ", "? ", "# c", "---\n", "...\n", "%", "@", "`", "\t", "\r\n", "\\", "\u{e9}", "\u{1f600}", "\u{0}", "\u{2028}",
      "\u{feff}", "<<", "~",
    ]
    var read = 0
    for _ in 0..<3_000 {
      let text = (0..<random.next(upperBound: UInt64(40))).map { _ in pieces[Int(random.next(upperBound: UInt64(pieces.count)))] }
        .joined()
      do throws(ConfigurationError) {
        let settings = try YAMLFile.settings(text: text, name: "f.yaml")
        #expect(depth(settings) <= YAMLFile.maximumDepth)
        read += 1
      } catch {
        #expect(error.description.hasPrefix("f.yaml:"), "seed \(seed): \(text.debugDescription)")
        #expect(!error.message.isEmpty && !error.message.contains("\n"), "seed \(seed): \(text.debugDescription)")
      }
    }
    #expect(read > 50, "the pieces make too few good files to try anything")
  }

  private func depth(_ settings: Settings) -> Int {
    switch settings.value {
    case .scalar: 0
    case .list(let items): 1 + (items.map(depth).max() ?? 0)
    case .map(let entries): 1 + (entries.map { depth($0.value) }.max() ?? 0)
    }
  }
}
