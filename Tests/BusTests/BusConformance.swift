/// What the control plane needs of any bus. Runs against the embedded one, or against a real Kafka:
/// `NFV_BOOTSTRAP=host:port swift test --filter BusConformance`.
import Foundation
import KafkaLog
import Testing

@Suite(.serialized) struct BusConformance {
  private let settings = BusUnderTest.settings

  @Test func `records of a partition come in the order in which they were sent`() throws {
    let topic = try BusUnderTest.topic()
    let producer = try KafkaProducer(settings, profile: .facts)
    for number in 0..<2000 { try producer.send(topic: topic, partition: 0, key: bytes("k\(number)"), value: bytes("\(number)")) }
    let deliveries = try producer.flush(timeoutMilliseconds: 10_000)
    let offsets = deliveries.compactMap { if case .stored(let offset) = $0.outcome { offset } else { nil } }
    #expect(offsets.count == 2000)
    #expect(zip(offsets, offsets.dropFirst()).allSatisfy(<))
    #expect(deliveries.map(\.id) == deliveries.map(\.id).sorted())

    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    let records = try consumer.read(2000)
    #expect(records.map { text($0.value) } == (0..<2000).map(String.init))
    #expect(records.map { $0.key.map(text) } == (0..<2000).map { "k\($0)" })
    #expect(records.map(\.offset) == offsets)
    #expect(records.allSatisfy { $0.topic == topic && $0.partition == 0 })
  }

  @Test func `the end of a partition is announced, and again after more records`() throws {
    let topic = try BusUnderTest.topic()
    let producer = try KafkaProducer(settings, profile: .commands)
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    #expect(try consumer.read() == [])
    _ = try producer.sendAndWait(topic: topic, partition: 0, value: bytes("one"))
    #expect(try consumer.read().map { text($0.value) } == ["one"])
    _ = try producer.sendAndWait(topic: topic, partition: 0, value: bytes("two"))
    #expect(try consumer.read().map { text($0.value) } == ["two"])
  }

