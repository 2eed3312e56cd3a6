// A bus of a test's own, and coordinators in this process or as processes.
import ControlCodec
import ControlMessages
import ControlNodes
import EmbeddedBus
import Foundation
import KafkaLog
import Logging
import Synchronization

/// An embedded bus with a directory of its own.
final class TestBus {
  let settings: KafkaSettings
  private let server: BusServer
  private let path = FileManager.default.temporaryDirectory.path + "/nfv-coordinator-test-\(UInt64.random(in: .min ... .max))"

  init() throws {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    var configuration = BusConfiguration(dataDirectory: path)
    configuration.port = 0
    configuration.logger = Logger(label: "bus") { _ in SwiftLogNoOpLogHandler() }
    server = try BusServer.start(configuration)
    settings = KafkaSettings(bootstrap: "127.0.0.1:\(server.port)", clientID: "nfv-test")
  }

  func stop() {
    server.stop()
    try? FileManager.default.removeItem(atPath: path)
  }

  func waitForTopics() throws {
    let admin = try KafkaAdmin(settings)
    try wait { try ServiceTopics.all.allSatisfy { try admin.partitionCount(of: $0) != nil } }
  }

  func writer(_ producer: ProducerID, partition: Int32, life: Incarnation = Incarnation(1)) throws -> TestWriter {
    TestWriter(
      producer: try KafkaProducer(settings, profile: .facts), author: EventAuthor(producer: producer, incarnation: life),
      partition: partition)
  }

  /// All copies of commands of partition 1, as soon as there are so many.
  func commands(atLeast count: Int) throws -> [Command] {
    try records(of: ServiceTopics.commands, atLeast: count) { try RecordCodec.decodeCommand($0) }
  }

  /// The commands of partition 1 as a reader takes them.
  func taken(atLeast count: Int) throws -> [Command] {
    var taken: [Command] = []
    try wait {
      var reader = SlotReader()
      taken = try commands(atLeast: 0).filter { reader.read($0.slot) == .taken }
      return taken.count >= count
    }
    return taken
  }

  func letters(atLeast count: Int) throws -> [DeadLetter] {
    try records(of: ServiceTopics.deadLetters, atLeast: count) { try RecordCodec.decodeDeadLetter($0) }
  }

  /// Waits until it is so, for at most twenty seconds.
  func wait(until isSo: () throws -> Bool) throws {
    let clock = ContinuousClock()
    let deadline = clock.now + .seconds(20)
    while clock.now < deadline {
      if try isSo() { return }
      Thread.sleep(forTimeInterval: 0.02)
    }
    throw NeverSo()
  }

  /// - Parameter life: of the coordinator, or a later one.
  func waitForBeacon(by name: String, life: UInt64 = 0) throws {
    try wait {
      try records(of: ServiceTopics.events, atLeast: 0) { try? RecordCodec.decodeEvent($0) }.contains { event in
        event?.body.name == "beacon" && event?.producer == .coordinator(HostID(name)!) && event!.incarnation.number >= life
      }
    }
  }

  private func records<Value>(of topic: String, atLeast count: Int, _ decode: ([UInt8]) throws -> Value) throws -> [Value] {
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 1, start: .beginning)
    var values: [Value] = []
    var isAtEnd = false
    try wait {
      for message in try consumer.poll(timeoutMilliseconds: 100) {
        switch message {
        case .record(let record):
          values.append(try decode(record.value))
          isAtEnd = isAtEnd || consumer.knownEnd(topic: topic, partition: 1).map { record.offset + 1 >= $0 } ?? false
        case .endOfPartition: isAtEnd = true
        }
      }
      return isAtEnd && values.count >= count
    }
    return values
  }

  struct NeverSo: Error {}
}

final class TestWriter {
  private let producer: KafkaProducer
  private var author: EventAuthor
  private let partition: Int32

