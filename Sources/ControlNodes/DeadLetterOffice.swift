import ControlCodec
import ControlMessages
import KafkaLog

/// Writes each unreadable record's letter once into `nfv.dead-letters`, also when several replicas found it, or one
/// replica again after a restart: it reads first which letters are there.
///
/// A letter has the partition of its record.
struct DeadLetterOffice {
  /// Beyond this many unposted letters, further ones are only logged: a partition full of rubbish is one finding.
  private static let capacity = 1_000

  private struct Place: Hashable {
    var topic: String
    var partition: UInt32
    var offset: Offset

    init(_ letter: DeadLetter) {
      topic = letter.topic
      partition = letter.partition
      offset = letter.offset
    }
  }

  private let reader: KafkaConsumer
  private let writer: KafkaProducer
  private var unposted: [DeadLetter] = []
  /// Partitions of the topic that are read, and whether to their ends.
  private var read: [UInt32: Bool] = [:]
  private var posted: Set<Place> = []

  init(_ settings: KafkaSettings) throws(KafkaError) {
    reader = try KafkaConsumer(settings)
    writer = try KafkaProducer(settings, profile: .facts)
  }

  mutating func keep(_ letter: DeadLetter) {
    if unposted.count < Self.capacity { unposted.append(letter) }
  }

  /// Posts what is known to be missing. Does not wait; what cannot be posted yet stays.
  mutating func post() throws(KafkaError) {
    for delivery in writer.poll(timeoutMilliseconds: 0) {
      if case .failed(let error) = delivery.outcome { throw error }
    }
    guard !unposted.isEmpty else { return }
    for letter in unposted where read[letter.partition] == nil {
      read[letter.partition] = false
      try reader.assign(topic: ServiceTopics.deadLetters, partition: Int32(letter.partition), start: .beginning)
    }
    for message in try reader.poll(timeoutMilliseconds: 0) {
      switch message {
      case .record(let record):
        if let letter = try? RecordCodec.decodeDeadLetter(record.value) { posted.insert(Place(letter)) }
      case .endOfPartition(_, let partition, _): read[UInt32(clamping: partition)] = true
      }
    }
    var kept: [DeadLetter] = []
    for letter in unposted {
      if read[letter.partition] != true {
        kept.append(letter)
      } else if posted.insert(Place(letter)).inserted {
        try writer.send(topic: ServiceTopics.deadLetters, partition: Int32(letter.partition), value: RecordCodec.encode(letter))
      }
    }
    unposted = kept
  }
}
