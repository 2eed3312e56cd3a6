import ControlMessages
import KafkaLog
import LogAnalysis

/// A broker's log, as it stands when a partition is opened: what comes later is not waited for.
final class BrokerSource: LogSource {
  private let settings: KafkaSettings
  private let admin: KafkaAdmin

  init(_ access: LogAccess) throws(KafkaError) {
    settings = access.settings
    admin = try KafkaAdmin(access.settings, timeoutMilliseconds: LogAccess.patience)
  }

  var name: String { "the log at \(settings.bootstrap)" }

  func partitions(of topic: String) throws -> [UInt32] {
    (0..<UInt32(try admin.partitionCount(of: topic) ?? 0)).map { $0 }
  }

  func extent(of place: LogPartition) throws -> Range<UInt64>? {
    let (low, high) = try admin.watermarks(topic: place.topic, partition: Int32(clamping: place.partition))
    return low < high ? UInt64(low)..<UInt64(high) : nil
  }

  func open(_ place: LogPartition, from offset: Offset?) throws -> any PartitionReader {
    try BrokerPartition(settings, place, try extent(of: place), from: offset)
  }
}

private final class BrokerPartition: PartitionReader {
  private let consumer: KafkaConsumer
  private let place: LogPartition
  /// Offsets to read up to, this one not included.
  private let end: UInt64
  private var ready: [KafkaMessage] = []
  private var used = 0
  private var isAtEnd: Bool

  init(_ settings: KafkaSettings, _ place: LogPartition, _ extent: Range<UInt64>?, from offset: Offset?) throws(KafkaError) {
    consumer = try KafkaConsumer(settings)
    self.place = place
    end = extent?.upperBound ?? 0
    let first = max(extent?.lowerBound ?? 0, offset?.value ?? 0)
    isAtEnd = first >= end
    guard !isAtEnd else { return }
    try consumer.assign(topic: place.topic, partition: Int32(clamping: place.partition), start: .offset(Int64(clamping: first)))
  }

  func next() throws -> LogRecord? {
    while !isAtEnd {
      if used == ready.count { try fill() }
      let message = ready[used]
      used += 1
      switch message {
      case .record(let record):
        let offset = UInt64(clamping: record.offset)
        if offset + 1 >= end { isAtEnd = true }
        guard offset < end else { return nil }
        return LogRecord(
          topic: place.topic, partition: place.partition, offset: Offset(offset),
          timestamp: Timestamp(milliseconds: UInt64(clamping: record.timestampMilliseconds)), key: record.key, value: record.value
        )
      case .endOfPartition(_, _, let offset):
        if UInt64(clamping: offset) >= end { isAtEnd = true }
      }
    }
    return nil
  }

  /// A broker that has answered goes on answering; one that falls silent is given up.
  private func fill() throws(KafkaError) {
    let clock = ContinuousClock()
    let deadline = clock.now + .milliseconds(LogAccess.patience)
    used = 0
    repeat {
      ready = try consumer.poll(timeoutMilliseconds: 100)
      if !ready.isEmpty { return }
    } while clock.now < deadline
    let problem = consumer.status.problem.map { " (\($0))" } ?? ""
    throw .timedOut(operation: "reading \(place)\(problem)", milliseconds: LogAccess.patience)
  }
}
