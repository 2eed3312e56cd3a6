import ControlCodec
import ControlMessages
import ControlPlane
import KafkaLog

/// Writes what the operator wants into the log.
///
/// One run of the tool is one producer, so that its events are told from those of every other run; its numbers are
/// dense in each partition.
struct OperatorLog {
  /// Names this run's request in every event and command that it leads to.
  let correlation: String
  private let producer: KafkaProducer
  private let id: ProducerID
  private let life: Incarnation
  private var authors: [UInt32: EventAuthor] = [:]

  init(_ settings: KafkaSettings, verb: String) throws(KafkaError) {
    producer = try KafkaProducer(settings, profile: .facts)
    let run = UInt64.random(in: 1 ... .max)
    id = .tool(run)
    life = Incarnation(max(1, Timestamp.now.milliseconds))
    correlation = "\(verb)-\(String(run, radix: 16))"
  }

  /// Writes one event and waits until the log has it. A reader that does not know an operator's request must not
  /// go on as if there were none, so they are all critical.
  mutating func write(_ body: Event.Body, partition: UInt32) throws -> Offset {
    var author = authors[partition] ?? EventAuthor(producer: id, incarnation: life)
    let event = author.write(body, correlation: correlation, isCritical: true)
    authors[partition] = author
    let bytes = RecordCodec.encode(event)
    guard bytes.count <= RecordCodec.maximumRecordSize else {
      throw Complaint(
        "the \(body.name) event has \(bytes.count) bytes; one record of the log holds \(RecordCodec.maximumRecordSize)")
    }
    let offset = try producer.sendAndWait(
      topic: ServiceTopics.events, partition: Int32(clamping: partition), value: bytes, timeoutMilliseconds: LogAccess.patience)
    // The log says only that it has the record when an earlier try got through after all.
    return Offset(UInt64(clamping: offset))
  }
}
