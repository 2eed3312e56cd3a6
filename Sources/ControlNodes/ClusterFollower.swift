import ControlCodec
import ControlMessages
import ControlPlane
import KafkaLog

/// Reads the log of the directory and of clusters from its beginning, and folds it as it comes.
///
/// Coordinators, `nfvctl` and the lab's live view stand on it: whoever reads the log knows the state. One thread at a
/// time may use a follower.
///
/// ```
///   nfv.events[0] ───▶ Directory ──▶ which partitions to follow
///   nfv.events[p] ───▶ ClusterCore ──▶ state, computed commands ─┐
///   nfv.commands[p] ─────────────────────────────────────────────┴─▶ CommandOutbox: what the log lacks
/// ```
public final class ClusterFollower {
  public enum Item: Sendable {
    case clusterFound(Directory.Entry)
    /// An event of a cluster, and the commands that it led to, in the log already or not.
    case event(ClusterID, EventRecord, decided: [Command])
    /// A record of the commands topic; it is the command of its slot iff `reading` is `taken`.
    case command(ClusterID, CommandRecord, SlotReader.Reading)
    case unreadable(DeadLetter)
    /// Everything that was in the log when this came has been read. Comes once.
    case caughtUp
  }

  /// One cluster as far as its log was read.
  public struct Cluster {
    public let id: ClusterID
    public let partition: UInt32
    public internal(set) var core: ClusterCore
    public internal(set) var outbox = CommandOutbox()
    /// The two partitions were read to their ends since the follower began.
    public internal(set) var isCaughtUp = false
    /// The log no longer begins at its beginning: the state lacks what was deleted, and must not be acted upon.
    public internal(set) var lacksBeginning = false
    public var state: ClusterState { core.state }

    /// Topics whose partition was read to its end.
    var reachedEnds: Set<String> = []
    var hasSeenRecords = false
  }

  public private(set) var directory = Directory()
  /// Ascending by partition.
  public private(set) var clusters: [Cluster] = []
  /// The directory and every followed cluster were read to their ends once.
  public private(set) var isCaughtUp = false

  private let consumer: KafkaConsumer
  private let only: ClusterID?
  private var isDirectoryRead = false

  /// Follows every cluster of the directory, or one only.
  public init(_ settings: KafkaSettings, only: ClusterID? = nil) throws(KafkaError) {
    self.only = only
    consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: ServiceTopics.events, partition: Int32(ServiceTopics.directoryPartition), start: .beginning)
  }

  public var status: KafkaStatus { consumer.status }
  public func takeLog() -> [KafkaLogLine] { consumer.takeLog() }

  public func cluster(_ id: ClusterID) -> Cluster? { clusters.first { $0.id == id } }

  /// What came, in the order of each partition; waits up to the timeout for the first of it.
  public func poll(timeoutMilliseconds: Int) throws(KafkaError) -> [Item] {
    var items: [Item] = []
    for message in try consumer.poll(timeoutMilliseconds: timeoutMilliseconds) {
      switch message {
      case .record(let record):
        if record.partition == Int32(ServiceTopics.directoryPartition) {
          try readDirectory(record, &items)
        } else if let index = clusters.firstIndex(where: { Int32($0.partition) == record.partition }) {
          read(record, of: index, &items)
        }
      case .endOfPartition(let topic, let partition, _):
        if partition == Int32(ServiceTopics.directoryPartition) {
          isDirectoryRead = true
        } else if let index = clusters.firstIndex(where: { Int32($0.partition) == partition }) {
          clusters[index].reachedEnds.insert(topic)
          if clusters[index].reachedEnds.count == 2 { clusters[index].isCaughtUp = true }
        }
      }
    }
    if !isCaughtUp, isDirectoryRead, clusters.allSatisfy({ $0.isCaughtUp }) {
      isCaughtUp = true
      items.append(.caughtUp)
    }
    return items
  }

  /// Reads until everything that is in the log has been read. `noticing` sees what came on the way.
  public func catchUp(timeoutMilliseconds: Int, noticing: (Item) -> Void = { _ in }) throws(KafkaError) {
    let clock = ContinuousClock()
    let deadline = clock.now + .milliseconds(timeoutMilliseconds)
    while !isCaughtUp {
      for item in try poll(timeoutMilliseconds: 50) { noticing(item) }
      if !isCaughtUp, clock.now >= deadline {
        throw .timedOut(
          operation: status.problem.map { "reading the log (\($0))" } ?? "reading the log", milliseconds: timeoutMilliseconds)
      }
    }
  }

  /// What a coordinator has to write for a cluster now: nothing before it has caught up.
  public func takeMissingCommands(of id: ClusterID) -> [Command] {
    guard let index = clusters.firstIndex(where: { $0.id == id }), clusters[index].isCaughtUp, !clusters[index].lacksBeginning
    else { return [] }
    return clusters[index].outbox.takeMissing()
  }

  /// What was taken for partition `partition` may not have reached the log.
  public func writingFailed(partition: UInt32) {
    guard let index = clusters.firstIndex(where: { $0.partition == partition }) else { return }
    clusters[index].outbox.writingFailed()
  }

  // MARK: Records

  private func readDirectory(_ record: KafkaRecord, _ items: inout [Item]) throws(KafkaError) {
    guard let event = event(record, &items) else { return }
    guard let entry = directory.apply(event), only == nil || only == entry.cluster else { return }
    clusters.append(Cluster(id: entry.cluster, partition: entry.partition, core: ClusterCore(cluster: entry.cluster)))
    for topic in [ServiceTopics.events, ServiceTopics.commands] {
      try consumer.assign(topic: topic, partition: Int32(entry.partition), start: .beginning)
    }
    items.append(.clusterFound(entry))
  }

  private func read(_ record: KafkaRecord, of index: Int, _ items: inout [Item]) {
    if record.topic == ServiceTopics.events {
      if !clusters[index].hasSeenRecords { clusters[index].lacksBeginning = record.offset > 0 }
      clusters[index].hasSeenRecords = true
      guard let event = event(record, &items) else { return }
      let decided = clusters[index].core.apply(event)
      clusters[index].outbox.computed(decided)
      items.append(.event(clusters[index].id, event, decided: decided))
    } else {
      do throws(CodecError) {
        let command = CommandRecord(
          offset: Offset(UInt64(clamping: record.offset)), timestamp: Timestamp(milliseconds: UInt64(clamping: record.timestampMilliseconds)),
          command: try RecordCodec.decodeCommand(record.value))
        let reading = clusters[index].outbox.read(command.command)
        items.append(.command(clusters[index].id, command, reading))
      } catch {
        items.append(.unreadable(DeadLetter(record, error)))
      }
    }
  }

  private func event(_ record: KafkaRecord, _ items: inout [Item]) -> EventRecord? {
    do throws(CodecError) {
      return EventRecord(
        offset: Offset(UInt64(clamping: record.offset)), timestamp: Timestamp(milliseconds: UInt64(clamping: record.timestampMilliseconds)),
        event: try RecordCodec.decodeEvent(record.value))
    } catch {
      items.append(.unreadable(DeadLetter(record, error)))
      return nil
    }
  }
}

extension DeadLetter {
  init(_ record: KafkaRecord, _ error: CodecError) {
    self.init(
      topic: record.topic, partition: UInt32(clamping: record.partition), offset: Offset(UInt64(clamping: record.offset)),
      reason: "\(error)")
  }
}
