/// A configuration value as somebody wrote it, with the line it was written on.
///
/// YAML becomes `Settings` at the edge (`Configuration`); a network function reads its own part of
/// it without knowing YAML, and every complaint can name the line and the path of what is wrong.
/// The same tree travels inside launch commands, so that a chain can be made of functions that the
/// control plane has never heard of.
public struct Settings: Hashable, Sendable {
  public indirect enum Value: Hashable, Sendable {
    case scalar(String)
    case list([Settings])
    /// In the order written. Keys are unique: the reader that makes the tree refuses doubles.
    case map([Entry])
  }

  public struct Entry: Hashable, Sendable {
    public let key: String
    public let value: Settings

    public init(_ key: String, _ value: Settings) {
      self.key = key
      self.value = value
    }
  }

  public var value: Value
  /// Line in its file, from 1; 0 when it was not read from a file.
  public var line: Int

  public init(_ value: Value, line: Int = 0) {
    self.value = value
    self.line = line
  }
}

extension Settings {
  /// Forgets where it was written, so that it equals what says the same elsewhere.
  public mutating func removeLines() {
    line = 0
    switch value {
    case .scalar: break
    case .list(var items):
      for index in items.indices { items[index].removeLines() }
      value = .list(items)
    case .map(let entries):
      value = .map(
        entries.map { entry in
          var inner = entry.value
          inner.removeLines()
          return Entry(entry.key, inner)
        })
    }
  }
}

/// What is wrong with a setting: where it stands, and what to do about it.
public struct SettingsError: Error, Equatable, Sendable, CustomStringConvertible {
  /// For example `chain[1].nat.pool`.
  public let path: String
  /// Line in its file, from 1; 0 when unknown.
  public let line: Int
  public let message: String

  public init(path: String, line: Int, message: String) {
    self.path = path
    self.line = line
    self.message = message
  }

  public var description: String {
    let subject = path.isEmpty ? message : "\(path): \(message)"
    return line > 0 ? "line \(line): \(subject)" : subject
  }
}

/// Reads one node of a settings tree and remembers the path to it for error messages.
public struct SettingsReader: Sendable {
  public let settings: Settings
  public let path: String

  public init(_ settings: Settings, path: String = "") {
    self.settings = settings
    self.path = path
  }

  public func error(_ message: String) -> SettingsError {
    SettingsError(path: path, line: settings.line, message: message)
  }

  // MARK: Maps

  /// The entries of a map, each with its own path. An empty value counts as an empty map.
  public func entries() throws(SettingsError) -> [(key: String, value: SettingsReader)] {
    switch settings.value {
    case .map(let entries):
      return entries.map { ($0.key, SettingsReader($0.value, path: path.isEmpty ? $0.key : "\(path).\($0.key)")) }
    case .scalar(""):
      return []
    case .scalar, .list:
      throw error("expected keys with values, such as 'key: value'")
    }
  }

  public func optional(_ key: String) throws(SettingsError) -> SettingsReader? {
    try entries().first { $0.key == key }?.value
  }

  public func required(_ key: String) throws(SettingsError) -> SettingsReader {
    guard let found = try optional(key) else { throw error("'\(key)' is missing") }
    return found
  }

  /// Refuses every key that is not in `keys`, naming the nearest one that is.
  public func allow(_ keys: [String]) throws(SettingsError) {
    for (key, value) in try entries() where !keys.contains(key) {
      let nearest = keys.min { distance($0, key) < distance($1, key) }
      let hint = nearest.map { distance($0, key) <= 3 ? "; did you mean '\($0)'?" : "" } ?? ""
      throw value.error("unknown key '\(key)'\(hint) (known: \(keys.joined(separator: ", ")))")
    }
  }

  // MARK: Lists

  public func items() throws(SettingsError) -> [SettingsReader] {
    switch settings.value {
    case .list(let items):
      return items.enumerated().map { SettingsReader($0.element, path: "\(path)[\($0.offset)]") }
    case .scalar(""):
      return []
    case .scalar, .map:
      throw error("expected a list")
    }
  }

  // MARK: Scalars

  public func string() throws(SettingsError) -> String {
    guard case .scalar(let text) = settings.value, !text.isEmpty else { throw error("expected a value") }
    return text
  }

  public func integer(in range: ClosedRange<Int>) throws(SettingsError) -> Int {
    let text = try string()
    guard let number = Int(text) else { throw error("'\(text)' is not a whole number") }
    guard range.contains(number) else {
      throw error("\(number) is out of range; it must be from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  public func boolean() throws(SettingsError) -> Bool {
    switch try string() {
    case "true", "yes", "on": return true
    case "false", "no", "off": return false
    case let text: throw error("'\(text)' is neither true nor false")
    }
  }

  /// One of the named choices.
  public func choice<Choice>(_ choices: KeyValuePairs<String, Choice>) throws(SettingsError) -> Choice {
    let text = try string()
    guard let found = choices.first(where: { $0.key == text }) else {
      throw error("'\(text)' is not one of: \(choices.map(\.key).joined(separator: ", "))")
    }
    return found.value
  }

  /// A duration such as `100ms`, `30s`, `5m`, `2h`, in milliseconds.
  public func milliseconds() throws(SettingsError) -> UInt64 {
    let text = try string()
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let scale: UInt64? =
      switch text.dropFirst(digits.count) {
      case "ms": 1
      case "s": 1_000
      case "m": 60_000
      case "h": 3_600_000
      default: nil
      }
    guard let scale, let count = UInt64(digits), count <= 1_000_000_000 else {
      throw error("'\(text)' is not a duration; write a number and a unit, such as 100ms, 30s, 5m or 2h")
    }
    return count * scale
  }

  /// Edit distance, for hints only.
  private func distance(_ a: String, _ b: String) -> Int {
    let b = Array(b)
    var row = Array(0...b.count)
    for (i, x) in a.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, y) in b.enumerated() {
        let above = row[j + 1]
        row[j + 1] = x == y ? diagonal : min(diagonal, above, row[j]) + 1
        diagonal = above
      }
    }
    return row[b.count]
  }
}
