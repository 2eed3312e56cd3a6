import ControlMessages
import ControlPlane

/// What operators asked of a cluster, and how long it took until it was so.
public struct IntentHistory: Sendable {
  public struct Size: Hashable, Sendable, CustomStringConvertible {
    public let runtimes: UInt32
    public let switches: UInt32
    public var description: String { "\(runtimes) runtimes, \(switches) switches" }
  }

  public struct Entry: Hashable, Sendable {
    public enum Outcome: String, Hashable, Sendable {
      case pending, complete
      /// Another intent came before it was complete.
      case superseded
    }

    public let offset: Offset
    public let timestamp: Timestamp
    public let producer: ProducerID
    public let correlation: String
    /// `cluster-applied` or `cluster-deleted`.
    public let event: String
    public let before: Size
    public let after: Size
    public internal(set) var outcome = Outcome.pending
    /// When it was complete or superseded.
    public internal(set) var endedAt: Timestamp?
    /// What of it waits until the cluster is deleted and applied again.
    public internal(set) var pendingChanges: [String] = []

    /// Milliseconds.
    public var duration: UInt64? { endedAt.map { $0.since(timestamp) } }
  }

  public private(set) var entries: [Entry] = []
  private var core: ClusterCore

  public init(cluster: ClusterID) { core = ClusterCore(cluster: cluster) }

  public mutating func take(_ record: EventRecord) {
    let before = Self.wanted(core.state)
    _ = core.apply(record)
    let now = core.state.clock.now
    switch record.event.body {
    case .clusterApplied, .clusterDeleted:
      endLast(.superseded, now)
      entries.append(
        Entry(
          offset: record.offset, timestamp: record.timestamp, producer: record.event.producer,
          correlation: record.event.correlation, event: record.event.body.name, before: before, after: Self.wanted(core.state),
          pendingChanges: core.state.pendingChanges))
    default: break
    }
    if Self.isComplete(core.state) { endLast(.complete, now) }
  }

  private mutating func endLast(_ outcome: Entry.Outcome, _ now: Timestamp) {
    guard let last = entries.indices.last, entries[last].outcome == .pending else { return }
    entries[last].outcome = outcome
    entries[last].endedAt = now
  }

  private static func wanted(_ state: ClusterState) -> Size {
    Size(runtimes: state.wanted(.runtime), switches: state.wanted(.virtualSwitch))
  }

  /// Every wanted node serves, and nobody else is there.
  private static func isComplete(_ state: ClusterState) -> Bool {
    state.pendingSpec == nil && state.abandoned.isEmpty
      && NodeKind.allCases.allSatisfy { kind in
        let nodes = state.nodes.filter { $0.kind == kind && $0.isAlive }
        return nodes.count == Int(state.wanted(kind)) && nodes.allSatisfy { $0.memberState == .serving }
      }
  }
}