  init(producer: KafkaProducer, author: EventAuthor, partition: Int32) {
    self.producer = producer
    self.author = author
    self.partition = partition
  }

  func say(_ body: Event.Body) throws {
    let record = RecordCodec.encode(author.write(body))
    _ = try producer.sendAndWait(topic: ServiceTopics.events, partition: partition, value: record)
  }
}

/// A coordinator on a thread of its own.
final class TestCoordinator: Sendable {
  private struct Flags {
    var isStopped = false
    var hasEnded = false
  }

  private let flags = Mutex(Flags())

  convenience init(_ bus: TestBus, name: String, snapshotInterval: UInt64 = 100_000) {
    self.init(bootstrap: bus.settings.bootstrap, name: name, snapshotInterval: snapshotInterval)
  }

  init(bootstrap: String, name: String, snapshotInterval: UInt64 = 100_000) {
    let startedAt = UInt64(Date().timeIntervalSince1970 * 1_000)
    Thread.detachNewThread { [self] in
      let logger = Logger(label: name) { _ in SwiftLogNoOpLogHandler() }
      let node = CoordinatorNode(
        KafkaSettings(bootstrap: bootstrap), name: HostID(name)!, startedAt: startedAt,
        snapshotInterval: snapshotInterval, logger: logger)
      node.run(until: { self.flags.withLock { $0.isStopped } })
      flags.withLock { $0.hasEnded = true }
    }
  }

  var isRunning: Bool { flags.withLock { !$0.hasEnded } }

  func stop() {
    flags.withLock { $0.isStopped = true }
    for _ in 0..<1_000 where isRunning { Thread.sleep(forTimeInterval: 0.01) }
  }
}

/// Reads the commands of partition 1 as any node does: the first copy of each next slot.
final class CommandReader {
  private let consumer: KafkaConsumer
  private var slots = SlotReader()
  private(set) var taken: [Command] = []
  private(set) var copies = 0

  init(_ bus: TestBus) throws {
    consumer = try KafkaConsumer(bus.settings)
    try consumer.assign(topic: ServiceTopics.commands, partition: 1, start: .beginning)
  }

  /// Waits, for at most twenty seconds, until so many nodes have been launched for the first time.
  func wait(forNodes count: Int) throws {
    var isThere: Bool { taken.count { $0.launch?.incarnation == Incarnation(1) } >= count }
    let deadline = ContinuousClock.now + .seconds(20)
    while !isThere, ContinuousClock.now < deadline {
      for case .record(let record) in try consumer.poll(timeoutMilliseconds: 50) {
        let command = try RecordCodec.decodeCommand(record.value)
        if slots.read(command.slot) == .taken { taken.append(command) } else { copies += 1 }
      }
    }
    if !isThere { throw TestBus.NeverSo() }
  }
}

/// A coordinator as a process, which can be killed and stopped like any other.
final class CoordinatorProcess {
  private let process = Process()

  /// The executable, where this run of the tests has built it.
  static let path: String? = {
    guard let tests = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else { return nil }
    var folder = URL(filePath: tests).deletingLastPathComponent()
    for argument in CommandLine.arguments {
      guard let end = argument.range(of: "/nfvactorPackageTests.xctest") else { continue }
      folder = URL(filePath: String(argument[..<end.lowerBound]))
    }
    let path = folder.appending(path: "nfv-coordinator").path
    return FileManager.default.isExecutableFile(atPath: path) ? path : nil
  }()

  /// Milliseconds since 1970.
  let startedAt = UInt64(Date().timeIntervalSince1970 * 1_000)

  init(_ bus: TestBus, name: String) throws {
    process.executableURL = URL(filePath: Self.path!)
    process.arguments = ["--bootstrap", bus.settings.bootstrap, "--name", name, "--log-level", "critical"]
    try process.run()
  }

  func send(_ signal: Int32) {
    kill(process.processIdentifier, signal)
    if signal == SIGKILL { process.waitUntilExit() }
  }
}
