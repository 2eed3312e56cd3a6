import ControlMessages

/// What a cluster's log has told lately, for people: lines, and what took its time.
///
/// A value fed with records and the commands that they led to, so that it can be made of any part of a log. Memory is bounded.
struct Chronicle: Sendable {
  struct Line: Encodable, Sendable {
    var offset: UInt64
    /// Since 1970.
    var milliseconds: UInt64
    /// nil: an event.
    var slot: UInt64?
    var type: String
    var text: String
    var why: String?
  }

  /// From a command to what ended it.
  struct Span: Encodable, Sendable {
    enum Kind: String, Encodable, Sendable { case launch, recovery, migration, drain }

    var kind: Kind
    var node: UInt32
    var text: String
    var begin: UInt64
    /// nil: still going on.
    var end: UInt64?
    var outcome: String?
    fileprivate var slot: UInt64

    private enum CodingKeys: String, CodingKey { case kind, node, text, begin, end, outcome }
  }

  private(set) var lines: [Line] = []
  private(set) var spans: [Span] = []

  private static let most = 200

  mutating func take(_ record: EventRecord, decided: [Command]) {
    let now = record.timestamp.milliseconds
    switch record.event.body {
    case .heartbeat, .agentHeartbeat, .workload, .tick, .beacon: break
    case .commandAcknowledged(let answer):
      if case .rejected(let reason) = answer.outcome { end(now, "rejected: \(reason)") { $0.slot == answer.slot.number } }
      if case .progress = answer.outcome { break }
      note(record)
    default: note(record)
    }
    switch record.event.body {
    case .nodeStarted(let started):
      end(now, "after \(started.startup) ms") { $0.node == started.node.number && ($0.kind == .launch || $0.kind == .recovery) }
    case .migrationFinished(let finished):
      end(now, "\(finished.moved) of \(finished.wanted) flows") { $0.kind == .migration && $0.slot == finished.slot.number }
    case .processExited(let exited):
      end(now, "ended") { $0.node == exited.node.number && $0.kind == .drain }
      end(now, "process ended") { $0.node == exited.node.number && $0.kind == .migration }
    default: break
    }
    for command in decided { take(command, at: record, now) }
  }

  private mutating func take(_ command: Command, at record: EventRecord, _ now: UInt64) {
    func begin(_ kind: Span.Kind, _ node: NodeID) {
      spans.append(
        Span(kind: kind, node: node.number, text: command.body.summary, begin: now, end: nil, outcome: nil, slot: command.slot.number))
      if spans.count > Self.most { spans.removeFirst() }
    }
    switch command.body {
    case .notifyClusterConfig: return
    case .launchRuntime(let launch), .launchSwitch(let launch):
      end(now, "again") { $0.node == launch.node.number && ($0.kind == .launch || $0.kind == .recovery) }
      begin(launch.incarnation.number > 1 ? .recovery : .launch, launch.node)
    case .setMigrationTarget(let move): begin(.migration, move.source)
    case .cancelMigration(let slot): end(now, "cancelled") { $0.slot == slot.number }
    case .drainRuntime(let node, _): begin(.drain, node)
    default: break
    }
    add(
      Line(
        offset: record.offset.value, milliseconds: now, slot: command.slot.number, type: command.body.name,
        text: command.body.summary, why: command.reason))
  }

  private mutating func note(_ record: EventRecord) {
    add(
      Line(
        offset: record.offset.value, milliseconds: record.timestamp.milliseconds, slot: nil, type: record.event.body.name,
        text: "\(record.event.body.summary), by \(record.event.producer)", why: nil))
  }

  private mutating func add(_ line: Line) {
    lines.append(line)
    if lines.count > Self.most { lines.removeFirst() }
  }

  private mutating func end(_ now: UInt64, _ outcome: String, where isMeant: (Span) -> Bool) {
    for index in spans.indices where spans[index].end == nil && isMeant(spans[index]) {
      spans[index].end = now
      spans[index].outcome = outcome
    }
  }
}
