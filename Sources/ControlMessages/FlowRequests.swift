/// What an operator asks about flows, and what a migration came to: the event bodies of migrations.
///
/// "Move `flows` flows of one runtime to another." It may have fewer; then those.
public struct MoveRequest: Hashable, Sendable {
  public var source: NodeID
  public var target: NodeID
  public var flows: UInt64

  public init(source: NodeID, target: NodeID, flows: UInt64) {
    self.source = source
    self.target = target
    self.flows = flows
  }
}

/// "Give this runtime no new flows, and move those it has to the other serving runtimes." It is about the runtime's
/// present life: another one serves.
public struct DrainRequest: Hashable, Sendable {
  public enum Afterwards: Hashable, Sendable {
    /// It stays and serves nothing. It still counts as one of the cluster's runtimes.
    case keep
    /// It stops. Another takes its place, as soon as there is room for it.
    case stop
    /// An earlier request is taken back: it serves again.
    case undo
  }

  public var node: NodeID
  public var afterwards: Afterwards

  public init(node: NodeID, afterwards: Afterwards) {
    self.node = node
    self.afterwards = afterwards
  }
}

/// The numbers of a migration that has ended, by its source.
public struct MigrationFinished: Hashable, Sendable {
  /// Of the command that asked for it.
  public var slot: Slot
  /// The source.
  public var node: NodeID
  public var wanted: UInt64 = 0
  public var moved: UInt64 = 0
  /// Not taken by the target, or not the source's by the word of a switch.
  public var refused: UInt64 = 0
  /// Taken back: a deadline, a cancellation, the end of the target.
  public var returned: UInt64 = 0
  /// Of the messages that carried flow states.
  public var bytes: UInt64 = 0
  /// Steps that had to be asked for again.
  public var missedDeadlines: UInt64 = 0
  /// From the source's first step to its last.
  public var microseconds: UInt64 = 0
  public var isCancelled = false
  public var targetEnded = false
  /// Flows of which packets waited at the target until the flow had come; and how long they did, in microseconds.
  public var paused: UInt64 = 0
  public var pauseP50: UInt64 = 0
  public var pauseP99: UInt64 = 0
  public var longestPause: UInt64 = 0

  public init(slot: Slot, node: NodeID) {
    self.slot = slot
    self.node = node
  }
}
