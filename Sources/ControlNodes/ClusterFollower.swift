import ControlCodec
import ControlMessages
import ControlPlane
import KafkaLog

/// Reads the log of the directory and of clusters, and folds it as it comes: from its beginning, or from each
/// cluster's newest snapshot.
///
/// Coordinators, `nfvctl` and the lab's live view stand on it: whoever reads the log knows the state. One thread at a
/// time may use a follower.
///
/// ```
///   nfv.events[0] ───▶ Directory ──▶ which partitions to follow
///   nfv.snapshots[p] ▶ SnapshotAssembly ──▶ where to begin, if that is wanted
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
    /// How the other replicas' beacons compare with what was folded here; for replicas only.
    public internal(set) var agreement: Agreement?
    /// The snapshot that folding began from, or that was taken last.
    public internal(set) var snapshot: SnapshotManifest?
    /// The two partitions were read to their ends since the follower began.
    public internal(set) var isCaughtUp = false
    /// The log no longer begins at its beginning: the state lacks what was deleted, and must not be acted upon.
    public internal(set) var lacksBeginning = false
    public var state: ClusterState { core.state }

    /// Topics whose partition was read as far as it went when the follower first knew its end.
    var reachedEnds: Set<String> = []
    var hasSeenRecords = false
    /// Snapshots read so far; nil once folding has begun.
    var assembly: SnapshotAssembly?
    /// Where reading `nfv.commands` would go on.
    var nextCommand = Offset(0)
  }

  public private(set) var directory = Directory()
  /// Ascending by partition.
  public private(set) var clusters: [Cluster] = []
  /// The directory and every followed cluster were read to their ends once.
  public private(set) var isCaughtUp = false

  private let consumer: KafkaConsumer
  private let only: ClusterID?
  private let startsFromSnapshots: Bool
  private let replica: ProducerID?
  private var isDirectoryRead = false
  /// Where partitions ended when that was first known, by topic and partition. A busy one has always grown by the time
  /// its last record is here: whoever waits for the present end waits for a pause.
  private var firstEnds: [String: [Int32: Int64]] = [:]
  private let clock = ContinuousClock()
  private let began = ContinuousClock().now

  /// Follows every cluster of the directory, or one only.
  ///
  /// - Parameters:
  ///   - startsFromSnapshots: begin with each cluster's newest snapshot. Its state is the same, at once; what came
  ///     before is not told as items.
  ///   - replica: who compares himself with other replicas; nil for tools, which do not write commands.
  public init(
    _ settings: KafkaSettings, only: ClusterID? = nil, startsFromSnapshots: Bool = false, replica: ProducerID? = nil
  ) throws(KafkaError) {
    self.only = only
    self.startsFromSnapshots = startsFromSnapshots
    self.replica = replica
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
          if record.topic == ServiceTopics.snapshots { readSnapshot(record, of: index) } else { read(record, of: index, &items) }
          guard !clusters[index].isCaughtUp else { continue }
        }
        if let end = firstEnd(record.topic, record.partition), record.offset + 1 >= end {
          try reachedEnd(of: record.topic, record.partition)
        }
      case .endOfPartition(let topic, let partition, _):
        try reachedEnd(of: topic, partition)
      }
    }
    if !isCaughtUp, isDirectoryRead, clusters.allSatisfy({ $0.isCaughtUp }) {
      isCaughtUp = true
      items.append(.caughtUp)
    }
    return items
  }

  private func firstEnd(_ topic: String, _ partition: Int32) -> Int64? {
    if let end = firstEnds[topic]?[partition] { return end }
    guard let end = consumer.knownEnd(topic: topic, partition: partition) else { return nil }
    firstEnds[topic, default: [:]][partition] = end
    return end
  }

  private func reachedEnd(of topic: String, _ partition: Int32) throws(KafkaError) {
    if partition == Int32(ServiceTopics.directoryPartition) {
      isDirectoryRead = true
    } else if let index = clusters.firstIndex(where: { Int32($0.partition) == partition }) {
      if topic == ServiceTopics.snapshots {
        if clusters[index].assembly != nil { try begin(index) }
      } else {
        clusters[index].reachedEnds.insert(topic)
        if clusters[index].reachedEnds.count == 2 { clusters[index].isCaughtUp = true }
      }
    }
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

  /// What a coordinator has to write for a cluster now: nothing before it has caught up, nothing when it came to
  /// something else than most of the others, and nothing before those of a better rank have had their `hedge` each,
  /// in milliseconds.
  public func takeMissingCommands(of id: ClusterID, hedge: UInt64 = 0) -> [Command] {
    guard let index = clusters.firstIndex(where: { $0.id == id }), clusters[index].isCaughtUp, !clusters[index].lacksBeginning,
      clusters[index].objection == nil
    else { return [] }
    let rank = replica.map { clusters[index].state.rank(of: $0) } ?? 0
    return clusters[index].outbox.takeMissing(now: now, hedge: UInt64(rank) * hedge)
  }

  /// Whether some command is held back for a hedge: then polls should be short.
  public var isHedging: Bool { clusters.contains { $0.isCaughtUp && $0.outbox.isHolding } }

  /// Milliseconds since this follower began, for hedges.
  private var now: UInt64 {
    let elapsed = (clock.now - began).components
    return UInt64(max(0, elapsed.seconds)) * 1_000 + UInt64(max(0, elapsed.attoseconds)) / 1_000_000_000_000_000
  }

  /// A cluster's state as records for `nfv.snapshots`; empty while the log lacks commands of it, so that its slot is
  /// in the log for certain.
  public func takeSnapshot(of id: ClusterID, writer: UInt64) -> [SnapshotRecord] {
    guard let index = clusters.firstIndex(where: { $0.id == id }), clusters[index].isCaughtUp, !clusters[index].lacksBeginning,
      clusters[index].objection == nil, clusters[index].outbox.isSettled
    else { return [] }
    let core = clusters[index].core
    let records = SnapshotAssembly.records(
      of: core, bytes: RecordCodec.encode(core), writer: writer, commandsOffset: clusters[index].nextCommand)
    if case .manifest(let manifest) = records.last { clusters[index].snapshot = manifest }
    return records
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
    var cluster = Cluster(id: entry.cluster, partition: entry.partition, core: ClusterCore(cluster: entry.cluster))
    cluster.agreement = replica.map(Agreement.init(own:))
    if startsFromSnapshots { cluster.assembly = SnapshotAssembly() }
    clusters.append(cluster)
    if startsFromSnapshots {
      try consumer.assign(topic: ServiceTopics.snapshots, partition: Int32(entry.partition), start: .beginning)
    } else {
      try begin(clusters.count - 1)
    }
    items.append(.clusterFound(entry))
  }

  private func readSnapshot(_ record: KafkaRecord, of index: Int) {
    // What cannot be read is no snapshot; there may be an older one, and there is always the log.
    guard let snapshot = try? RecordCodec.decodeSnapshotRecord(record.value) else { return }
    clusters[index].assembly?.read(snapshot)
  }

  /// Starts folding a cluster: after the newest snapshot that can be read, or at the log's beginning.
  private func begin(_ index: Int) throws(KafkaError) {
    let partition = Int32(clusters[index].partition)
    if clusters[index].assembly != nil { try consumer.unassign(topic: ServiceTopics.snapshots, partition: partition) }
    let found = clusters[index].assembly?.found ?? []
    clusters[index].assembly = nil
    for snapshot in found.reversed() {
      guard snapshot.manifest.cluster == clusters[index].id, let core = try? RecordCodec.decodeCore(snapshot.bytes),
        core.state.cluster == clusters[index].id
      else { continue }
      clusters[index].core = core
      clusters[index].outbox = CommandOutbox(after: snapshot.manifest.slot)
      clusters[index].snapshot = snapshot.manifest
      clusters[index].nextCommand = snapshot.manifest.commandsOffset
      try consumer.assign(
        topic: ServiceTopics.events, partition: partition, start: .offset(Int64(clamping: snapshot.manifest.position.value) + 1))
      try consumer.assign(
        topic: ServiceTopics.commands, partition: partition,
        start: .offset(Int64(clamping: snapshot.manifest.commandsOffset.value)))
      return
    }
    try consumer.assign(topic: ServiceTopics.events, partition: partition, start: .beginning)
    try consumer.assign(topic: ServiceTopics.commands, partition: partition, start: .beginning)
  }

  private func read(_ record: KafkaRecord, of index: Int, _ items: inout [Item]) {
    if record.topic == ServiceTopics.events {
      if !clusters[index].hasSeenRecords { clusters[index].lacksBeginning = clusters[index].snapshot == nil && record.offset > 0 }
      clusters[index].hasSeenRecords = true
      guard let event = event(record, &items) else { return }
      let decided = clusters[index].core.apply(event)
      clusters[index].outbox.computed(decided, now: now)
      let core = clusters[index].core
      clusters[index].agreement?.note(core, event)
      items.append(.event(clusters[index].id, event, decided: decided))
    } else {
      clusters[index].nextCommand = Offset(UInt64(clamping: record.offset) + 1)
      do throws(CodecError) {
        let command = CommandRecord(
          offset: Offset(UInt64(clamping: record.offset)),
          timestamp: Timestamp(milliseconds: UInt64(clamping: record.timestampMilliseconds)),
          command: try RecordCodec.decodeCommand(record.value))
        let reading = clusters[index].outbox.read(command.command, now: now)
        items.append(.command(clusters[index].id, command, reading))
      } catch {
        items.append(.unreadable(DeadLetter(record, error)))
      }
    }
  }

  private func event(_ record: KafkaRecord, _ items: inout [Item]) -> EventRecord? {
    do throws(CodecError) {
      return EventRecord(
        offset: Offset(UInt64(clamping: record.offset)),
        timestamp: Timestamp(milliseconds: UInt64(clamping: record.timestampMilliseconds)),
        event: try RecordCodec.decodeEvent(record.value))
    } catch {
      items.append(.unreadable(DeadLetter(record, error)))
      return nil
    }
  }
}

extension ClusterFollower.Cluster {
  /// Why this replica may not write, if so.
  public var objection: Agreement.Disagreement? { agreement?.objection(among: state.liveReplicas) }
}

extension DeadLetter {
  init(_ record: KafkaRecord, _ error: CodecError) {
    self.init(
      topic: record.topic, partition: UInt32(clamping: record.partition), offset: Offset(UInt64(clamping: record.offset)),
      reason: "\(error)")
  }
}
