import ControlMessages
import ControlPlane

/// A runtime's life that is over, and who has its flows: a row of `get recoveries`.
///
/// The state remembers the last ones; `audit recoveries` tells those of the whole log, and what became of the processes.
struct RecoveryStateListing: Listed, Equatable {
  enum Progress: String {
    /// Nobody was told to take the flows over yet.
    case untold
    case running
    case recovered
    /// The heir ended before it had finished; whoever stood by goes on, and counts these flows with the heir's own.
    case passedOn = "passed-on"
    /// Flows are lost, all or some: PROBLEM says why.
    case failed
  }

  let cluster: ClusterID
  let lost: ClusterState.LostLife
  let progress: Progress

  init(_ lost: ClusterState.LostLife, of state: ClusterState) {
    cluster = state.cluster
    self.lost = lost
    progress =
      switch lost.progress {
      case .untold: .untold
      case .asked: .running
      case .settled where !lost.problem.isEmpty: .failed
      case .settled:
        // The heir's own end is what settled it.
        state.lostLives.contains { $0.life == lost.by && $0.by != nil && $0.by == lost.standby && $0.endedAt == lost.settledAt }
          ? .passedOn : .recovered
      }
  }

  /// Oldest first. Lives without anything to recover are left out.
  static func all(of state: ClusterState) -> [RecoveryStateListing] {
    state.lostLives.filter { $0.progress != .settled(.none) }.map { RecoveryStateListing($0, of: state) }
  }

  /// Milliseconds of log time from the end of the life until nothing more was to come.
  private var duration: UInt64? { lost.isSettled ? lost.settledAt.since(lost.endedAt) : nil }

  static let columns: [TextTable.Column] = [
    .left("CLUSTER"), .right("NODE"), .right("LIFE"), .left("ENDED"), .left("STATE"), .right("BY"), .right("STANDBY"),
    .right("RECOVERED"), .right("REFUSED"), .right("TOOK"), .left("PROBLEM"),
  ]

  var cells: [String] {
    [
      "\(cluster)", "\(lost.life.node)", "\(lost.life.incarnation)", lost.endedAt.iso8601, progress.rawValue,
      heir.map { "\($0.node)" } ?? "-", lost.standby.map { "\($0.node)" } ?? "-", "\(lost.recovered)", "\(lost.refused)",
      duration.map { Quantity.span(milliseconds: $0) } ?? "-", lost.problem,
    ]
  }

  /// Who was asked.
  private var heir: NodeLife? { progress == .untold ? nil : lost.by }

  var json: JSON {
    func number(_ life: NodeLife?) -> JSON? { life.map { JSON.number($0.node.number) } }
    func incarnation(_ life: NodeLife?) -> JSON? { life.map { JSON.number($0.incarnation.number) } }
    let settled: JSON? = lost.isSettled ? JSON.string(lost.settledAt.iso8601) : nil
    let share: JSON? = lost.poolShare.map { JSON.number($0) }
    return .object([
      "cluster": .text(cluster), "node": .number(lost.life.node.number), "incarnation": .number(lost.life.incarnation.number),
      "endedAt": .string(lost.endedAt.iso8601), "state": .string(progress.rawValue), "by": number(heir),
      "byIncarnation": incarnation(heir), "standby": number(lost.standby), "standbyIncarnation": incarnation(lost.standby),
      "recovered": .number(lost.recovered), "refused": .number(lost.refused), "settledAt": settled,
      "durationMilliseconds": duration.map { JSON.number($0) }, "problem": .string(lost.problem), "retiredPoolShare": share,
    ])
  }
}
