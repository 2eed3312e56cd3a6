import ArgumentParser
import Configuration
import ControlMessages
import Glibc
import KafkaLog
import NodeSupport

/// A subcommand whose failures are sentences on stderr and a documented exit code.
protocol OperatorCommand: ParsableCommand {
  func perform() throws
}

extension OperatorCommand {
  func run() throws {
    do {
      try perform()
    } catch {
      guard let complaint = Complaint(error) else { throw error }
      Terminal.say("nfvctl: \(complaint.message)")
      throw ExitCode(complaint.status)
    }
  }
}

/// Why a command ends without having done its work.
struct Complaint: Error, Equatable {
  let message: String
  let status: Int32

  init(_ message: String, status: Int32 = ExitStatus.failure) {
    self.message = message
    self.status = status
  }

  /// nil: not an error of ours.
  init?(_ error: any Error) {
    switch error {
    case let complaint as Complaint: self = complaint
    case let error as ConfigurationError: self.init(error.description, status: ExitStatus.usage)
    case let error as KafkaError: self.init(error)
    default: return nil
    }
  }

  private init(_ error: KafkaError) {
    switch error {
    case .unreachable:
      self.init(
        "\(error)\nstart one with `nfvctl bus`, or name another with --bootstrap host:port", status: ExitStatus.unavailable)
    case .unknownTopic: self.init("\(error); `nfvctl topics create` makes the topics", status: ExitStatus.unavailable)
    case .timedOut, .fatal, .queueFull: self.init("\(error)", status: ExitStatus.unavailable)
    case .invalidSetting: self.init("\(error)", status: ExitStatus.usage)
    case .recordTooLarge, .offsetOutOfRange, .corruptRecord, .refused: self.init("\(error)")
    }
  }
}

/// stdout for data, stderr for everything else.
enum Terminal {
  /// A line for the person, on stderr.
  static func say(_ text: String) { write(text + "\n", to: STDERR_FILENO) }

  /// Data, on stdout.
  static func put(_ text: String) { write(text, to: STDOUT_FILENO) }

  /// Whoever read our output may have read enough: that is no failure.
  private static func write(_ text: String, to descriptor: Int32) {
    var text = text
    text.withUTF8 { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while !rest.isEmpty {
        let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else {
          if descriptor == STDOUT_FILENO { exit(errno == EPIPE ? ExitStatus.success : ExitStatus.failure) }
          return
        }
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
      }
    }
  }
}
