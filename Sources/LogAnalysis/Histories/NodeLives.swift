import ControlMessages

/// One life of a node: who asked for it, when it began, and how it ended.
public struct RecordedLife: Hashable, Sendable {
  public let node: NodeID
  public let kind: NodeKind
  public let incarnation: Incarnation
  public let host: HostID
  /// The command that launched it.
  public let slot: Slot
  public let launchedAt: Timestamp
  public let reason: String
  public let correlation: String

  public internal(set) var startedAt: Timestamp?
  /// Milliseconds from the process's start to its first word.
  public internal(set) var startup: UInt64?
  /// The first command to stop it.
  public internal(set) var stopSlot: Slot?
  public internal(set) var stopAskedAt: Timestamp?
  public internal(set) var stopReason = ""
  /// It was given up before it was asked to stop.
  public internal(set) var isDeclaredDead = false
  public internal(set) var endedAt: Timestamp?
  /// How it ended, for people.
  public internal(set) var ending = ""

  /// Whether it ended without having been asked to.
  public var hasFailed: Bool { endedAt != nil && stopSlot == nil || isDeclaredDead }
  public var life: NodeLife { NodeLife(node, incarnation) }
}

/// The lives of a cluster's nodes, from its commands and events in any order between the two.
public struct NodeLives: Sendable {
  private struct Key: Hashable {
    var node: NodeID
    var incarnation: Incarnation
  }

  private var lives: [Key: RecordedLife] = [:]
  private var slots: [Slot: Key] = [:]
  private var order: [Key] = []

  public init() {}

  /// In the order of their launch commands.
  public var all: [RecordedLife] { order.compactMap { lives[$0] } }

  /// A command as a reader took it.
  public mutating func take(_ record: CommandRecord) {
    switch record.command.body {
    case .launchRuntime(let launch), .launchSwitch(let launch):
      let key = Key(node: launch.node, incarnation: launch.incarnation)
      guard lives[key] == nil else { return }
      lives[key] = RecordedLife(
        node: launch.node, kind: launch.kind, incarnation: launch.incarnation, host: launch.host, slot: record.command.slot,
        launchedAt: record.timestamp, reason: record.command.reason, correlation: record.command.correlation)
      order.append(key)
      slots[record.command.slot] = key
    case .stopNode(let node, let incarnation), .fence(let node, let incarnation):
      let key = Key(node: node, incarnation: incarnation)
      slots[record.command.slot] = key
      guard lives[key]?.stopSlot == nil else { return }
      if case .fence = record.command.body { lives[key]?.isDeclaredDead = true }
      lives[key]?.stopSlot = record.command.slot
      lives[key]?.stopAskedAt = record.timestamp
      lives[key]?.stopReason = record.command.reason
    case .notifyClusterConfig, .drainRuntime, .setMigrationTarget, .cancelMigration, .changeSettings, .setReplicas, .recover, .unknown:
      break
    }
  }

  /// An event; all commands that it can be about have to have been taken.
  public mutating func take(_ record: EventRecord) {
    switch record.event.body {
    case .nodeStarted(let started):
      let key = Key(node: started.node, incarnation: record.event.incarnation)
      guard lives[key]?.startedAt == nil else { return }
      lives[key]?.startedAt = record.timestamp
      lives[key]?.startup = started.startup
    case .processExited(let exited):
      switch exited.ending {
      case .code(let code): end(Key(node: exited.node, incarnation: exited.incarnation), record, "exit code \(code)")
      case .signal(let signal): end(Key(node: exited.node, incarnation: exited.incarnation), record, "signal \(signal)")
      }
    case .commandAcknowledged(let acknowledgement):
      guard case .host = acknowledgement.by, let key = slots[acknowledgement.slot], let life = lives[key] else { return }
      switch acknowledgement.outcome {
      case .rejected(let reason) where life.slot == acknowledgement.slot: end(key, record, "refused by \(life.host): \(reason)")
      case .completed where life.slot != acknowledgement.slot: end(key, record, "no such process")
      default: break
      }
    default: break
    }
  }

  private mutating func end(_ key: Key, _ record: EventRecord, _ ending: String) {
    guard lives[key]?.endedAt == nil else { return }
    lives[key]?.endedAt = record.timestamp
    lives[key]?.ending = ending
  }
}

/// A node that failed, what became of its flows, and how long it was until it served again.
public struct NodeRecovery: Hashable, Sendable {
  public let failed: RecordedLife
  /// nil: the cluster has no replicas, or the node no flows.
  public let flows: FlowRecovery?
  /// Of a switch that had the uplinks; nil: it had none, or nobody has taken them over.
  public let takeover: UplinkTakeover?
  /// The life that took its place; nil: none yet.
  public let successor: RecordedLife?

  /// Milliseconds from the end of the one to the start of the other, in the time of the log.
  public var downtime: UInt64? {
    guard let started = successor?.startedAt, let ended = failed.endedAt else { return nil }
    return started.since(ended)
  }

  /// Milliseconds from the end of the life to the moment its last flow was served by another, or a switch knew all of its flows, in the
  /// time of the log.
  public var flowsDown: UInt64? {
    if let takeover, let known = takeover.endedAt { return known.since(min(failed.endedAt ?? takeover.askedAt, takeover.askedAt)) }
    guard let flows, case .completed = flows.outcome, let taken = flows.endedAt else { return nil }
    return taken.since(min(failed.endedAt ?? flows.askedAt, flows.askedAt))
  }

  /// In the order of the failed lives' launches. A life that was given up and told to stop is one, too, as it never served;
  /// and one that was stopped while it had flows.
  public static func all(in lives: [RecordedLife], flows: RecoveryHistory = RecoveryHistory()) -> [NodeRecovery] {
    lives.enumerated().compactMap { index, life in
      let recovery = flows[life.life]
      let hadFlows = (recovery?.recovered ?? 0) > 0
      guard life.hasFailed || hadFlows || life.stopSlot != nil && life.startedAt == nil && life.endedAt != nil else { return nil }
      let successor = lives[(index + 1)...].first { $0.node == life.node }
      guard life.hasFailed || hadFlows || successor != nil else { return nil }
      return NodeRecovery(failed: life, flows: recovery, takeover: flows.takeover(from: life.life), successor: successor)
    }
  }
}
