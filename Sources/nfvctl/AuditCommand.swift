import ArgumentParser
import ControlMessages
import ControlPlane
import LogAnalysis
import NodeSupport

struct AuditCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "audit",
    abstract: "Tell who did what, when, why, for how long, and how it ended.",
    discussion: """
      nodes: every life of every runtime and switch. recoveries: nodes that failed, who took their flows or uplinks over, how \
      many and how fast, and when another life served in their place. scaling: what operators asked for, and when it was so. migrations: flows that moved between runtimes: who or \
      which policy asked, how many moved, how long it took, and how it ended.

      Examples:
        nfvctl audit nodes --cluster web
        nfvctl audit recoveries --since 24h -o jsonl
        nfvctl audit scaling --file case-4711.nfvlog
        nfvctl audit migrations --since 1h -o jsonl
      """)

  enum Subject: String, ExpressibleByArgument, CaseIterable { case nodes, recoveries, scaling, migrations }

  @Argument(help: "nodes, recoveries, scaling or migrations.")
  var subject: Subject

  @Option(help: ArgumentHelp("Only what began or ended since: \(LogPoint.help).", valueName: "offset|time"))
  var since: LogPoint?

  @Option(name: .shortAndLong, help: ArgumentHelp("Only of this cluster.", valueName: "name"))
  var cluster: ClusterID?

  @OptionGroup var output: OutputOptions
  @OptionGroup var source: LogSourceOptions

  func validate() throws {
    if case .offset = since {
      throw ValidationError("--since is a time or a time ago: an offset is of one cluster and one topic")
    }
  }

  func perform() throws {
    let source = try source.open()
    let entries = try cluster.map { [try source.cluster($0)] } ?? source.directory().entries
    switch subject {
    case .nodes: put(try entries.flatMap { entry in try Self.lives(entry, source).map { LifeListing(entry.cluster, $0) } })
    case .recoveries:
      put(
        try entries.flatMap { entry in
          try Self.recoveries(entry, source).map { RecoveryListing(entry.cluster, $0) }
        })
    case .scaling: put(try entries.flatMap { entry in try Self.intents(entry, source).map { IntentListing(entry.cluster, $0) } })
    case .migrations:
      put(try entries.flatMap { entry in try Self.migrations(entry, source).map { MigrationListing(entry.cluster, $0) } })
    }
  }

  private func put<Item: Audited>(_ items: [Item]) {
    guard case .time(let time) = since else { return Terminal.put(output.output.list(items)) }
    Terminal.put(output.output.list(items.filter { $0.times.contains { $0 >= time } }))
  }

  static func lives(_ entry: Directory.Entry, _ source: any LogSource) throws -> [RecordedLife] {
    var lives = NodeLives()
    let commands = try source.commands(of: entry.partition)
    let events = try source.events(of: entry.partition)
    var reader = SlotReader()
    while let record = try commands.next() { if reader.read(record.command.slot) == .taken { lives.take(record) } }
    while let record = try events.next() { lives.take(record) }
    return lives.all
  }

  static func recoveries(_ entry: Directory.Entry, _ source: any LogSource) throws -> [NodeRecovery] {
    var history = RecoveryHistory()
    let commands = try source.commands(of: entry.partition)
    let events = try source.events(of: entry.partition)
    var reader = SlotReader()
    while let record = try commands.next() { if reader.read(record.command.slot) == .taken { history.take(record) } }
    while let record = try events.next() { history.take(record) }
    return NodeRecovery.all(in: try lives(entry, source), flows: history)
  }

  static func migrations(_ entry: Directory.Entry, _ source: any LogSource) throws -> [Migration] {
    var history = MigrationHistory()
    let commands = try source.commands(of: entry.partition)
    let events = try source.events(of: entry.partition)
    var reader = SlotReader()
    while let record = try commands.next() { if reader.read(record.command.slot) == .taken { history.take(record) } }
    while let record = try events.next() { history.take(record) }
    return history.all
  }

  static func intents(_ entry: Directory.Entry, _ source: any LogSource) throws -> [IntentHistory.Entry] {
    var history = IntentHistory(cluster: entry.cluster)
    let events = try source.events(of: entry.partition)
    while let record = try events.next() { history.take(record) }
    return history.entries
  }
}

/// An entry of an audit, with the times that `--since` looks at.
protocol Audited: Listed {
  var times: [Timestamp] { get }
}

struct LifeListing: Audited {
  private let cluster: ClusterID
  private let life: RecordedLife

  init(_ cluster: ClusterID, _ life: RecordedLife) {
    self.cluster = cluster
    self.life = life
  }