  @Test func `reading starts at an offset, at the beginning or at the end`() throws {
    let topic = try BusUnderTest.topic()
    let producer = try KafkaProducer(settings, profile: .commands)
    var offsets: [Int64] = []
    for number in 0..<10 { offsets.append(try producer.sendAndWait(topic: topic, partition: 0, value: bytes("\(number)"))) }

    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .offset(offsets[6]))
    #expect(try consumer.read().map { text($0.value) } == ["6", "7", "8", "9"])
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    #expect(try consumer.read().count == 10)
    try consumer.assign(topic: topic, partition: 0, start: .end)
    #expect(try consumer.read() == [])
    let last = try producer.sendAndWait(topic: topic, partition: 0, value: bytes("last"))
    #expect(try consumer.read().map(\.offset) == [last])
  }

  @Test func `an offset that is not there is an error, and reading can go on elsewhere`() throws {
    let topic = try BusUnderTest.topic()
    _ = try KafkaProducer(settings, profile: .commands).sendAndWait(topic: topic, partition: 0, value: bytes("x"))
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .offset(1000))
    var found: KafkaError?
    for _ in 0..<100 where found == nil {
      do throws(KafkaError) { _ = try consumer.poll(timeoutMilliseconds: 100) } catch { found = error }
    }
    guard case .offsetOutOfRange(topic, 0, _) = found else {
      Issue.record("\(String(describing: found))")
      return
    }
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    #expect(try consumer.read(1).count == 1)
  }

  @Test func `an offset can be found by its time`() throws {
    let topic = try BusUnderTest.topic(1, ["message.timestamp.type": "LogAppendTime"])
    let producer = try KafkaProducer(settings, profile: .commands)
    for number in 0..<6 {
      _ = try producer.sendAndWait(topic: topic, partition: 0, value: bytes("\(number)"))
      usleep(3000)
    }
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    let records = try consumer.read(6)
    #expect(zip(records, records.dropFirst()).allSatisfy { $0.timestampMilliseconds < $1.timestampMilliseconds })
    let now = Int64(Date().timeIntervalSince1970 * 1000)
    #expect(records.allSatisfy { abs($0.timestampMilliseconds - now) < 60_000 })

    let admin = try KafkaAdmin(settings)
    for record in records {
      #expect(try admin.offset(topic: topic, partition: 0, atTimestamp: record.timestampMilliseconds) == record.offset)
      #expect(try admin.offset(topic: topic, partition: 0, atTimestamp: record.timestampMilliseconds - 1) == record.offset)
    }
    #expect(try admin.offset(topic: topic, partition: 0, atTimestamp: 0) == records[0].offset)
    #expect(try admin.offset(topic: topic, partition: 0, atTimestamp: now + 3_600_000) == nil)
  }

  @Test func `watermarks tell where a partition begins and ends`() throws {
    let topic = try BusUnderTest.topic(2)
    let admin = try KafkaAdmin(settings)
    #expect(try admin.watermarks(topic: topic, partition: 1) == (0, 0))
    let producer = try KafkaProducer(settings, profile: .commands)
    let offset = try producer.sendAndWait(topic: topic, partition: 1, value: bytes("x"))
    #expect(try admin.watermarks(topic: topic, partition: 1) == (0, offset + 1))
    #expect(try admin.watermarks(topic: topic, partition: 0) == (0, 0))
  }

  @Test func `a topic is made once, with its partitions`() throws {
    let admin = try KafkaAdmin(settings)
    let topic = try BusUnderTest.topic(7)
    #expect(try admin.partitionCount(of: topic) == 7)
    #expect(try admin.createTopics([KafkaTopic(name: topic, partitions: 3)]) == [])
    #expect(try admin.partitionCount(of: topic) == 7)
    #expect(try admin.partitionCount(of: "no-\(topic)") == nil)
    #expect(throws: KafkaError.self) { try admin.createTopics([KafkaTopic(name: "no/../name", partitions: 1)]) }
  }

  @Test func `partitions are logs of their own`() throws {
    let topic = try BusUnderTest.topic(16)
    let producer = try KafkaProducer(settings, profile: .facts)
    for number in 0..<1600 { try producer.send(topic: topic, partition: Int32(number % 16), value: bytes("\(number)")) }
    try producer.flush(timeoutMilliseconds: 10_000)

    let consumer = try KafkaConsumer(settings)
    for partition in 0..<16 { try consumer.assign(topic: topic, partition: Int32(partition), start: .beginning) }
    let records = try consumer.read(1600)
    for partition in 0..<16 {
      let values = records.filter { $0.partition == partition }.map { text($0.value) }
      #expect(values == (0..<100).map { String($0 * 16 + partition) })
    }
  }

  @Test func `partitions can be added and taken away while reading`() throws {
    let topic = try BusUnderTest.topic(2)
    let producer = try KafkaProducer(settings, profile: .commands)
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    _ = try producer.sendAndWait(topic: topic, partition: 0, value: bytes("a"))
    #expect(try consumer.read(1).map { text($0.value) } == ["a"])
    _ = try producer.sendAndWait(topic: topic, partition: 1, value: bytes("b"))
    try consumer.assign(topic: topic, partition: 1, start: .beginning)
    #expect(try consumer.read(1).map { text($0.value) } == ["b"])
    try consumer.unassign(topic: topic, partition: 0)
    _ = try producer.sendAndWait(topic: topic, partition: 0, value: bytes("unread"))
    _ = try producer.sendAndWait(topic: topic, partition: 1, value: bytes("c"))
    #expect(try consumer.read(1).map { text($0.value) } == ["c"])
  }

  @Test func `a large record comes through whole`() throws {
    let topic = try BusUnderTest.topic()
    let producer = try KafkaProducer(settings, profile: .facts)
    let value = (0..<900_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    let offset = try producer.sendAndWait(topic: topic, partition: 0, value: value)
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .offset(offset))
    #expect(try consumer.read(1).map(\.value) == [value])
    #expect(throws: KafkaError.self) {
      try producer.sendAndWait(topic: topic, partition: 0, value: [UInt8](repeating: 0, count: 2_000_000))
    }
  }

  @Test func `an empty value and a missing key come through as they are`() throws {
    let topic = try BusUnderTest.topic()
    let producer = try KafkaProducer(settings, profile: .commands)
    _ = try producer.sendAndWait(topic: topic, partition: 0, value: [])
    _ = try producer.sendAndWait(topic: topic, partition: 0, key: [], value: [0])
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    let records = try consumer.read(2)
    #expect(records.map(\.value) == [[], [0]])
    #expect(records.map(\.key) == [nil, []])
  }

  @Test func `a topic that does not exist is named in the error`() throws {
    let topic = "never-made-\(UInt64.random(in: .min ... .max))"
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    var found: KafkaError?
    for _ in 0..<100 where found == nil {
      do throws(KafkaError) { _ = try consumer.poll(timeoutMilliseconds: 100) } catch { found = error }
    }
    guard case .unknownTopic(topic, _) = found else {
      Issue.record("\(String(describing: found))")
      return
    }
  }

  @Test func `a waiting reader is woken by a record, long before its wait is over`() throws {
    let topic = try BusUnderTest.topic()
    let connection = try RawConnection(BusUnderTest.endpoint())
    let producer = try KafkaProducer(settings, profile: .commands)
    try connection.send(RawRequest.fetch(topic, from: 0, maxWait: 30_000))
    _ = try producer.sendAndWait(topic: topic, partition: 0, value: bytes("now"))
    _ = try connection.receive()  // gives up after a third of the wait
  }

  @Test func `heartbeats arrive as well`() throws {
    let topic = try BusUnderTest.topic()
    let producer = try KafkaProducer(settings, profile: .heartbeats(timeoutMilliseconds: 5000))
    for number in 0..<20 { try producer.send(topic: topic, partition: 0, value: bytes("\(number)")) }
    #expect(try producer.flush(timeoutMilliseconds: 10_000).count == 20)
    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    #expect(try consumer.read(20).map { text($0.value) } == (0..<20).map(String.init))
  }

  // MARK: By hand

  @Test func `a batch sent twice is stored once and answered with its first offset`() throws {
    let topic = try BusUnderTest.topic()
    let connection = try RawConnection(BusUnderTest.endpoint())
    let id = try connection.initProducerID()
    #expect(try connection.initProducerID() != id)
    let first = try connection.produce(topic, TestBatch(values: ["a", "b"], producerID: id, epoch: 0, sequence: 0).bytes)
    let second = try connection.produce(topic, TestBatch(values: ["c"], producerID: id, epoch: 0, sequence: 2).bytes)
    let again = try connection.produce(topic, TestBatch(values: ["a", "b"], producerID: id, epoch: 0, sequence: 0).bytes)
    #expect(first.error == 0 && first.offset == 0)
    #expect(second.error == 0 && second.offset == 2)
    #expect(again.error == 0 && again.offset == 0)
    let beyond = try connection.produce(topic, TestBatch(values: ["e"], producerID: id, epoch: 0, sequence: 4).bytes)
    #expect(beyond.error == 45)  // OUT_OF_ORDER_SEQUENCE_NUMBER
    #expect(try connection.fetch(RawRequest.fetch(topic, from: 0)).highWatermark == 3)
  }

  @Test func `a batch with a wrong checksum is refused and stored nowhere`() throws {
    let topic = try BusUnderTest.topic()
    let connection = try RawConnection(BusUnderTest.endpoint())
    var damaged = TestBatch(values: ["abcdef"]).bytes
    damaged[damaged.count - 3] ^= 1
    #expect(try connection.produce(topic, damaged).error == 2)  // CORRUPT_MESSAGE
    #expect(try connection.fetch(RawRequest.fetch(topic, from: 0)).highWatermark == 0)
  }

  @Test func `what is fetched is what was produced, but for offset, epoch, time and checksum`() throws {
    let topic = try BusUnderTest.topic(1, ["message.timestamp.type": "LogAppendTime"])
    let connection = try RawConnection(BusUnderTest.endpoint())
    let sent = TestBatch(values: ["x", "y"]).bytes
    _ = try connection.produce(topic, sent)
    let stored = try connection.produce(topic, sent)
    #expect(stored.error == 0 && stored.offset == 2 && stored.time > 1_700_000_000_000)
    let fetched = try connection.fetch(RawRequest.fetch(topic, from: 2)).records
    #expect(fetched.count == sent.count)
    var header = Answer(array: fetched[...])
    #expect(header.get(Int64.self) == 2)
    #expect(Array(fetched[61...]) == Array(sent[61...]))
    #expect(Array(fetched[43..<61]) == Array(sent[43..<61]))
    var checksum = Answer(array: fetched[17..<21])
    #expect(checksum.get(UInt32.self) == referenceCRC32C(fetched[21...]))
  }

  @Test func `a reader with a small buffer still gets the batch that it stands before`() throws {
    let topic = try BusUnderTest.topic()
    let connection = try RawConnection(BusUnderTest.endpoint())
    let large = TestBatch(values: [String(repeating: "x", count: 5000)]).bytes
    _ = try connection.produce(topic, large)
    _ = try connection.produce(topic, large)
    let fetched = try connection.fetch(RawRequest.fetch(topic, from: 1, partitionMaxBytes: 100))
    #expect(fetched.error == 0 && fetched.records.count >= large.count)
  }

  @Test func `offsets and topics that do not exist are told apart`() throws {
    let topic = try BusUnderTest.topic()
    let connection = try RawConnection(BusUnderTest.endpoint())
    #expect(try connection.fetch(RawRequest.fetch(topic, from: 5)).error == 1)  // OFFSET_OUT_OF_RANGE
    #expect(try connection.fetch(RawRequest.fetch(topic, from: -7)).error == 1)
    #expect(try connection.fetch(RawRequest.fetch(topic, 9, from: 0)).error == 3)  // UNKNOWN_TOPIC_OR_PARTITION
    #expect(try connection.fetch(RawRequest.fetch("no-\(topic)", from: 0)).error == 3)
    #expect(try connection.produce("no-\(topic)", TestBatch().bytes).error == 3)
  }

  @Test func `an unknown version of ApiVersions is answered in version 0`() throws {
    let connection = try RawConnection(BusUnderTest.endpoint())
    var answer = try connection.ask(RawRequest.header(18, 99).array)
    #expect(answer.get(Int16.self) == 35)  // UNSUPPORTED_VERSION
    let count: Int32 = answer.get()
    var versions: [Int16: ClosedRange<Int16>] = [:]
    for _ in 0..<count { versions[answer.get()] = answer.get()...answer.get() }
    #expect(versions[18]?.contains(0) == true)
  }
}
