import ArgumentParser
import ControlCodec
import ControlMessages
import ControlPlane
import KafkaLog
import LogAnalysis
import NodeSupport

/// Where a log is read from: a broker, or a file written by `nfvctl export`. Every tool that looks back works on both alike.
protocol LogSource {
  /// For people: where it is.
  var name: String { get }
  /// The partitions of a topic, ascending; none if it is not there.
  func partitions(of topic: String) throws -> [UInt32]
  /// The first offset, and the one after the last; nil: no record.
  func extent(of place: LogPartition) throws -> Range<UInt64>?
  /// Reads a partition from an offset, or its beginning, to the end that it has now.
  func open(_ place: LogPartition, from offset: Offset?) throws -> any PartitionReader
}

/// One partition, read forwards once.
protocol PartitionReader: AnyObject {
  /// nil: the end.
  func next() throws -> LogRecord?
}

extension LogSource {
  /// Which cluster has which partition.
  func directory() throws -> Directory {
    var directory = Directory()
    let reader = try open(LogPartition(ServiceTopics.events, ServiceTopics.directoryPartition), from: nil)
    while let record = try reader.next() { if let event = try? record.event() { directory.apply(event) } }
    return directory
  }

  /// The cluster that is asked for, or the only one there is.
  func cluster(_ wanted: ClusterID?) throws -> Directory.Entry {
    let entries = try directory().entries
    if let wanted {
      guard let found = entries.first(where: { $0.cluster == wanted }) else { throw Complaint.noCluster(wanted) }
      return found
    }
    guard let first = entries.first else { throw Complaint("\(name) has no clusters") }
    guard entries.count == 1 else {
      throw Complaint(
        "there are the clusters \(entries.map(\.cluster.name).joined(separator: ", ")); say which with --cluster",
        status: ExitStatus.usage)
    }
    return first
  }
}

/// The options of the tools that look back.
struct LogSourceOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("Read a log that `nfvctl export` wrote, instead of a broker's.", valueName: "file"), completion: .file())
  var file: String?

  @OptionGroup var log: LogAccess

  func open() throws -> any LogSource {
    if let file { return try ArchiveFile(file) }
    try log.check()
    return try BrokerSource(log)
  }
}

extension LogRecord {
  func event() throws(CodecError) -> EventRecord {
    EventRecord(offset: offset, timestamp: timestamp, event: try RecordCodec.decodeEvent(value))
  }

  func command() throws(CodecError) -> CommandRecord {
    CommandRecord(offset: offset, timestamp: timestamp, command: try RecordCodec.decodeCommand(value))
  }
}

/// The events or the commands of a cluster, decoded. What cannot be read is passed over, as every reader of the log does.
final class DecodedPartition<Value> {
  private let reader: any PartitionReader
  private let decode: (LogRecord) throws(CodecError) -> Value
  private(set) var check: PartitionCheck
  private(set) var unreadable = Findings()
  private let place: LogPartition

  init(
    _ source: any LogSource, _ place: LogPartition, from offset: Offset? = nil,
    _ decode: @escaping (LogRecord) throws(CodecError) -> Value
  )
    throws
  {
    reader = try source.open(place, from: offset)
    check = PartitionCheck(place)
    self.place = place
    self.decode = decode
  }

  func next() throws -> Value? {
    while let record = try reader.next() {
      check.take(record.offset, record.timestamp)
      do throws(CodecError) { return try decode(record) } catch {
        unreadable.add(Finding(.unreadable, place, at: record.offset, "the record cannot be read: \(error)"))
      }
    }
    return nil
  }
}

extension LogSource {
  func events(of partition: UInt32, from offset: Offset? = nil) throws -> DecodedPartition<EventRecord> {
    try DecodedPartition(self, LogPartition(ServiceTopics.events, partition), from: offset) { record throws(CodecError) in
      try record.event()
    }
  }

  func commands(of partition: UInt32) throws -> DecodedPartition<CommandRecord> {
    try DecodedPartition(self, LogPartition(ServiceTopics.commands, partition)) { record throws(CodecError) in
      try record.command()
    }
  }
}