  var times: [Timestamp] { [life.launchedAt, life.startedAt, life.endedAt].compactMap { $0 } }

  /// From its start, or its launch if it never started, to its end.
  private var lasted: UInt64? { life.endedAt.map { $0.since(life.startedAt ?? life.launchedAt) } }

  static let columns: [TextTable.Column] = [
    .left("CLUSTER"), .left("KIND"), .right("ID"), .right("LIFE"), .left("HOST"), .left("LAUNCHED"), .right("SLOT"),
    .right("READY"),
    .right("LASTED"), .left("ENDED"), .left("HOW"), .left("WHY"),
  ]

  var cells: [String] {
    [
      "\(cluster)", "\(life.kind)", "\(life.node)", "\(life.incarnation)", "\(life.host)", life.launchedAt.iso8601,
      "\(life.slot)",
      life.startedAt.map { Quantity.span(milliseconds: $0.since(life.launchedAt)) } ?? "-",
      lasted.map { Quantity.span(milliseconds: $0) } ?? "-", life.endedAt?.clockTime ?? "-",
      life.ending.isEmpty ? "-" : life.ending,
      life.stopSlot.map { "stopped by slot \($0): \(life.stopReason)" } ?? life.reason,
    ]
  }

  var json: JSON { LifeListing.json(cluster, life) }

  static func json(_ cluster: ClusterID, _ life: RecordedLife) -> JSON {
    let stop: JSON? = life.stopSlot.map { JSON.number($0.number) }
    let correlation: JSON? = life.correlation.isEmpty ? nil : .string(life.correlation)
    return .object([
      "cluster": .text(cluster), "kind": .text(life.kind), "id": .number(life.node.number),
      "incarnation": .number(life.incarnation.number),
      "host": .text(life.host), "launchedAt": .string(life.launchedAt.iso8601), "launchSlot": .number(life.slot.number),
      "reason": .string(life.reason), "correlation": correlation, "startedAt": life.startedAt.map { JSON.string($0.iso8601) },
      "startupMilliseconds": life.startup.map { JSON.number($0) },
      "stopAskedAt": life.stopAskedAt.map { JSON.string($0.iso8601) },
      "stopSlot": stop, "stopReason": life.stopReason.isEmpty ? nil : .string(life.stopReason),
      "endedAt": life.endedAt.map { JSON.string($0.iso8601) }, "ending": life.ending.isEmpty ? nil : .string(life.ending),
      "failed": .bool(life.hasFailed),
    ])
  }
}

struct RecoveryListing: Audited {
  private let cluster: ClusterID
  private let recovery: NodeRecovery

  init(_ cluster: ClusterID, _ recovery: NodeRecovery) {
    self.cluster = cluster
    self.recovery = recovery
  }

  var times: [Timestamp] { [recovery.failed.endedAt, recovery.successor?.startedAt].compactMap { $0 } }

  static let columns: [TextTable.Column] = [
    .left("CLUSTER"), .left("KIND"), .right("ID"), .right("LIFE"), .left("FAILED"), .left("HOW"), .left("ON"), .right("NEW LIFE"),
    .left("ON"),
    .right("SLOT"), .right("DOWN"), .right("FLOWS"), .right("BY"), .right("REFUSED"), .right("FLOWS DOWN"), .right("WORKER"),
    .left("WHY"),
  ]

  var cells: [String] {
    let (failed, successor) = (recovery.failed, recovery.successor)
    let numbers = recovery.flows?.numbers ?? recovery.takeover?.numbers
    return [
      "\(cluster)", "\(failed.kind)", "\(failed.node)", "\(failed.incarnation)", failed.endedAt?.iso8601 ?? "-", failed.ending,
      "\(failed.host)",
      successor.map { "\($0.incarnation)" } ?? "-", successor.map { "\($0.host)" } ?? "-", successor.map { "\($0.slot)" } ?? "-",
      recovery.downtime.map { Quantity.span(milliseconds: $0) } ?? "-", (recovery.flows?.recovered ?? numbers?.recovered).map { "\($0)" } ?? "-",
      (recovery.flows?.recovery.by ?? recovery.takeover?.by).map { "\($0.node)" } ?? "-", numbers.map { "\($0.refused)" } ?? "-",
      recovery.flowsDown.map { Quantity.span(milliseconds: $0) } ?? "-",
      numbers.map { "\($0.microseconds) us" } ?? "-",
      recovery.flows?.outcome.problem ?? successor?.reason ?? "not launched again",
    ]
  }

