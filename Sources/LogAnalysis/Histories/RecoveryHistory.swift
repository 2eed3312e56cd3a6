import ControlMessages

/// What became of the flows of a life that was over: a `recover` command, and its answers.
public struct FlowRecovery: Hashable, Sendable {
  public enum Outcome: Hashable, Sendable {
    /// Whoever took the flows over has not said that it has them.
    case running
    case completed
    case rejected(String)
    /// There were no replicas, and switches forgot the flows.
    case forgotten
    /// Whoever was to take the flows over ended before; this life, which stood by, does it with that one's flows.
    case passedOn(NodeLife, Slot)
    /// Whoever was to take the flows over ended before, and nobody goes on.
    case abandoned(NodeLife)
  }

  public let recovery: Recovery
  public let slot: Slot
  public let askedAt: Timestamp
  public let reason: String
  /// Flows that were taken over so far.
  public internal(set) var recovered: UInt64 = 0
  public internal(set) var outcome: Outcome
  public internal(set) var endedAt: Timestamp?
  /// The numbers of the one who took them over, when it has ended.
  public internal(set) var numbers: RecoveryFinished?
}

/// A switch that took the uplinks over from another life, by a table, and what it said when it knew the flows.
public struct UplinkTakeover: Hashable, Sendable {
  public let former: NodeLife
  public let by: NodeLife
  public let slot: Slot
  public let askedAt: Timestamp
  public let reason: String
  public internal(set) var numbers: RecoveryFinished?
  public internal(set) var endedAt: Timestamp?
}

/// The recoveries of a cluster's flows, by the life that was lost. Commands first, then the events.
public struct RecoveryHistory: Sendable {
  private var recoveries: [Slot: FlowRecovery] = [:]
  private var slots: [NodeLife: Slot] = [:]
  private var takeovers: [NodeLife: UplinkTakeover] = [:]
  private var uplinkHolder: NodeLife?

  public init() {}

  /// What became of the uplinks that a life of a switch had.
  public func takeover(from life: NodeLife) -> UplinkTakeover? { takeovers[life] }

  public subscript(life: NodeLife) -> FlowRecovery? { slots[life].flatMap { recoveries[$0] } }

  /// A command as a reader took it.
  public mutating func take(_ record: CommandRecord) {
    if case .notifyClusterConfig(let table) = record.command.body, case .only(let holder?) = table.uplinks, holder != uplinkHolder {
      if let uplinkHolder {
        takeovers[uplinkHolder] = UplinkTakeover(
          former: uplinkHolder, by: holder, slot: record.command.slot, askedAt: record.timestamp, reason: record.command.reason)
      }
      uplinkHolder = holder
    }
    guard case .recover(let recovery) = record.command.body, slots[recovery.lost] == nil else { return }
    slots[recovery.lost] = record.command.slot
    for (slot, other) in recoveries where other.recovery.by == recovery.lost && other.outcome == .running {
      let goesOn = recovery.by != nil && other.recovery.standby == recovery.by
      recoveries[slot]?.outcome =
        goesOn ? .passedOn(recovery.by ?? recovery.lost, record.command.slot) : .abandoned(recovery.lost)
      recoveries[slot]?.endedAt = record.timestamp
    }
    recoveries[record.command.slot] = FlowRecovery(
      recovery: recovery, slot: record.command.slot, askedAt: record.timestamp, reason: record.command.reason,
      outcome: recovery.by == nil ? .forgotten : .running, endedAt: recovery.by == nil ? record.timestamp : nil)
  }

  public mutating func take(_ record: EventRecord) {
    switch record.event.body {
    case .recoveryFinished(let numbers) where takeovers[numbers.lost]?.slot == numbers.slot:
      guard takeovers[numbers.lost]?.numbers == nil else { return }
      takeovers[numbers.lost]?.numbers = numbers
      takeovers[numbers.lost]?.endedAt = record.timestamp
    case .recoveryFinished(let numbers):
      guard recoveries[numbers.slot]?.numbers == nil else { return }
      recoveries[numbers.slot]?.numbers = numbers
      recoveries[numbers.slot]?.recovered = numbers.recovered
    case .commandAcknowledged(let acknowledgement):
      let slot = acknowledgement.slot
      guard let by = recoveries[slot]?.recovery.by, acknowledgement.by == .node(by.node), recoveries[slot]?.endedAt == nil else {
        return
      }
      switch acknowledgement.outcome {
      case .received, .applied: break
      case .progress(let done, _): recoveries[slot]?.recovered = done
      case .rejected(let reason):
        recoveries[slot]?.outcome = .rejected(reason)
        recoveries[slot]?.endedAt = record.timestamp
      case .completed:
        recoveries[slot]?.outcome = .completed
        recoveries[slot]?.endedAt = record.timestamp
      }
    default: break
    }
  }
}
