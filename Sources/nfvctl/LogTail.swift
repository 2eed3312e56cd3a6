import ControlCodec
import ControlMessages
import ControlPlane
import KafkaLog

/// Reads the newest records of some partitions in the order of their times, and those that come after.
///
/// Records of one partition stay in their order. Between partitions, what was there at the start is merged by
/// time: the record with the smallest time is let out once every partition has shown its next one or its end.
final class LogTail {
  enum Start: Equatable {
    case newest(Int)
    case time(Timestamp)
    case offset(Offset)
  }

  private struct Source: Hashable {
    let topic: String
    let partition: UInt32
  }

  /// Records looked at, at most, for finding the newest that are wanted.
  private static let reach: Int64 = 100_000

  private let consumer: KafkaConsumer
  private let admin: KafkaAdmin
  private let start: Start
  private let topics: [String]
  private let only: ClusterID?
  private var directory: Directory
  private var merge = TimeMerge<LogEntry>()
  private var sources: [Source: Int] = [:]
  /// Where each source ended when it was added. A partition full of heartbeats never says that it has nothing more.
  private var ends: [Int: Int64] = [:]

  init(_ access: LogAccess, only: ClusterID?, start: Start, withCommands: Bool) throws {
    try access.check()
    admin = try KafkaAdmin(access.settings, timeoutMilliseconds: LogAccess.patience)
    consumer = try KafkaConsumer(access.settings)
    self.only = only
    self.start = start
    topics = withCommands ? [ServiceTopics.events, ServiceTopics.commands] : [ServiceTopics.events]
    directory = try Self.directory(access)
    if let only {
      guard let partition = directory.partition(of: only) else { throw Complaint.noCluster(only) }
      try add(partition, from: start)
    } else {
      try add(ServiceTopics.directoryPartition, from: start)
      for entry in directory.entries { try add(entry.partition, from: start) }
    }
  }

  /// What the directory says now. The follower would read the clusters, too; only names are needed here.
  private static func directory(_ access: LogAccess) throws(KafkaError) -> Directory {
    var directory = Directory()
    let consumer = try KafkaConsumer(access.settings)
    try consumer.assign(topic: ServiceTopics.events, partition: Int32(ServiceTopics.directoryPartition), start: .beginning)
    let clock = ContinuousClock()
    let deadline = clock.now + .milliseconds(LogAccess.patience)
    while clock.now < deadline {
      for message in try consumer.poll(timeoutMilliseconds: 50) {
        switch message {
        case .record(let record):
          guard case .event(let event) = LogEntry(record, cluster: nil).content else { continue }
          directory.apply(EventRecord(offset: Offset(UInt64(clamping: record.offset)), timestamp: .zero, event: event))
        case .endOfPartition: return directory
        }
      }
    }
    throw .timedOut(operation: "reading the directory", milliseconds: LogAccess.patience)
  }

  private func add(_ partition: UInt32, from start: Start) throws(KafkaError) {
    for topic in topics where topic == ServiceTopics.events || partition != ServiceTopics.directoryPartition {
      let (low, high) = try admin.watermarks(topic: topic, partition: Int32(partition))
      let first: Int64 =
        switch start {
        case .newest(0): high
        case .newest: max(low, high - Self.reach)
        case .time(let time):
          try admin.offset(topic: topic, partition: Int32(partition), atTimestamp: Int64(clamping: time.milliseconds)) ?? high
        // The offset counts events; commands count for themselves and are shown from their beginning.
        case .offset(let offset): topic == ServiceTopics.events ? min(max(low, Int64(clamping: offset.value)), high) : low
        }
      let source = merge.addSource()
      sources[Source(topic: topic, partition: partition)] = source
      ends[source] = high
      try consumer.assign(topic: topic, partition: Int32(partition), start: .offset(first))
    }
  }

