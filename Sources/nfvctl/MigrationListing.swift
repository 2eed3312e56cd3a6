import ControlMessages
import LogAnalysis

/// A migration with its source's numbers: a row of `get migrations` and `audit migrations`.
struct MigrationListing: Audited {
  private let cluster: ClusterID
  private let migration: Migration

  init(_ cluster: ClusterID, _ migration: Migration) {
    self.cluster = cluster
    self.migration = migration
  }

  var times: [Timestamp] { [migration.askedAt, migration.endedAt].compactMap { $0 } }

  static let columns: [TextTable.Column] = [
    .left("CLUSTER"), .right("SLOT"), .left("ASKED"), .right("FROM"), .right("TO"), .right("FLOWS"), .right("MOVED"),
    .left("STATE"),
    .right("TOOK"), .right("WORKER"), .right("REFUSED"), .right("RETURNED"), .right("BYTES"), .left("BY"), .left("WHY"),
  ]

  var cells: [String] {
    func number(_ value: UInt64?) -> String { value.map { "\($0)" } ?? "-" }
    return [
      "\(cluster)", "\(migration.slot)", migration.askedAt.iso8601, "\(migration.move.source)", "\(migration.move.target)",
      "\(migration.move.flows)", "\(migration.moved)", migration.outcome.word,
      migration.duration.map { Quantity.span(milliseconds: $0) } ?? "-",
      migration.numbers.map { "\($0.microseconds) us" } ?? "-", number(migration.numbers?.refused),
      number(migration.numbers?.returned),
      number(migration.numbers?.bytes), migration.correlation.isEmpty ? "-" : migration.correlation,
      migration.outcome.problem ?? migration.reason,
    ]
  }

  var json: JSON {
    .object([
      "cluster": .text(cluster), "slot": .number(migration.slot.number), "askedAt": .string(migration.askedAt.iso8601),
      "from": .number(migration.move.source.number), "to": .number(migration.move.target.number),
      "flows": .number(migration.move.flows), "moved": .number(migration.moved), "state": .string(migration.outcome.word),
      "problem": migration.outcome.problem.map { JSON.string($0) }, "endedAt": migration.endedAt.map { JSON.string($0.iso8601) },
      "durationMilliseconds": migration.duration.map { JSON.number($0) }, "reason": .string(migration.reason),
      "correlation": migration.correlation.isEmpty ? nil : .string(migration.correlation),
      "numbers": migration.numbers.map { Self.json($0) },
    ])
  }

  static func json(_ numbers: MigrationFinished) -> JSON {
    .object([
      "slot": .number(numbers.slot.number), "node": .number(numbers.node.number), "wanted": .number(numbers.wanted),
      "moved": .number(numbers.moved), "refused": .number(numbers.refused), "returned": .number(numbers.returned),
      "bytes": .number(numbers.bytes), "missedDeadlines": .number(numbers.missedDeadlines),
      "microseconds": .number(numbers.microseconds), "cancelled": .bool(numbers.isCancelled),
      "targetEnded": .bool(numbers.targetEnded), "paused": .number(numbers.paused),
      "pauseP50Microseconds": .number(numbers.pauseP50), "pauseP99Microseconds": .number(numbers.pauseP99),
      "longestPauseMicroseconds": .number(numbers.longestPause),
    ])
  }
}

extension Migration.Outcome {
  var word: String {
    switch self {
    case .asked: "asked"
    case .running: "running"
    case .completed: "completed"
    case .rejected: "rejected"
    case .cancelled: "cancelled"
    }
  }

  var problem: String? {
    switch self {
    case .rejected(let reason), .cancelled(let reason): reason
    case .asked, .running, .completed: nil
    }
  }
}
