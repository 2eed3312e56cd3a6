import ControlMessages
import ControlPlane

/// What would have been decided: the events of a log folded again, some of them exchanged, and the decisions compared with
/// those that were made.
///
/// The world answers as it did: a node that only the alternative launches never starts, and so on. What is shown is what
/// the core would have asked for given the events that happened, not what would have happened.
///
/// Exchanged are what operators say (today the spec of the cluster; any body that is an operator's intent will do): `instead`
/// is said at the first event of the range, and recorded events of the same kind within it are passed over.
public struct Replay: Sendable {
  /// An event whose decisions are others.
  public struct Difference: Hashable, Sendable {
    public let offset: Offset
    public let timestamp: Timestamp
    /// What the event said.
    public let event: String
    /// Decided at the time, and not again.
    public let dropped: [Command]
    /// Decided only now.
    public let added: [Command]
  }

  private let range: ClosedRange<Offset>
  private let instead: [Event.Body]
  private var core: ClusterCore
  private var stream: CommandStream
  /// The next command of the log, read and not yet compared.
  private var ahead: CommandRecord?
  /// The exchanged events take offsets, which those behind them move by.
  private var shift: UInt64 = 0
  private var hasBegun = false

  public private(set) var eventCount: UInt64 = 0
  public private(set) var recordedCount: UInt64 = 0
  public private(set) var decidedCount: UInt64 = 0

  public init(cluster: ClusterID, partition: UInt32, range: ClosedRange<Offset>, instead: [Event.Body] = []) {
    self.range = range
    self.instead = instead
    core = ClusterCore(cluster: cluster)
    stream = CommandStream(LogPartition(ServiceTopics.commands, partition))
  }

  /// The state that the events would have led to.
  public var state: ClusterState { core.state }

  /// Folds one event; tells how its decisions differ from the recorded ones, if they do and it lies in the range.
  public mutating func take(_ record: EventRecord, nextCommand: () throws -> CommandRecord?) rethrows -> Difference? {
    let recorded = try commands(decidedBy: record.offset, nextCommand)
    guard record.offset >= range.lowerBound else {
      _ = core.apply(record)
      return nil
    }
    guard record.offset <= range.upperBound else { return nil }
    var decided = hasBegun ? [] : sayInstead(record)
    hasBegun = true
    eventCount += 1
    if !instead.contains(where: { $0.name == record.event.body.name }) {
      var shifted = record
      shifted.offset = Offset(record.offset.value &+ shift)
      decided += core.apply(shifted)
    }
    recordedCount += UInt64(recorded.count)
    decidedCount += UInt64(decided.count)
    let (dropped, added) = Self.difference(recorded, decided)
    guard !dropped.isEmpty || !added.isEmpty else { return nil }
    return Difference(
      offset: record.offset, timestamp: record.timestamp, event: "\(record.event.body.name) \(record.event.body.summary)",
      dropped: dropped, added: added)
  }

  private mutating func sayInstead(_ first: EventRecord) -> [Command] {
    // A producer that no log has; its life says nothing.
    guard let producer = ProducerID("replay") else { return [] }
    var author = EventAuthor(producer: producer, incarnation: Incarnation(1))
    return instead.flatMap { body in
      defer { shift += 1 }
      return core.apply(
        EventRecord(
          offset: Offset(first.offset.value &+ shift), timestamp: first.timestamp,
          event: author.write(body, correlation: "replay", isCritical: true)))
    }
  }

  private mutating func commands(decidedBy offset: Offset, _ read: () throws -> CommandRecord?) rethrows -> [Command] {
    var found: [Command] = []
    while true {
      if ahead == nil { ahead = try stream.next(read) }
      guard let next = ahead, next.command.decision.offset <= offset else { return found }
      found.append(next.command)
      ahead = nil
    }
  }

  /// What only one of the two lists asks for. Slots, hashes, reasons and the numbers of tables follow from what was
  /// decided before and do not count.
  static func difference(_ recorded: [Command], _ decided: [Command]) -> (dropped: [Command], added: [Command]) {
    var rest = decided
    var dropped: [Command] = []
    for command in recorded {
      if let index = rest.firstIndex(where: { $0.asksTheSame(as: command) }) {
        rest.remove(at: index)
      } else {
        dropped.append(command)
      }
    }
    return (dropped, rest)
  }
}

extension Command {
  func asksTheSame(as other: Command) -> Bool {
    guard target == other.target else { return false }
    if case .notifyClusterConfig(let table) = body, case .notifyClusterConfig(let otherTable) = other.body {
      return table.members == otherTable.members
    }
    return body == other.body
  }
}
