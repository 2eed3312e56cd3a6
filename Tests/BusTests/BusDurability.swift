/// What the embedded bus keeps when it stops, is killed, or is started twice.
import Foundation
import KafkaLog
import Testing

@testable import EmbeddedBus

@Suite(.serialized) struct BusDurability {
  private let scratch = ScratchDirectory()

  private func settings(_ bus: BusServer) -> KafkaSettings { KafkaSettings(bootstrap: "127.0.0.1:\(bus.port)") }

  @Test func `records, topics and producers' numbers outlive a restart`() throws {
    var bus = try startBus(scratch)
    let port = bus.port
    let admin = try KafkaAdmin(settings(bus))
    try admin.createTopics([KafkaTopic(name: "t", partitions: 3, settings: ["retention.ms": "3600000"])])
    let raw = try RawConnection((bus.host, port))
    let id = try raw.initProducerID()
    let batch = TestBatch(values: ["a", "b"], producerID: id, epoch: 0, sequence: 0).bytes
    #expect(try raw.produce("t", batch).offset == 0)
    bus.stop()

    bus = try startBus(scratch, port: port)
    defer { bus.stop() }
    #expect(try admin.partitionCount(of: "t") == 3)
    let again = try RawConnection((bus.host, port))
    #expect(try again.produce("t", batch).offset == 0)
    #expect(try again.produce("t", TestBatch(values: ["c"], producerID: id, epoch: 0, sequence: 2).bytes).offset == 2)
    #expect(try again.initProducerID() > id)
    #expect(try admin.watermarks(topic: "t", partition: 0) == (0, 3))
  }

