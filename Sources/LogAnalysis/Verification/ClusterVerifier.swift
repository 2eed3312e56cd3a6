import ControlMessages
import ControlPlane

/// Decides everything once more and compares it with what the log says was decided.
///
/// The events are folded by the coordinators' own core; each command that follows has to be the next one in the log, equal
/// in every field, its state hash included. What does not follow from the events was not decided from them: an event or a
/// command was changed, is missing, or another version decided.
///
/// The caller hands in the events one after another, and reads commands when it is asked to, so nothing is held in memory.
///
/// Snapshots are recomputed, too: each has to hold the state that the events before it lead to. Where the log's beginning is
/// gone, the fold begins at the oldest snapshot that all later events are there for; that one is believed.
public struct ClusterVerifier: Sendable {
  public private(set) var core: ClusterCore
  private let events: LogPartition
  private let commands: LogPartition
  private var sequences: EventSequences
  private var stream: CommandStream
  private var own = Findings()
  private var hasBeginning: Bool?
  /// Not yet passed, ascending by position.
  private var snapshots: [RecordedSnapshot]
  private let startsAtNewest: Bool
  private var isFirst = true
  /// Where the fold began, if it was at a snapshot.
  public private(set) var start: SnapshotManifest?
  /// Snapshots that hold what the events lead to.
  public private(set) var agreedSnapshots = 0
  public private(set) var eventCount: UInt64 = 0
  /// Commands that were decided again and were the same.
  public private(set) var agreedCount: UInt64 = 0
  /// Commands that follow from the events and are not in the log (yet).
  public private(set) var unwrittenCount: UInt64 = 0

  /// - Parameters:
  ///   - snapshots: all that are to be recomputed, in any order.
  ///   - startsAtNewest: believe the newest snapshot and decide only what came after it.
  public init(cluster: ClusterID, partition: UInt32, snapshots: [RecordedSnapshot] = [], startsAtNewest: Bool = false) {
    self.snapshots = snapshots.filter { $0.manifest.cluster == cluster }.sorted { $0.manifest.position < $1.manifest.position }
    self.startsAtNewest = startsAtNewest
    core = ClusterCore(cluster: cluster)
    events = LogPartition(ServiceTopics.events, partition)
    commands = LogPartition(ServiceTopics.commands, partition)
    sequences = EventSequences(events)
    stream = CommandStream(commands)
  }

  public var findings: Findings {
    var all = sequences.findings
    all.add(stream.findings)
    all.add(own)
    return all
  }

  public var repeatedEventCount: Int { sequences.repeatedCount }
  public var copyCount: Int { stream.copyCount }
  public var commandCount: UInt64 { stream.takenCount }

  public mutating func take(_ record: EventRecord, nextCommand: () throws -> CommandRecord?) rethrows {
    eventCount += 1
    sequences.take(record)
    if isFirst { begin(at: record.offset) }
    guard hasBeginning == true else { return }
    // Before the snapshot that the fold begins with.
    if let start, record.offset <= start.position { return }
    defer { compareSnapshots(at: record.offset) }
    let couldDecide = core.state.needsNewerVersion == nil
    for computed in core.apply(record) {
      guard let written = try stream.next(nextCommand) else {
        unwrittenCount += 1
        continue
      }
      compare(written, with: computed)
    }
    if couldDecide, let body = core.state.needsNewerVersion {
      own.add(
        Finding(
          .newerVersion, events, at: record.offset,
          "a critical event of a newer version (\(body.name)); nothing after it can be decided by this version: \(body.advice)"))
    }
  }

  private mutating func begin(at first: Offset) {
    isFirst = false
    hasBeginning = first.value == 0
    guard startsAtNewest || first.value > 0 else { return }
    let usable = snapshots.filter { $0.core != nil && $0.manifest.position.value &+ 1 >= first.value }
    guard let chosen = startsAtNewest ? usable.last : usable.first, let core = chosen.core else { return }
    self.core = core
    start = chosen.manifest
    stream = CommandStream(commands, after: chosen.manifest.slot)
    hasBeginning = true
    snapshots.removeAll { $0.manifest.position <= chosen.manifest.position }
    own.add(
      Finding(
        .beginsAtSnapshot, events, at: chosen.manifest.position, slot: chosen.manifest.slot,
        "decided again from the snapshot after offset \(chosen.manifest.position), slot \(chosen.manifest.slot); what came before is believed"
      ))
  }

  private mutating func compareSnapshots(at offset: Offset) {
    while let next = snapshots.first, next.manifest.position <= offset {
      snapshots.removeFirst()
      // One of a record that could not be read here, or that was taken at none of the records: it is of another log.
      guard next.manifest.position == offset, let recorded = next.core else {
        own.add(
          Finding(
            next.core == nil ? .unreadableSnapshot : .differentSnapshot, LogPartition(ServiceTopics.snapshots, events.partition),
            at: next.offset, slot: next.manifest.slot,
            next.core == nil
              ? "this version cannot read the snapshot after offset \(next.manifest.position)"
              : "the snapshot says that it was taken after offset \(next.manifest.position), where no event stands"))
        continue
      }
      if recorded == core {
        agreedSnapshots += 1
      } else {
        own.add(
          Finding(
            .differentSnapshot, LogPartition(ServiceTopics.snapshots, events.partition), at: next.offset, slot: next.manifest.slot,
            "the snapshot after offset \(offset) holds another state (hash \(recorded.hash)) than the events lead to (\(core.hash))"))
      }
    }
  }

  private mutating func compare(_ written: CommandRecord, with computed: Command) {
    let differences = written.command.differences(from: computed)
    guard !differences.isEmpty else {
      agreedCount += 1
      return
    }
    let isStateOnly = differences == ["state hash"]
    own.add(
      Finding(
        isStateOnly ? .differentState : .differentDecision, commands, at: written.offset, slot: computed.slot,
        isStateOnly
          ? "slot \(computed.slot) was decided in another state: its hash is \(hex(written.command.stateHash)), not \(hex(computed.stateHash))"
          : "slot \(computed.slot) says \(written.command.words); from the events follows \(computed.words) "
            + "(decision \(computed.decision)); they differ in \(differences.joined(separator: ", "))"))
  }

  /// Both partitions have ended: what is left was decided by nothing.
  public mutating func finish(nextCommand: () throws -> CommandRecord?) rethrows {
    while let written = try stream.next(nextCommand) {
      guard hasBeginning != false, core.state.needsNewerVersion == nil else { continue }
      own.add(
        Finding(
          .unexplainedCommand, commands, at: written.offset, slot: written.command.slot,
          "slot \(written.command.slot) says \(written.command.words), decided at offset \(written.command.decision); no event leads to it"
        ))
    }
    stream.finish()
    if unwrittenCount > 0 {
      own.add(
        Finding(
          .unwrittenCommands, commands,
          "\(unwrittenCount) commands follow from the events and are not in the log: no coordinator has written them, or its end is lost"
        ))
    }
  }
}

/// A whole snapshot of a log, as its reader decoded it.
public struct RecordedSnapshot: Sendable {
  public var manifest: SnapshotManifest
  /// nil: this version cannot read it.
  public var core: ClusterCore?
  /// Of the manifest's record.
  public var offset: Offset?

  public init(manifest: SnapshotManifest, core: ClusterCore?, offset: Offset? = nil) {
    self.manifest = manifest
    self.core = core
    self.offset = offset
  }
}

extension Command {
  /// What it asks for, in a few words.
  var words: String { "\(body.name) \(body.summary)" }
}

/// As hashes are printed everywhere.
func hex(_ value: UInt64) -> String { String(value, radix: 16) }
