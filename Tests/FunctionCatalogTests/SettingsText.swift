import ControlMessages

/// The part of YAML that these tests write: block maps and lists, `{...}`, `[...]`, plain scalars and some in double quotes. Lines are numbered.
///
/// Not for configuration files: it stops the test at what it does not understand.
extension Settings {
  init(text: String) {
    var reader = SettingsText(text)
    self = reader.block(indentation: reader.lines.first?.indentation ?? 0)
    precondition(reader.lines.isEmpty, "all of the text is understood")
  }
}

private struct SettingsText {
  var lines: [(number: Int, indentation: Int, text: Substring)] = []

  init(_ text: String) {
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      let content = line.split(separator: "#", omittingEmptySubsequences: false)[0].drop { $0 == " " }
      guard !content.isEmpty else { continue }
      lines.append((index + 1, line.prefix { $0 == " " }.count, content))
    }
  }

  mutating func block(indentation: Int) -> Settings {
    guard let first = lines.first, first.indentation >= indentation else { return Settings(.scalar("")) }
    let depth = first.indentation
    var items: [Settings] = []
    var entries: [Settings.Entry] = []
    while let line = lines.first, line.indentation == depth {
      if line.text.hasPrefix("- ") {
        // What follows the dash is a block of its own, two columns further in.
        lines[0] = (line.number, depth + 2, line.text.dropFirst(2))
        items.append(isMapEntry(lines[0].text) ? block(indentation: depth + 2) : inline(lines.removeFirst()))
      } else {
        guard let colon = line.text.firstIndex(of: ":") else { return inline(lines.removeFirst()) }
        let rest = line.text[line.text.index(after: colon)...].drop { $0 == " " }
        lines.removeFirst()
        let value = rest.isEmpty ? block(indentation: depth + 1) : inline((line.number, 0, rest))
        entries.append(.init(String(line.text[..<colon]), Settings(value.value, line: line.number)))
      }
    }
    return Settings(items.isEmpty ? .map(entries) : .list(items), line: first.number)
  }

  /// `key: value` or `key:`, and not `10.0.0.1:80` or `{...}`.
  func isMapEntry(_ text: Substring) -> Bool {
    guard let colon = text.firstIndex(of: ":"), text.first != "{", text.first != "[" else { return false }
    let next = text.index(after: colon)
    return next == text.endIndex || text[next] == " "
  }

  func inline(_ line: (number: Int, indentation: Int, text: Substring)) -> Settings {
    var rest = line.text
    return flow(&rest, line.number)
  }

  func flow(_ text: inout Substring, _ line: Int) -> Settings {
    text = text.drop { $0 == " " }
    if text.first == "[" {
      return Settings(.list(elements(&text, end: "]") { flow(&$0, line) }), line: line)
    }
    if text.first == "{" {
      return Settings(
        .map(
          elements(&text, end: "}") { text in
            let colon = text.firstIndex(of: ":")!
            let key = String(text[..<colon].drop { $0 == " " })
            text = text[text.index(after: colon)...]
            return Settings.Entry(key, flow(&text, line))
          }), line: line)
    }
    if text.first == "\"" {
      let quoted = text.dropFirst().prefix { $0 != "\"" }
      text = text[quoted.endIndex...].dropFirst()
      return Settings(.scalar(String(quoted)), line: line)
    }
    let scalar = text.prefix { !"],}".contains($0) }
    text = text[scalar.endIndex...]
    let trailing = scalar.reversed().prefix { $0 == " " }.count
    return Settings(.scalar(String(scalar.dropLast(trailing))), line: line)
  }

  func elements<Element>(_ text: inout Substring, end: Character, _ element: (inout Substring) -> Element) -> [Element] {
    var result: [Element] = []
    repeat {
      text = text.dropFirst().drop { $0 == " " }
      if text.first == end { break }
      result.append(element(&text))
      text = text.drop { $0 == " " }
    } while text.first == ","
    precondition(text.first == end, "a list that is opened is closed")
    text = text.dropFirst()
    return result
  }
}
