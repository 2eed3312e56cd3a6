import ControlMessages

/// Folds the log of one cluster and says what is to be done: the control plane without its rim.
///
/// ```
///   record ──▶ apply ──▶ state ──▶ nextDecision ──▶ command in the next slot ─┐
///                          ▲                                                  │
///                          └──────────────────── enact ◀──────────────────────┘
/// ```
///
/// The same records give the same commands in the same slots, whoever folds them and however often it is interrupted:
/// there is no clock here but the log's, no chance, no floating point, and nothing is walked through in an order that
/// differs from run to run. Any record is taken; none makes it throw or trap.
public struct ClusterCore: Hashable, Sendable {
  public private(set) var state: ClusterState
  /// Chained over all that was taken and decided. Equal in replicas that have folded equal logs.
  public private(set) var hash = StateHash()
  /// Chained over every record. Equal in replicas that have folded the same log.
  public private(set) var logHash = LogHash()
  /// The last record folded.
  public private(set) var position: Offset?

  /// More than one record can cause: each node and each given-up life once, and a table.
  private static let maximumDecisions = 1_024

  public init(cluster: ClusterID) { state = ClusterState(cluster: cluster) }

  /// As a snapshot kept it.
  package init(state: ClusterState, hash: StateHash, logHash: LogHash, position: Offset?) {
    self.state = state
    self.hash = hash
    self.logHash = logHash
    self.position = position
    self.state.wake.at = state.nextWake
  }

  /// Folds one record and returns the commands it led to, in the order of their slots.
  ///
  /// A record at or before `position` was folded already and leads to nothing.
  public mutating func apply(_ record: EventRecord) -> [Command] {
    if let position, record.offset <= position { return [] }
    position = record.offset
    logHash.mix(record)
    guard state.needsNewerVersion == nil else { return [] }
    guard state.apply(record.event, at: record.timestamp, offset: record.offset) == .moved else { return [] }
    if record.event.body.lane == .facts { state.mixKeyParts(into: &hash) }

    var commands: [Command] = []
    while commands.count < Self.maximumDecisions, let decision = state.nextDecision() {
      let slot = state.lastSlot.next
      guard let order = state.enact(decision, slot: slot) else { break }
      state.mixKeyParts(into: &hash)
      commands.append(
        Command(
          slot: slot, decision: DecisionID(offset: record.offset, index: UInt32(commands.count)), target: order.target,
          expiry: state.clock.now.advanced(byMilliseconds: order.patience), reason: order.reason,
          correlation: order.correlation ?? state.correlation, stateHash: hash.value, body: order.body))
    }
    state.wake.at = state.nextWake
    return commands
  }
}