  @Test func `clients go on by themselves when the bus comes back`() throws {
    var bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 1)] }
    let port = bus.port
    let producer = try KafkaProducer(settings(bus), profile: .facts)
    let consumer = try KafkaConsumer(settings(bus))
    try consumer.assign(topic: "t", partition: 0, start: .beginning)
    _ = try producer.sendAndWait(topic: "t", partition: 0, value: bytes("before"))
    #expect(try consumer.read(1).map { text($0.value) } == ["before"])
    bus.stop()
    try producer.send(topic: "t", partition: 0, value: bytes("meanwhile"))
    for _ in 0..<50 where consumer.status.isReachable { _ = try consumer.poll(timeoutMilliseconds: 100) }
    #expect(!consumer.status.isReachable && consumer.status.problem != nil)
    #expect(!consumer.takeLog().isEmpty)

    bus = try startBus(scratch, port: port)
    defer { bus.stop() }
    #expect(try consumer.read(1).map { text($0.value) } == ["meanwhile"])
    #expect(consumer.status == KafkaStatus(problem: nil, isReachable: true))
    #expect(try producer.flush(timeoutMilliseconds: 10_000).map(\.outcome) == [.stored(offset: 1)])
  }

  @Test func `a log that is not there is named, with what to do`() throws {
    let bus = try startBus(scratch)
    let settings = settings(bus)
    bus.stop()
    let producer = try KafkaProducer(settings, profile: .commands)
    let error = #expect(throws: KafkaError.self) {
      try producer.sendAndWait(topic: "t", partition: 0, value: [1], timeoutMilliseconds: 1500)
    }
    #expect("\(error!)".hasPrefix("the log at 127.0.0.1:\(bus.port) cannot be reached: "))
    #expect("\(error!)".contains("nfvctl bus"))
    let asked = #expect(throws: KafkaError.self) { try KafkaAdmin(settings, timeoutMilliseconds: 1000).partitionCount(of: "t") }
    #expect("\(asked!)".contains("cannot be reached"))
  }

  @Test func `settings that librdkafka does not know are refused with its sentence`() {
    let error = #expect(throws: KafkaError.self) {
      try KafkaProducer(KafkaSettings(extra: ["no.such.property": "1"]), profile: .facts)
    }
    #expect("\(error!)".contains("no.such.property"))
  }

  @Test func `a full send queue is an error and not a wait`() throws {
    let bus = try startBus(scratch)
    var settings = settings(bus)
    bus.stop()
    settings.extra["queue.buffering.max.messages"] = "10"
    let producer = try KafkaProducer(settings, profile: .facts)
    var refused: KafkaError?
    for _ in 0..<20 {
      do throws(KafkaError) { try producer.send(topic: "t", partition: 0, value: [1]) } catch { refused = error }
    }
    #expect(refused == .queueFull)
  }

  @Test func `a heartbeat that is late is dropped`() throws {
    var bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 1)] }
    let port = bus.port
    let producer = try KafkaProducer(settings(bus), profile: .heartbeats(timeoutMilliseconds: 200))
    try producer.send(topic: "t", partition: 0, value: bytes("in time"))
    #expect(try producer.flush(timeoutMilliseconds: 5000).map(\.outcome) == [.stored(offset: 0)])
    bus.stop()
    try producer.send(topic: "t", partition: 0, value: bytes("late"))
    let outcomes = try producer.flush(timeoutMilliseconds: 5000).map(\.outcome)
    guard case .failed = outcomes.first, outcomes.count == 1 else {
      Issue.record("\(outcomes)")
      return
    }
    bus = try startBus(scratch, port: port)
    defer { bus.stop() }
    #expect(try KafkaAdmin(settings(bus)).watermarks(topic: "t", partition: 0).high == 1)
  }

  @Test func `a second bus on the same directory is refused`() throws {
    let bus = try startBus(scratch)
    let error = #expect(throws: BusError.self) { try startBus(scratch) }
    #expect("\(error!)".contains("in use by another bus (process \(getpid()))"))
    bus.stop()
    try startBus(scratch).stop()
  }

  @Test func `a port that is taken is named`() throws {
    let bus = try startBus(scratch)
    defer { bus.stop() }
    let other = ScratchDirectory()
    let error = #expect(throws: BusError.self) { try startBus(other, port: bus.port) }
    #expect("\(error!)".contains("127.0.0.1:\(bus.port) is taken"))
    try startBus(other).stop()  // the failed start has given the directory free
  }

  @Test func `partitions are added at a later start and never taken away`() throws {
    try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 2)] }.stop()
    try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 5)] }.stop()
    let bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 1)] }
    defer { bus.stop() }
    #expect(try KafkaAdmin(settings(bus)).partitionCount(of: "t") == 5)
  }

  @Test func `a full disk is told to the producer, and the bus goes on when there is room`() throws {
    let isFull = Switch()
    let bus = try startBus(scratch) {
      $0.topics = [.init(name: "t", partitions: 1)]
      $0.calls.write = { file, bytes, count, position in
        if isFull.isOn { errno = ENOSPC; return -1 }
        return pwrite(file, bytes, count, position)
      }
    }
    defer { bus.stop() }
    let connection = try RawConnection((bus.host, bus.port))
    #expect(try connection.produce("t", TestBatch().bytes).error == 0)
    isFull.set(true)
    #expect(try connection.produce("t", TestBatch().bytes).error == 56)  // KAFKA_STORAGE_ERROR
    isFull.set(false)
    let after = try connection.produce("t", TestBatch().bytes)
    #expect(after.error == 0 && after.offset == 1)
  }

  @Test(arguments: [BusConfiguration.Fsync.never, .interval(milliseconds: 5), .always])
  func `every fsync policy serves`(policy: BusConfiguration.Fsync) throws {
    let bus = try startBus(scratch) { $0.fsync = policy; $0.topics = [.init(name: "t", partitions: 2)]; $0.segmentBytes = 4096 }
    let producer = try KafkaProducer(settings(bus), profile: .commands)
    for number in 0..<100 { _ = try producer.sendAndWait(topic: "t", partition: Int32(number % 2), value: [UInt8](repeating: 1, count: 100)) }
    bus.stop()
    let again = try startBus(scratch)
    defer { again.stop() }
    #expect(try KafkaAdmin(settings(again)).watermarks(topic: "t", partition: 1) == (0, 50))
  }

  /// The real thing: the program itself, killed in the middle of work, three times.
  @Test(.enabled(if: NFVCtl.hasBus, "nfvctl with its bus command is not built beside the tests"))
  func `every acknowledged record outlives SIGKILL`() throws {
    var acknowledged: [Int64: String] = [:]
    for round in 0..<3 {
      let (process, port) = try NFVCtl.startBus(scratch.path + "/data")
      let producer = try KafkaProducer(KafkaSettings(bootstrap: "127.0.0.1:\(port)"), profile: .facts)
      var sent: [UInt64: String] = [:]
      let end = ContinuousClock.now + .milliseconds(600)
      var number = 0
      while ContinuousClock.now < end {
        for _ in 0..<20 {
          let value = "\(round)-\(number)"
          sent[try producer.send(topic: "nfv.events", partition: 1, value: bytes(value))] = value
          number += 1
        }
        for delivery in producer.poll(timeoutMilliseconds: 1) {
          if case .stored(let offset) = delivery.outcome { acknowledged[offset] = sent[delivery.id] }
        }
      }
      kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
      for delivery in producer.poll(timeoutMilliseconds: 100) {
        if case .stored(let offset) = delivery.outcome { acknowledged[offset] = sent[delivery.id] }
      }
    }
    #expect(acknowledged.count > 100)
    let (process, port) = try NFVCtl.startBus(scratch.path + "/data")
    let consumer = try KafkaConsumer(KafkaSettings(bootstrap: "127.0.0.1:\(port)"))
    try consumer.assign(topic: "nfv.events", partition: 1, start: .beginning)
    var found: [Int64: String] = [:]
    for record in try consumer.read() { found[record.offset] = text(record.value) }
    #expect(acknowledged.allSatisfy { found[$0.key] == $0.value })
    #expect(Set(found.values).count == found.count)  // and none of them twice
    process.terminate()
    process.waitUntilExit()
    #expect(process.terminationReason == .exit && process.terminationStatus == 0)
  }
}

