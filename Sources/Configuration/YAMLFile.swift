import ControlMessages
import Yams

/// YAML to settings, with the line of every value: the only place that knows YAML.
///
/// What is read is the part of YAML that a configuration needs: maps with plain keys, lists and scalars, in one
/// document. The rest of YAML is refused with a sentence instead of being taken for something else: anchors and
/// aliases (a few lines of them expand to gigabytes), tags, keys that are not scalars, the same key twice, tabs as
/// indentation. Nothing is interpreted here: `yes`, `1e3` and `~` are the text that somebody wrote, and the reader
/// of a setting says what it may be.
///
/// A file may come from anywhere, so its size, depth and number of values are bounded before they cost anything.
public enum YAMLFile {
  /// A cluster's spec has to fit into one record of the log; no configuration written by hand comes near it.
  public static let maximumBytes = 512 << 10
  /// The log's record format carries settings of a depth of 32.
  public static let maximumDepth = 30
  public static let maximumValues = 32_768

  public static func settings(path: String) throws(ConfigurationError) -> Settings {
    let bytes = try readFile(path, atMost: maximumBytes)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      let valid = String(decoding: bytes, as: UTF8.self).unicodeScalars.prefix { $0 != "\u{fffd}" }
      throw ConfigurationError(file: path, line: 1 + valid.count { $0 == "\n" }, message: "the text is not UTF-8")
    }
    return try settings(text: text, name: path)
  }

  /// - Parameter name: of the file, for messages.
  public static func settings(text: String, name: String) throws(ConfigurationError) -> Settings {
    guard text.utf8.count <= maximumBytes else {
      throw ConfigurationError(file: name, message: "\(text.utf8.count) bytes; a configuration has at most \(maximumBytes)")
    }
    try YAMLText(text, file: name).check()

    // Yams keeps a pointer to the text, which it may do only if the text is stored outside of its `String`:
    // short ones are not.
    var text = text + String(repeating: "\n", count: max(0, 32 - text.utf8.count))
    text.makeContiguousUTF8()
    let parser: Parser
    let root: Node?
    do {
      parser = try Parser(yaml: text, resolver: .basic, encoding: .utf8)
      root = try parser.singleRoot()
    } catch {
      throw ConfigurationError(file: name, yaml: error)
    }
    guard let root else { throw ConfigurationError(file: name, message: "the file holds no settings") }
    // A node refers to its anchor weakly: it is the parser that keeps them.
    return try withExtendedLifetime(parser) { () throws(ConfigurationError) -> Settings in
      var conversion = SettingsConversion(file: name)
      return try conversion.settings(root, path: "", depth: 0)
    }
  }
}

/// Walks Yams's tree and makes ours of it, counting.
private struct SettingsConversion {
  let file: String
  var values = 0

  mutating func settings(_ node: Node, path: String, depth: Int) throws(ConfigurationError) -> Settings {
    let line = node.mark?.line ?? 0
    func refuse(_ message: String) -> ConfigurationError {
      ConfigurationError(file: file, line: line, path: path, message: message)
    }
    values += 1
    guard node.anchor == nil else { throw refuse("anchors (&) and aliases (*) are not read; write the value out") }
    guard depth <= YAMLFile.maximumDepth else { throw refuse("nested deeper than \(YAMLFile.maximumDepth) levels") }
    guard values <= YAMLFile.maximumValues else { throw refuse("more than \(YAMLFile.maximumValues) values") }

    switch node {
    case .scalar(let scalar):
      guard !Self.hasTag(scalar.tag) else { throw refuse("tags (!) are not read; quote a text that begins with '!'") }
      return Settings(.scalar(scalar.string), line: line)
    case .sequence(let sequence):
      guard !Self.hasTag(sequence.tag) else { throw refuse("tags (!) are not read") }
      var items: [Settings] = []
      for item in sequence {
        items.append(try settings(item, path: "\(path)[\(items.count)]", depth: depth + 1))
      }
      return Settings(.list(items), line: line)
    case .mapping(let mapping):
      guard !Self.hasTag(mapping.tag) else { throw refuse("tags (!) are not read") }
      var entries: [Settings.Entry] = []
      var lines: [String: Int] = [:]
      for (key, value) in mapping {
        let keyLine = key.mark?.line ?? line
        guard case .scalar(let scalar) = key, key.anchor == nil, !Self.hasTag(scalar.tag), !scalar.string.isEmpty else {
          throw ConfigurationError(file: file, line: keyLine, path: path, message: "a key is a plain word, such as 'name: value'")
        }
        if let first = lines.updateValue(keyLine, forKey: scalar.string) {
          throw ConfigurationError(
            file: file, line: keyLine, path: path, message: "the key '\(scalar.string)' is written twice, first in line \(first)")
        }
        // An empty value and a block below its key begin after the key; the key is what a person looks for.
        var read = try settings(value, path: path.isEmpty ? scalar.string : "\(path).\(scalar.string)", depth: depth + 1)
        read.line = keyLine
        entries.append(Settings.Entry(scalar.string, read))
      }
      return Settings(.map(entries), line: line)
    case .alias:
      throw refuse("anchors (&) and aliases (*) are not read; write the value out")
    }
  }

  /// Quoted scalars come as strings, everything else without a tag unless somebody wrote one.
  private static func hasTag(_ tag: Tag) -> Bool { tag.description != "" && tag.description != Tag.Name.str.rawValue }
}
