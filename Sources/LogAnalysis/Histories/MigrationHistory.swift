import ControlMessages

/// One migration: a command that flows be moved, and what became of it.
public struct Migration: Hashable, Sendable {
  public enum Outcome: Hashable, Sendable {
    /// The source has not said anything yet, or is at it.
    case asked, running
    case completed
    case rejected(String)
    /// Nobody waits for it any more.
    case cancelled(String)
  }

  public let move: FlowMove
  public let slot: Slot
  public let askedAt: Timestamp
  /// Who wanted it: a policy and its version, an operator, a drain.
  public let reason: String
  public let correlation: String

  /// Flows that the source says it has moved.
  public internal(set) var moved: UInt64 = 0
  public internal(set) var outcome = Outcome.asked
  public internal(set) var endedAt: Timestamp?
  /// The source's own numbers; nil before its end, and of sources that ended or were too old to tell.
  public internal(set) var numbers: MigrationFinished?

  /// Milliseconds in the time of the log, from the command to its end.
  public var duration: UInt64? { endedAt.map { $0.since(askedAt) } }
}

/// The migrations of a cluster, from its commands and events in any order between the two.
public struct MigrationHistory: Sendable {
  private var migrations: [Slot: Migration] = [:]
  private var order: [Slot] = []
  /// Read before their commands.
  private var early: [Slot: [EventRecord]] = [:]
  private static let mostEarly = 4_096

  public init() {}

  /// In the order of their commands.
  public var all: [Migration] { order.compactMap { migrations[$0] } }

  /// A command as a reader took it.
  public mutating func take(_ record: CommandRecord) {
    let slot = record.command.slot
    switch record.command.body {
    case .setMigrationTarget(let move):
      guard migrations[slot] == nil else { return }
      migrations[slot] = Migration(
        move: move, slot: slot, askedAt: record.timestamp, reason: record.command.reason, correlation: record.command.correlation)
      order.append(slot)
    case .cancelMigration(let slot): end(slot, .cancelled(record.command.reason), at: record.timestamp)
    default: break
    }
    for event in early.removeValue(forKey: slot) ?? [] { take(event) }
  }

  public mutating func take(_ record: EventRecord) {
    let slot: Slot
    switch record.event.body {
    case .commandAcknowledged(let acknowledgement): slot = acknowledgement.slot
    case .migrationFinished(let numbers): slot = numbers.slot
    default: return
    }
    guard migrations[slot] != nil else {
      // Most are of other commands, whose slots are behind us.
      if order.last.map({ slot > $0 }) ?? true, early.count < Self.mostEarly { early[slot, default: []].append(record) }
      return
    }
    switch record.event.body {
    case .migrationFinished(let numbers):
      migrations[slot]!.numbers = numbers
      migrations[slot]!.moved = numbers.moved
    case .commandAcknowledged(let acknowledgement):
      switch acknowledgement.outcome {
      case .received, .applied: break
      case .progress(let done, _):
        migrations[slot]!.moved = max(migrations[slot]!.moved, done)
        if migrations[slot]!.outcome == .asked { migrations[slot]!.outcome = .running }
      case .rejected(let reason): end(slot, .rejected(reason), at: record.timestamp)
      case .completed: end(slot, .completed, at: record.timestamp)
      }
    default: break
    }
  }

  private mutating func end(_ slot: Slot, _ outcome: Migration.Outcome, at time: Timestamp) {
    guard migrations[slot] != nil, migrations[slot]!.endedAt == nil else { return }
    migrations[slot]!.outcome = outcome
    migrations[slot]!.endedAt = time
  }
}
