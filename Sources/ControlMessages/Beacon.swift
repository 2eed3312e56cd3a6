/// A replica's sign of life: it moves log time, says how far the replica has come, and lets others check that they
/// came to the same.
///
/// `stateHash` and `logHash` are the replica's after folding the record at `position`. Another replica that had other
/// hashes there read another log or decided otherwise.
public struct Beacon: Hashable, Sendable {
  /// The last record of `nfv.events` that it folded; nil before the first.
  public var position: Offset?
  public var stateHash: UInt64
  public var logHash: UInt64
  /// The newest decision rules that this replica can follow (`rulesActivated`).
  public var rules: UInt32

  public init(position: Offset?, stateHash: UInt64, logHash: UInt64, rules: UInt32) {
    self.position = position
    self.stateHash = stateHash
    self.logHash = logHash
    self.rules = rules
  }
}

/// A node noticed on the data plane that another one of its cluster does not answer. Alone it proves nothing.
public struct PeerSilent: Hashable, Sendable {
  /// Who noticed; its incarnation is the envelope's.
  public var by: NodeID
  public var node: NodeID
  /// The life of `node` that is silent.
  public var incarnation: Incarnation

  public init(by: NodeID, node: NodeID, incarnation: Incarnation) {
    self.by = by
    self.node = node
    self.incarnation = incarnation
  }
}
