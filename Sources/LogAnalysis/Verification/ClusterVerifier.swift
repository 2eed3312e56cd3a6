import ControlMessages
import ControlPlane

/// Decides everything once more and compares it with what the log says was decided.
///
/// The events are folded by the coordinators' own core; each command that follows has to be the next one in the log, equal
/// in every field, its state hash included. What does not follow from the events was not decided from them: an event or a
/// command was changed, is missing, or another version decided.
///
/// The caller hands in the events one after another, and reads commands when it is asked to, so nothing is held in memory.
public struct ClusterVerifier: Sendable {
  public private(set) var core: ClusterCore
  private let events: LogPartition
  private let commands: LogPartition
  private var sequences: EventSequences
  private var stream: CommandStream
  private var own = Findings()
  private var hasBeginning: Bool?
  public private(set) var eventCount: UInt64 = 0
  /// Commands that were decided again and were the same.
  public private(set) var agreedCount: UInt64 = 0
  /// Commands that follow from the events and are not in the log (yet).
  public private(set) var unwrittenCount: UInt64 = 0

  public init(cluster: ClusterID, partition: UInt32) {
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
    if hasBeginning == nil { hasBeginning = record.offset.value == 0 }
    guard hasBeginning == true else { return }
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
          "a critical event of a newer version (body \(body.tag)); nothing after it can be decided by this version"))
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

extension Command {
  /// What it asks for, in a few words.
  var words: String { "\(body.name) \(body.summary)" }
}

/// As hashes are printed everywhere.
func hex(_ value: UInt64) -> String { String(value, radix: 16) }
