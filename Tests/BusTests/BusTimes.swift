/// Whose time a record has, and how long a long log takes. Runs against the embedded bus, or against any broker by
/// NFV_BOOTSTRAP.
import Foundation
import KafkaLog
import Testing

@Suite(.serialized) struct BusTimes {
  private let settings = BusUnderTest.settings
  private static let isLong = ProcessInfo.processInfo.environment["NFV_LONG"] != nil

  @Test func `with LogAppendTime a record has the broker's time, whatever its writer says`() throws {
    let topic = try BusUnderTest.topic(1, ["message.timestamp.type": "LogAppendTime"])
    let producer = try KafkaProducer(settings, profile: .facts)
    for time in [1_000, 4_000_000_000_000] as [Int64] {
      try producer.send(topic: topic, partition: 0, value: bytes("\(time)"), timestampMilliseconds: time)
      try producer.flush(timeoutMilliseconds: 10_000)
    }
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    let now = Int64(Date().timeIntervalSince1970 * 1_000)
    let times = try consumer.read(2).map(\.timestampMilliseconds)
    #expect(times.allSatisfy { abs($0 - now) < 60_000 } && times[0] <= times[1], "\(times) at \(now)")
  }

  @Test func `with CreateTime a record keeps the time that it was sent with`() throws {
    let topic = try BusUnderTest.topic(1, ["message.timestamp.type": "CreateTime"])
    let producer = try KafkaProducer(settings, profile: .facts)
    let times: [Int64] = [1_700_000_000_000, 1_700_000_000_500, 1_700_000_000_400]
    for (index, time) in times.enumerated() {
      try producer.send(
        topic: topic, partition: 0, key: index == 0 ? nil : index == 1 ? [] : [1], value: bytes("\(index)"),
        timestampMilliseconds: time)
    }
    try producer.flush(timeoutMilliseconds: 10_000)
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    let records = try consumer.read(3)
    #expect(records.map(\.timestampMilliseconds) == times)
    #expect(records.map(\.key) == [nil, [], [1]])
  }

  /// A million with NFV_LONG=1; else as many as a debug build replays in a few seconds.
  @Test func `a long log is replayed whole and in order`() throws {
    let count = Self.isLong ? 1_000_000 : 50_000
    let topic = try BusUnderTest.topic()
    let producer = try KafkaProducer(settings, profile: .facts)
    var sent = 0
    while sent < count {
      while producer.outstanding > 50_000 { _ = producer.poll(timeoutMilliseconds: 10) }
      let value = withUnsafeBytes(of: UInt64(sent)) { Array($0) } + [UInt8](repeating: 7, count: 92)
      try producer.send(topic: topic, partition: 0, value: value)
      sent += 1
      if sent.isMultiple(of: 1_000) { _ = producer.poll(timeoutMilliseconds: 0) }
    }
    try producer.flush(timeoutMilliseconds: 120_000)

    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    let start = ContinuousClock.now
    var next: UInt64 = 0
    var isInOrder = true
    while next < count, ContinuousClock.now - start < .seconds(120) {
      for case .record(let record) in try consumer.poll(timeoutMilliseconds: 100, max: 10_000) {
        isInOrder = isInOrder && record.value.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) } == next
        next += 1
      }
    }
    #expect(next == count && isInOrder)
    if Self.isLong { print("replayed \(count) records in \(ContinuousClock.now - start)") }
  }
}