  var json: JSON {
    .object([
      "cluster": .text(cluster), "failed": LifeListing.json(cluster, recovery.failed),
      "successor": recovery.successor.map { LifeListing.json(cluster, $0) },
      "downMilliseconds": recovery.downtime.map { JSON.number($0) }, "flows": recovery.flows.map { Self.json($0) },
      "takeover": recovery.takeover.map { Self.json($0) },
      "flowsDownMilliseconds": recovery.flowsDown.map { JSON.number($0) },
    ])
  }

  private static func json(_ flows: FlowRecovery) -> JSON {
    .object([
      "slot": .number(flows.slot.number), "askedAt": .string(flows.askedAt.iso8601), "reason": .string(flows.reason),
      "by": flows.recovery.by.map { JSON.number($0.node.number) },
      "standby": flows.recovery.standby.map { JSON.number($0.node.number) }, "state": .string(flows.outcome.word),
      "problem": flows.outcome.problem.map { JSON.string($0) }, "recovered": .number(flows.recovered),
      "endedAt": flows.endedAt.map { JSON.string($0.iso8601) }, "numbers": flows.numbers.map { json($0) },
    ])
  }

  private static func json(_ takeover: UplinkTakeover) -> JSON {
    .object([
      "slot": .number(takeover.slot.number), "askedAt": .string(takeover.askedAt.iso8601), "reason": .string(takeover.reason),
      "by": .number(takeover.by.node.number), "endedAt": takeover.endedAt.map { JSON.string($0.iso8601) },
      "numbers": takeover.numbers.map { json($0) },
    ])
  }

  static func json(_ numbers: RecoveryFinished) -> JSON {
    .object([
      "slot": .number(numbers.slot.number), "node": .number(numbers.node.number), "lostNode": .number(numbers.lost.node.number),
      "lostIncarnation": .number(numbers.lost.incarnation.number), "recovered": .number(numbers.recovered),
      "onDemand": .number(numbers.onDemand), "refused": .number(numbers.refused), "microseconds": .number(numbers.microseconds),
    ])
  }
}

extension FlowRecovery.Outcome {
  var word: String {
    switch self {
    case .running: "running"
    case .completed: "completed"
    case .rejected: "rejected"
    case .forgotten: "forgotten"
    case .passedOn: "passed-on"
    case .abandoned: "abandoned"
    }
  }

  var problem: String? {
    switch self {
    case .rejected(let reason): reason
    case .forgotten: "its flows had no replicas"
    case .passedOn(let heir, let slot): "\(heir), which stood by, goes on with them in slot \(slot)"
    case .abandoned(let heir): "\(heir) ended before it had recovered all flows"
    case .running, .completed: nil
    }
  }
}

struct IntentListing: Audited {
  private let cluster: ClusterID
  private let entry: IntentHistory.Entry

  init(_ cluster: ClusterID, _ entry: IntentHistory.Entry) {
    self.cluster = cluster
    self.entry = entry
  }

  var times: [Timestamp] { [entry.timestamp, entry.endedAt].compactMap { $0 } }

  static let columns: [TextTable.Column] = [
    .left("CLUSTER"), .left("TIME"), .right("OFFSET"), .left("EVENT"), .left("BY"), .left("FROM"), .left("TO"), .left("OUTCOME"),
    .right("AFTER"),
  ]

  var cells: [String] {
    [
      "\(cluster)", entry.timestamp.iso8601, "\(entry.offset)", entry.event,
      entry.correlation.isEmpty ? "\(entry.producer)" : entry.correlation,
      "\(entry.before)", "\(entry.after)", entry.outcome.rawValue, entry.duration.map { Quantity.span(milliseconds: $0) } ?? "-",
    ]
  }

  var json: JSON {
    .object([
      "cluster": .text(cluster), "time": .string(entry.timestamp.iso8601), "offset": .number(entry.offset.value),
      "event": .string(entry.event),
      "producer": .text(entry.producer), "correlation": entry.correlation.isEmpty ? nil : .string(entry.correlation),
      "runtimesBefore": .number(entry.before.runtimes), "switchesBefore": .number(entry.before.switches),
      "runtimesAfter": .number(entry.after.runtimes), "switchesAfter": .number(entry.after.switches),
      "outcome": .string(entry.outcome.rawValue),
      "endedAt": entry.endedAt.map { JSON.string($0.iso8601) }, "durationMilliseconds": entry.duration.map { JSON.number($0) },
      "pendingChanges": .array(entry.pendingChanges.map { JSON.string($0) }),
    ])
  }
}
