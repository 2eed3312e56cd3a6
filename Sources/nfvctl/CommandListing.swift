import ControlMessages
import ControlNodes

/// A command of the log with the last that was heard of it.
struct CommandListing: Listed, Equatable {
  /// nil: it goes without saying.
  let cluster: ClusterID?
  let record: CommandRecord
  var acknowledgement: CommandAcknowledgement?

  init(cluster: ClusterID?, record: CommandRecord) {
    self.cluster = cluster
    self.record = record
  }

  private var command: Command { record.command }

  static let columns: [TextTable.Column] = [
    .left("CLUSTER"), .right("SLOT"), .left("TIME"), .left("COMMAND"), .left("TARGET"), .left("OUTCOME"), .left("WHAT"),
    .left("WHY"),
  ]

  var cells: [String] {
    [
      cluster.map { "\($0)" } ?? "-", "\(command.slot)", record.timestamp.clockTime, command.body.name, command.target.words,
      acknowledgement?.outcome.summary ?? "-", command.body.summary, command.reason,
    ]
  }

  var json: JSON {
    let outcome: JSON? = acknowledgement.map { JSON.string($0.outcome.summary) }
    let acknowledger: JSON? = acknowledgement.map { JSON.string($0.by.summary) }
    return .object([
      "cluster": cluster.map { JSON.text($0) }, "slot": .number(command.slot.number), "offset": .number(record.offset.value),
      "time": .string(record.timestamp.iso8601), "type": .string(command.body.name), "target": .string(command.target.words),
      "summary": .string(command.body.summary), "reason": .string(command.reason), "correlation": .string(command.correlation),
      "decidedAtOffset": .number(command.decision.offset.value), "decisionIndex": .number(command.decision.index),
      "expiry": .string(command.expiry.iso8601), "stateHash": .string(String(command.stateHash, radix: 16)),
      "outcome": outcome, "acknowledgedBy": acknowledger,
    ])
  }
}

extension Command.Target {
  var words: String {
    switch self {
    case .cluster: "cluster"
    case .host(let host): "host \(host)"
    case .node(let node, let incarnation): "node \(node) life \(incarnation)"
    }
  }
}

/// Notices commands and their outcomes while a log is read; keeps the last ones of each cluster.
struct CommandHistory {
  private let limit: Int
  private var listings: [ClusterID: [CommandListing]] = [:]

  init(last limit: Int) { self.limit = limit }

  mutating func notice(_ item: ClusterFollower.Item) {
    switch item {
    case .command(let cluster, let record, .taken):
      listings[cluster, default: []].append(CommandListing(cluster: cluster, record: record))
      // Cut now and then, so that keeping the last few of many costs little.
      if listings[cluster]!.count > 2 * limit + 64 { listings[cluster]!.removeFirst(listings[cluster]!.count - limit) }
      pending[cluster]?.removeValue(forKey: record.command.slot).map { settle(cluster, $0) }
    case .event(let cluster, let record, _):
      guard case .commandAcknowledged(let acknowledgement) = record.event.body else { return }
      settle(cluster, acknowledgement)
    case .command, .clusterFound, .unreadable, .caughtUp: break
    }
  }

  /// The two topics are read side by side, so an outcome may be read before its command. As many are kept as commands.
  private var pending: [ClusterID: [Slot: CommandAcknowledgement]] = [:]

  private mutating func settle(_ cluster: ClusterID, _ acknowledgement: CommandAcknowledgement) {
    let found = listings[cluster]?.last.map { acknowledgement.slot <= $0.record.command.slot } ?? false
    guard found else {
      if let lowest = pending[cluster]?.keys.min(), pending[cluster]!.count > 2 * limit + 1_024 {
        pending[cluster]![lowest] = nil
      }
      pending[cluster, default: [:]][acknowledgement.slot] = acknowledgement
      return
    }
    guard let index = listings[cluster]!.lastIndex(where: { $0.record.command.slot == acknowledgement.slot }) else { return }
    listings[cluster]![index].acknowledgement = acknowledgement
  }

  /// The last ones of a cluster in the order of their slots.
  func commands(of cluster: ClusterID) -> [CommandListing] { Array((listings[cluster] ?? []).suffix(limit)) }
}
