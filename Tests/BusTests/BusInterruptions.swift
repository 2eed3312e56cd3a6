/// The bus goes away in the middle of work, in every way a process can, while the same clients write and read.
///
/// What has to hold: every record that was acknowledged is there once, in order, and the clients go on by themselves.
import Foundation
import KafkaLog
import Testing

@Suite(.serialized, .enabled(if: NFVCtl.hasBus, "nfvctl with its bus command is not built beside the tests"))
struct BusInterruptions {
  private let scratch = ScratchDirectory()

  /// How long a frozen bus stands still, in seconds: longer than any heartbeat waits, and in `make soak` than a broker's election.
  static let freeze = ProcessInfo.processInfo.environment["NFV_LONG"] == nil ? 1.0 : 6.0

  enum Harm: String, CaseIterable {
    case restart, kill, freeze

    func strike(_ bus: BusProcess) throws {
      switch self {
      case .restart: try bus.restart(by: SIGTERM)
      case .kill: try bus.restart(by: SIGKILL)
      case .freeze:
        bus.signal(SIGSTOP)
        Thread.sleep(forTimeInterval: BusInterruptions.freeze)
        bus.signal(SIGCONT)
      }
    }
  }

  @Test(arguments: Harm.allCases) func `writing and reading go on through it, and nothing is lost or doubled`(harm: Harm)
    throws
  {
    let bus = try BusProcess(scratch.path + "/data")
    let producer = try KafkaProducer(bus.settings, profile: .facts)
    let consumer = try KafkaConsumer(bus.settings)
    try consumer.assign(topic: "nfv.events", partition: 1, start: .beginning)
    var sent = 0
    var stored = 0
    var read: [String] = []
    func work(_ milliseconds: Int) throws {
      let end = ContinuousClock.now + .milliseconds(milliseconds)
      while ContinuousClock.now < end {
        for _ in 0..<20 where sent - stored < 20_000 {
          try producer.send(topic: "nfv.events", partition: 1, value: bytes("\(sent)"))
          sent += 1
        }
        try settle(1)
        for case .record(let record) in try consumer.poll(timeoutMilliseconds: 1) { read.append(text(record.value)) }
      }
    }
    func settle(_ timeout: Int) throws {
      for delivery in producer.poll(timeoutMilliseconds: timeout) {
        guard case .stored = delivery.outcome else { throw NotStored(delivery: "\(delivery)") }
        stored += 1
      }
    }
    let start = ContinuousClock.now
    repeat { try work(300) } while read.isEmpty && ContinuousClock.now - start < .seconds(10)
    #expect(!read.isEmpty, "records came before the harm")
    for _ in 0..<2 {
      try harm.strike(bus)
      try work(500)
    }
    let end = ContinuousClock.now + .seconds(30)
    while stored < sent || read.count < sent, ContinuousClock.now < end {
      try settle(10)
      for case .record(let record) in try consumer.poll(timeoutMilliseconds: 10) { read.append(text(record.value)) }
    }
    #expect(stored == sent && sent > 500)
    // Compared as a whole: order, loss and doubling at once.
    let isWhole = read == (0..<sent).map(String.init)
    #expect(
      isWhole,
      "\(read.count) of \(sent) read; first wrong: \(zip(read, 0...).first { $0.0 != String($0.1) }.map { "\($0)" } ?? "none")")
  }

  @Test func `a frozen bus is told, and a late heartbeat is dropped instead of delivered`() throws {
    let bus = try BusProcess(scratch.path + "/data")
    let heartbeats = try KafkaProducer(bus.settings, profile: .heartbeats(timeoutMilliseconds: 200))
    try heartbeats.send(topic: "nfv.events", partition: 0, value: bytes("in time"))
    #expect(try heartbeats.flush(timeoutMilliseconds: 5_000).map(\.outcome) == [.stored(offset: 0)])
    bus.signal(SIGSTOP)
    try heartbeats.send(topic: "nfv.events", partition: 0, value: bytes("late"))
    let start = ContinuousClock.now
    let outcomes = try heartbeats.flush(timeoutMilliseconds: 5_000).map(\.outcome)
    #expect(ContinuousClock.now - start < .seconds(4))
    guard case .failed = outcomes.first else {
      Issue.record("\(outcomes)")
      return
    }
    bus.signal(SIGCONT)
  }

  /// As after an unclean election, or a disk that lost its newest blocks: the log is shorter than its reader knows.
  @Test func `a reader of a log that was cut behind its back is told so`() throws {
    let bus = try BusProcess(scratch.path + "/data")
    let producer = try KafkaProducer(bus.settings, profile: .commands)
    for number in 0..<20 { _ = try producer.sendAndWait(topic: "nfv.events", partition: 1, value: bytes("\(number)")) }
    let consumer = try KafkaConsumer(bus.settings)
    try consumer.assign(topic: "nfv.events", partition: 1, start: .beginning)
    #expect(try consumer.read(20).count == 20)
    bus.signal(SIGKILL)
    let file = try #require(try partitionFile())
    let handle = try #require(FileHandle(forWritingAtPath: file))
    try handle.truncate(atOffset: UInt64(size(file) / 2 + 3))
    try handle.close()
    try bus.restart(by: SIGKILL)

    var found: KafkaError?
    let end = ContinuousClock.now + .seconds(20)
    while found == nil, ContinuousClock.now < end {
      do throws(KafkaError) { _ = try consumer.poll(timeoutMilliseconds: 100) } catch { found = error }
    }
    guard case .offsetOutOfRange("nfv.events", 1, _) = found else {
      Issue.record("\(String(describing: found))")
      return
    }
    // What is left is whole.
    let again = try KafkaConsumer(bus.settings)
    try again.assign(topic: "nfv.events", partition: 1, start: .beginning)
    let left = try again.read().map { text($0.value) }
    #expect(left == (0..<left.count).map(String.init) && (1..<20).contains(left.count))
  }

  /// Where the bus keeps partition 1 of the events: its only file with something in it.
  private func partitionFile() throws -> String? {
    let root = scratch.path + "/data"
    return try FileManager.default.subpathsOfDirectory(atPath: root).filter { $0.contains("nfv.events") && $0.hasSuffix(".log") }
      .map { "\(root)/\($0)" }.first { size($0) > 0 }
  }

  private func size(_ path: String) -> Int {
    (try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) ?? 0
  }

  struct NotStored: Error { let delivery: String }
}
