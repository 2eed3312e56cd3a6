import ControlMessages

/// What is wrong with a configuration file, in the form that editors and terminals know how to jump to:
/// `FILE:LINE: path: message`.
public struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
  /// As the operator named it.
  public let file: String
  /// From 1; 0 when it is not about a line.
  public let line: Int
  /// For example `chain[1].nat.pool`; empty when it is not about a setting.
  public let path: String
  public let message: String

  public init(file: String, line: Int = 0, path: String = "", message: String) {
    self.file = file
    self.line = line
    self.path = path
    self.message = message
  }

  /// What a reader of settings complained about, with the file they came from.
  public init(file: String, _ error: SettingsError) {
    self.init(file: file, line: error.line, path: error.path, message: error.message)
  }

  public var description: String {
    let place = line > 0 ? "\(file):\(line)" : file
    return path.isEmpty ? "\(place): \(message)" : "\(place): \(path): \(message)"
  }
}