private final class Switch: @unchecked Sendable {
  private let lock = NSLock()
  private var on = false
  var isOn: Bool { lock.withLock { on } }
  func set(_ value: Bool) { lock.withLock { on = value } }
}

/// The program, as it lies beside the test bundle.
enum NFVCtl {
  static let path = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path + "/nfvctl"
  private static let beside = [path, Bundle.main.bundlePath + "/nfvctl", Bundle.main.bundleURL.deletingLastPathComponent().path + "/nfvctl"]
    .first { FileManager.default.isExecutableFile(atPath: $0) }

  static let hasBus: Bool = {
    guard let beside else { return false }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: beside)
    process.arguments = ["bus", "--help"]
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return false }
    let help = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return process.terminationStatus == 0 && help.contains("--data-dir")
  }()

  /// The process and the port that it tells.
  static func startBus(_ directory: String, port: Int = 0) throws -> (Process, Int) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: beside!)
    process.arguments = ["bus", "--listen", "127.0.0.1:\(port)", "--data-dir", directory, "--partitions", "2"]
    let output = Pipe()
    process.standardError = output
    // A bus that outlives its test must not keep open what the test's own starter waits for the end of.
    process.standardOutput = FileHandle.nullDevice
    process.standardInput = FileHandle.nullDevice
    try process.run()
    // It may first say what it found in its files.
    var said = ""
    while let byte = try output.fileHandleForReading.read(upToCount: 1) {
      said += String(decoding: byte, as: UTF8.self)
      guard said.hasSuffix("\n"), let line = said.split(separator: "\n").last, line.contains("listening on ") else { continue }
      if let port = line.split(separator: ",")[0].split(separator: ":").last.flatMap({ Int($0) }) { return (process, port) }
    }
    process.terminate()
    throw BusDidNotStart(said: said)
  }

  struct BusDidNotStart: Error { let said: String }
}
