import ControlCodec
import ControlMessages
import ControlPlane
import KafkaLog
import Synchronization

/// Any past state of a cluster, folded again from the nearest state that was kept, on the thread of whoever asks.
///
/// The coordinator's own thread leaves a copy of its state now and then. Copies share their memory until one of them
/// changes; when there are too many, every second one is forgotten and the distance between them doubles.
final class PastStates: Sendable {
  private struct Kept: Sendable {
    var core: ClusterCore
    var chronicle: Chronicle
    var position: UInt64
  }

  private struct History: Sendable {
    var partition: UInt32
    /// Ascending.
    var kept: [Kept] = []
    var distance: UInt64 = 2_000
  }

  enum Answer: Sendable {
    case found(ClusterView)
    case notFound(String)
  }

  private static let most = 64

  private let settings: KafkaSettings
  private let histories = Mutex<[ClusterID: History]>([:])
  private let clock = ContinuousClock()

  init(_ settings: KafkaSettings) { self.settings = settings }

  func note(_ core: ClusterCore, _ chronicle: Chronicle, partition: UInt32) {
    guard let position = core.position?.value else { return }
    histories.withLock { histories in
      var history = histories[core.state.cluster] ?? History(partition: partition)
      defer { histories[core.state.cluster] = history }
      if let last = history.kept.last, position < last.position + history.distance { return }
      history.kept.append(Kept(core: core, chronicle: chronicle, position: position))
      guard history.kept.count > Self.most else { return }
      history.kept = history.kept.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
      history.distance *= 2
    }
  }

  /// The cluster after the record at that offset, or after the last one before it.
  func state(of cluster: ClusterID, at offset: UInt64, patience: Duration = .seconds(20)) -> Answer {
    guard let history = histories.withLock({ $0[cluster] }) else { return .notFound("there is no cluster \(cluster)") }
    let nearest = history.kept.last { $0.position <= offset }
    var core = nearest?.core ?? ClusterCore(cluster: cluster)
    var chronicle = nearest?.chronicle ?? Chronicle()
    let deadline = clock.now + patience
    do throws(KafkaError) {
      let consumer = try KafkaConsumer(settings)
      try consumer.assign(
        topic: ServiceTopics.events, partition: Int32(history.partition),
        start: nearest.map { .offset(Int64(clamping: $0.position) + 1) } ?? .beginning)
      while clock.now < deadline {
        for message in try consumer.poll(timeoutMilliseconds: 100) {
          switch message {
          case .endOfPartition: return .found(ClusterView(core, chronicle))
          case .record(let record):
            guard record.offset <= Int64(clamping: offset) else { return .found(ClusterView(core, chronicle)) }
            if core.position == nil, record.offset > 0 {
              return .notFound("the log begins at offset \(record.offset), and no state from before that was kept")
            }
            guard let event = try? RecordCodec.decodeEvent(record.value) else { continue }
            let whole = EventRecord(
              offset: Offset(UInt64(clamping: record.offset)),
              timestamp: Timestamp(milliseconds: UInt64(clamping: record.timestampMilliseconds)), event: event)
            chronicle.take(whole, decided: core.apply(whole))
            if record.offset == Int64(clamping: offset) { return .found(ClusterView(core, chronicle)) }
          }
        }
      }
    } catch {
      return .notFound("\(error)")
    }
    return .notFound("the log was not read in time")
  }
}