  /// Gives what is wanted to `body`; ends with the end of the log unless it follows.
  func read(
    following: Bool, where isWanted: (LogEntry) -> Bool, until isStopped: () -> Bool, _ body: (LogEntry) -> Void
  ) throws(KafkaError) {
    var newest: [LogEntry] = []
    var isAtEnd = false
    while !isStopped() {
      for message in try consumer.poll(timeoutMilliseconds: 100) {
        switch message {
        case .record(let record):
          let partition = UInt32(clamping: record.partition)
          guard let source = sources[Source(topic: record.topic, partition: partition)] else { continue }
          let entry = LogEntry(record, cluster: directory.cluster(at: partition))
          if partition == ServiceTopics.directoryPartition { try notice(entry, isNew: isAtEnd) }
          if isWanted(entry) {
            merge.add(entry, at: entry.timestamp.milliseconds, from: source)
          } else {
            merge.pass(entry.timestamp.milliseconds, source)
          }
          if let end = ends[source], record.offset + 1 >= end { merge.end(source) }
        case .endOfPartition(let topic, let partition, _):
          if let source = sources[Source(topic: topic, partition: UInt32(clamping: partition))] { merge.end(source) }
        }
      }
      if isAtEnd {
        merge.takeAll().forEach(body)
        continue
      }
      let ready = merge.takeReady()
      if case .newest(let count) = start {
        newest += ready
        if newest.count > 2 * count + 1_000 { newest.removeFirst(newest.count - count) }
      } else {
        ready.forEach(body)
      }
      guard merge.isAtEnd else { continue }
      if case .newest(let count) = start { newest.suffix(count).forEach(body) }
      newest = []
      guard following else { return }
      isAtEnd = true
    }
  }

  /// A cluster that is made while we watch is watched from its beginning.
  private func notice(_ entry: LogEntry, isNew: Bool) throws(KafkaError) {
    guard case .event(let event) = entry.content,
      let added = directory.apply(EventRecord(offset: entry.offset, timestamp: entry.timestamp, event: event))
    else { return }
    try add(added.partition, from: .offset(Offset(0)))
  }
}

/// Brings the items of several sources into the order of their times, each source's own order kept.
struct TimeMerge<Item> {
  private struct Source {
    var items: [(time: UInt64, item: Item)] = []
    var next = 0
    /// Nothing earlier than this can come from it any more.
    var time: UInt64 = 0
    var hasEnded = false
    var isEmpty: Bool { next == items.count }
  }

  private var sources: [Source] = []

  mutating func addSource() -> Int {
    sources.append(Source())
    return sources.count - 1
  }

  /// A source's times may go back a little (clocks do): an item is never earlier than the one before it.
  mutating func add(_ item: Item, at time: UInt64, from source: Int) {
    pass(time, source)
    sources[source].items.append((sources[source].time, item))
  }

  /// The source is at this time and has nothing for us there.
  mutating func pass(_ time: UInt64, _ source: Int) { sources[source].time = max(sources[source].time, time) }

  mutating func end(_ source: Int) { sources[source].hasEnded = true }

  /// Every source has ended, and everything was taken.
  var isAtEnd: Bool { sources.allSatisfy { $0.hasEnded && $0.isEmpty } }

  /// What can be let out: no source can have anything earlier.
  mutating func takeReady() -> [Item] { take(waiting: true) }

  mutating func takeAll() -> [Item] { take(waiting: false) }

  private mutating func take(waiting: Bool) -> [Item] {
    var taken: [Item] = []
    while true {
      let candidates = sources.indices.filter { !sources[$0].isEmpty }
      guard
        let first = candidates.min(by: { sources[$0].items[sources[$0].next].time < sources[$1].items[sources[$1].next].time })
      else { break }
      let head = sources[first].items[sources[first].next]
      if waiting, sources.contains(where: { $0.isEmpty && !$0.hasEnded && $0.time < head.time }) { break }
      taken.append(head.item)
      sources[first].next += 1
    }
    for index in sources.indices where sources[index].next > 0 {
      sources[index].items.removeFirst(sources[index].next)
      sources[index].next = 0
    }
    return taken
  }
}
