import ControlCodec
import ControlMessages
import KafkaLog
import Logging

/// What a node or agent says to the log: facts, kept until they are in it, and signals, now or never.
///
/// Belongs to one thread. The data plane does not need the log to keep going: while the log is away, facts wait in
/// a bounded queue and signals are lost, as they should be.
final class LogVoice {
  private let settings: KafkaSettings
  private let logger: Logger
  private var facts: KafkaProducer
  private let signals: KafkaProducer
  private let producer: ProducerID
  private let incarnation: Incarnation
  private var authors: [UInt32: EventAuthor] = [:]
  /// Facts without an outcome yet, in order. A producer that failed fatally is made anew and they are sent again;
  /// the reader knows them by their sequence.
  private var unsettled: [(id: UInt64, partition: UInt32, record: [UInt8])] = []
  private(set) var lost: UInt64 = 0
  /// Facts that are not in the log yet.
  var backlog: Int { unsettled.count }

  private static var longestQueue: Int { 65_536 }

  init(settings: KafkaSettings, producer: ProducerID, incarnation: Incarnation, logger: Logger) throws(KafkaError) {
    self.settings = settings
    self.producer = producer
    self.incarnation = incarnation
    self.logger = logger
    facts = try KafkaProducer(settings, profile: .facts)
    signals = try KafkaProducer(settings, profile: .heartbeats)
  }

  func say(_ body: Event.Body, to partition: UInt32, causation: Event.Causation = .none) {
    let event = authors[partition, default: EventAuthor(producer: producer, incarnation: incarnation)].write(body, causation: causation)
    let record = RecordCodec.encode(event)
    switch body.lane {
    case .signals:
      _ = try? signals.send(topic: ServiceTopics.events, partition: Int32(partition), value: record)
    case .facts:
      guard unsettled.count < Self.longestQueue else {
        lost += 1
        return
      }
      let id = (try? facts.send(topic: ServiceTopics.events, partition: Int32(partition), value: record)) ?? 0
      unsettled.append((id, partition, record))
    }
  }

  /// Takes delivery reports; call often.
  func settle() {
    _ = signals.poll(timeoutMilliseconds: 0)
    take(facts.poll(timeoutMilliseconds: 0))
  }

  private func take(_ deliveries: [KafkaDelivery]) {
    guard !deliveries.isEmpty || unsettled.first?.id == 0 else { return }
    var stored: Set<UInt64> = []
    var failure: KafkaError?
    for delivery in deliveries {
      switch delivery.outcome {
      case .stored: stored.insert(delivery.id)
      case .failed(let error): failure = error
      }
    }
    unsettled.removeAll { stored.contains($0.id) }
    if let failure {
      logger.warning("The log did not take a record; sending again.", metadata: ["problem": "\(failure)"])
      sendAgain()
    } else if unsettled.first?.id == 0 {
      sendAgain()
    }
  }

  /// A new producer, and everything that has no outcome again, in order. Readers pass over what they have.
  private func sendAgain() {
    guard let producer = try? KafkaProducer(settings, profile: .facts) else { return }
    facts = producer
    for index in unsettled.indices {
      unsettled[index].id =
        (try? facts.send(topic: ServiceTopics.events, partition: Int32(unsettled[index].partition), value: unsettled[index].record)) ?? 0
    }
  }

  /// Waits for what is on its way, at most so long.
  func finish(milliseconds: Int) {
    if let outcomes = try? facts.flush(timeoutMilliseconds: milliseconds) { take(outcomes) }
    if !unsettled.isEmpty {
      logger.warning("Facts did not reach the log.", metadata: ["count": "\(unsettled.count)", "bootstrap": "\(settings.bootstrap)"])
    }
  }

  func logProblems() {
    for client in [facts.takeLog(), signals.takeLog()] {
      for line in client where line.level <= 4 { logger.debug("\(line.text)", metadata: ["librdkafka": "\(line.facility)"]) }
    }
  }
}
