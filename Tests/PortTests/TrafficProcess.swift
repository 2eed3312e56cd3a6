import Foundation
import Glibc
import Testing

/// `nfvactor traffic` as a process: DPDK can be started once in a process, so every port that a test opens is in one of its own.
final class TrafficProcess {
  private let process = Process()
  private let output = Pipe()
  private let errors = Pipe()

  /// The release binary if it is there, otherwise the debug one; `NFV_BINARIES` names another folder.
  static let binary: String? = {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
      .path
    let folders = [ProcessInfo.processInfo.environment["NFV_BINARIES"], "\(root)/.build/release", "\(root)/.build/debug"]
    return folders.compactMap { $0 }.map { "\($0)/nfvactor" }.first { access($0, X_OK) == 0 }
  }()

  /// Why these tests cannot run here, or `nil`.
  static let obstacle: String? = {
    guard let binary else { return "there is no nfvactor binary: 'swift build --product nfvactor' makes one" }
    guard let help = try? Program.run(binary, ["traffic", "--help"]), help.status == 0 else {
      return "\(binary) is older than 'nfvactor traffic': build it again"
    }
    return geteuid() == 0 ? nil : "DPDK's ports need root here"
  }()

  /// Without huge pages, on any processor, sleeping when idle: what a shared machine can stand.
  init(_ arguments: [String]) throws {
    process.executableURL = URL(fileURLWithPath: try #require(Self.binary))
    let processors = (0..<ProcessInfo.processInfo.activeProcessorCount).map(String.init).joined(separator: ",")
    process.arguments =
      ["traffic", "--stats", "json", "--memory", "ordinary", "--polling", "adaptive", "--processors", processors] + arguments
    process.standardOutput = output
    process.standardError = errors
    // Tests run on threads that block signals, and a child inherits that.
    var signals = sigset_t()
    var before = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGTERM)
    pthread_sigmask(SIG_UNBLOCK, &signals, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    try process.run()
  }

  deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

  func terminate() { process.terminate() }

  struct Ending {
    var status: Int32
    var output: Data
    var errors: String

    func report() throws -> Report {
      try #require(status == 0, "\(errors)")
      return try JSONDecoder().decode(Report.self, from: output)
    }

    func reflection() throws -> Reflection {
      try #require(status == 0, "\(errors)")
      return try JSONDecoder().decode(Reflection.self, from: output)
    }
  }

  /// What it printed, after its end; a process that takes longer than `seconds` is killed.
  func finish(within seconds: Double = 30) throws -> Ending {
    let deadline = Date(timeIntervalSinceNow: seconds)
    while process.isRunning, Date() < deadline { usleep(10_000) }
    if process.isRunning {
      kill(process.processIdentifier, SIGKILL)
      Issue.record("nfvactor traffic did not end within \(seconds) seconds")
    }
    process.waitUntilExit()
    return Ending(
      status: process.terminationStatus, output: output.fileHandleForReading.readDataToEndOfFile(),
      errors: String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self))
  }

  struct Report: Decodable {
    struct Packets: Decodable {
      var sent, received, lost, duplicated, reordered, damaged, foreign, untaken, skipped, missed, answers: UInt64
    }
    struct Rate: Decodable { var packetsPerSecond, bitsPerSecond: Double }
    struct Latency: Decodable { var p50, p90, p99, p999, max: Double }
    var port: String
    var sink: String?
    var seconds: Double
    var flows: UInt32
    var packets: Packets
    var sent, received: Rate
    var latency: Latency?
  }

  struct Reflection: Decodable {
    var port: String
    var received, reflected, dropped, missed: UInt64
  }
}

/// Any other program that a test needs, run to its end.
enum Program {
  @discardableResult
  static func run(_ path: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return (process.terminationStatus, text)
  }
}
