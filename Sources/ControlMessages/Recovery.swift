// Who keeps the replicas of whose flows, and whose the flows are when a runtime's life ends.

/// One life of a node.
public struct NodeLife: Hashable, Comparable, Sendable, CustomStringConvertible {
  public var node: NodeID
  public var incarnation: Incarnation

  public init(_ node: NodeID, _ incarnation: Incarnation) {
    self.node = node
    self.incarnation = incarnation
  }

  public static func < (a: Self, b: Self) -> Bool {
    a.node == b.node ? a.incarnation < b.incarnation : a.node < b.node
  }
  public var description: String { "node \(node) life \(incarnation)" }
}

/// All flows of `owner` are to have a replica on `holder`, and another one on `second` if that is named: their packets leave
/// when both have them. With nil nobody is left who could, and they go unprotected.
public struct ReplicaAssignment: Hashable, Sendable {
  public var owner: NodeLife
  public var holder: NodeLife?
  public var second: NodeLife?

  public init(owner: NodeLife, holder: NodeLife?, second: NodeLife? = nil) {
    self.owner = owner
    self.holder = holder
    self.second = second
  }
}

/// The life `lost` is over. Its flows belong to `by`, which has the replicas; with nil to nobody, and switches forget them.
/// `standby` keeps the replicas that it has, until all of those flows have replicas of their own again; should `by` end
/// before, and its flows be recovered by `standby`, that takes over from them what is missing.
public struct Recovery: Hashable, Sendable {
  public var lost: NodeLife
  public var by: NodeLife?
  public var standby: NodeLife?

  public init(lost: NodeLife, by: NodeLife?, standby: NodeLife? = nil) {
    self.lost = lost
    self.by = by
    self.standby = standby
  }
}

/// The numbers of a recovery that has ended, by the runtime that took the flows over.
public struct RecoveryFinished: Hashable, Sendable {
  /// Of the command that asked for it.
  public var slot: Slot
  /// Who has the flows now.
  public var node: NodeID
  public var lost: NodeLife
  public var recovered: UInt64 = 0
  /// Of those recovered, flows that a packet asked for before their turn came.
  public var onDemand: UInt64 = 0
  /// Flows for which there was no room, or whose key another flow has.
  public var refused: UInt64 = 0
  /// From the command's arrival at the worker to the last flow.
  public var microseconds: UInt64 = 0

  public init(slot: Slot, node: NodeID, lost: NodeLife) {
    self.slot = slot
    self.node = node
    self.lost = lost
  }
}
