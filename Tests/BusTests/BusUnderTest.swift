/// The bus that the conformance suite talks to: one of our own, or the broker named by NFV_BOOTSTRAP.
import EmbeddedBus
import Foundation
import KafkaLog
import Logging
import Testing

enum BusUnderTest {
  /// host:port
  static let bootstrap: String = {
    if let given = ProcessInfo.processInfo.environment["NFV_BOOTSTRAP"], !given.isEmpty { return given }
    return "127.0.0.1:\(shared.port)"
  }()

  private static let shared: BusServer = {
    let directory = ScratchDirectory()
    sharedDirectory = directory
    atexit { sharedDirectory?.remove() }
    return try! startBus(directory)
  }()

  nonisolated(unsafe) private static var sharedDirectory: ScratchDirectory?  // written once, above; read at exit

  static var settings: KafkaSettings { KafkaSettings(bootstrap: bootstrap, clientID: "nfv-test") }

  static func endpoint() -> (host: String, port: Int) {
    let parts = bootstrap.split(separator: ",")[0].split(separator: ":")
    return (String(parts[0]), Int(parts[1]) ?? 9092)
  }

  /// A topic of the test's own.
  static func topic(_ partitions: Int = 1, _ settings: [String: String] = [:]) throws -> String {
    let name = "conformance-\(UInt64.random(in: .min ... .max))"
    let admin = try KafkaAdmin(Self.settings)
    #expect(try admin.createTopics([KafkaTopic(name: name, partitions: partitions, settings: settings)]) == [name])
    return name
  }
}

func startBus(_ directory: ScratchDirectory, port: Int = 0, _ change: (inout BusConfiguration) -> Void = { _ in }) throws -> BusServer {
  var configuration = BusConfiguration(dataDirectory: directory.path)
  configuration.port = port
  configuration.logger = Logger(label: "bus") { _ in SwiftLogNoOpLogHandler() }
  change(&configuration)
  return try BusServer.start(configuration)
}

/// A directory that goes with the test.
final class ScratchDirectory: Sendable {
  let path: String

  init() {
    path = FileManager.default.temporaryDirectory.path + "/nfv-bus-test-\(UInt64.random(in: .min ... .max))"
    try! FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  func remove() { try? FileManager.default.removeItem(atPath: path) }

  deinit { remove() }
}

extension KafkaConsumer {
  /// Records until `count` have come, or until the end of a partition if there is no count. Fails after ten seconds.
  func read(_ count: Int? = nil, within seconds: Int = 10) throws -> [KafkaRecord] {
    let end = ContinuousClock.now + .seconds(seconds)
    var records: [KafkaRecord] = []
    while ContinuousClock.now < end {
      for message in try poll(timeoutMilliseconds: 100, max: 1000) {
        switch message {
        case .record(let record): records.append(record)
        case .endOfPartition: if count == nil { return records }
        }
      }
      if let count, records.count >= count { return records }
    }
    Issue.record("only \(records.count) of \(count.map(String.init) ?? "all") records came within \(seconds) s: \(status)")
    return records
  }
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
