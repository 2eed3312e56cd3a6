import ArgumentParser
import Logging

/// What every long-running command lets one say about its log. Logs go to stderr, one line each: time, level,
/// label, `key=value` pairs, message. Data goes to stdout.
public struct LogOptions: ParsableArguments {
  @Option(name: .long, help: "Least severe level to log: trace, debug, info, notice, warning, error or critical.")
  public var logLevel: Logger.Level = .info

  public init() {}

  /// Makes the process's logger. Call once.
  public func start(_ label: String) -> Logger {
    LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
    var logger = Logger(label: label)
    logger.logLevel = logLevel
    return logger
  }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}
