import ControlCodec
import ControlMessages
import KafkaLog
import LogAnalysis

/// A record of the log as `nfvctl events tail` shows it: an event, a command, or something that cannot be read.
struct LogEntry: Equatable {
  enum Content: Equatable {
    case event(Event)
    case command(Command)
    case unreadable(String)
  }

  let topic: String
  let partition: UInt32
  let offset: Offset
  let timestamp: Timestamp
  /// nil: the directory, or a partition that no cluster has.
  let cluster: ClusterID?
  let content: Content

  init(_ record: KafkaRecord, cluster: ClusterID?) {
    self.init(
      LogRecord(
        topic: record.topic, partition: UInt32(clamping: record.partition), offset: Offset(UInt64(clamping: record.offset)),
        timestamp: Timestamp(milliseconds: UInt64(clamping: record.timestampMilliseconds)), value: record.value),
      cluster: cluster)
  }

  init(_ record: LogRecord, cluster: ClusterID? = nil) {
    topic = record.topic
    partition = record.partition
    offset = record.offset
    timestamp = record.timestamp
    self.cluster = cluster
    do throws(CodecError) {
      content =
        record.topic == ServiceTopics.commands
        ? .command(try RecordCodec.decodeCommand(record.value)) : .event(try RecordCodec.decodeEvent(record.value))
    } catch {
      content = .unreadable("\(error)")
    }
  }

  var type: String {
    switch content {
    case .event(let event): event.body.name
    case .command(let command): command.body.name
    case .unreadable: "unreadable"
    }
  }

  /// Heartbeats and ticks say only that somebody lives.
  var isSignal: Bool {
    if case .event(let event) = content { event.body.lane == .signals } else { false }
  }

  private var summary: String {
    switch content {
    case .event(let event): event.body.summary
    case .command(let command): "\(command.body.summary) (\(command.reason))"
    case .unreadable(let reason): reason
    }
  }

  private var author: String {
    switch content {
    case .event(let event): "\(event.producer)"
    case .command(let command): "slot \(command.slot)"
    case .unreadable: "-"
    }
  }

  /// Columns of fixed width, since what follows is not known: lines stay in line while one watches.
  var line: String {
    func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }
    let mark = topic == ServiceTopics.commands ? ">" : " "
    let name = cluster.map { "\($0)" } ?? (partition == ServiceTopics.directoryPartition ? "(directory)" : "-")
    return TextTable.printable(
      "\(timestamp.clockTime) \(mark) \(padded(name, 12)) \(padded("\(offset)", 7)) \(padded(author, 20)) \(padded(type, 20)) \(summary)"
    )
  }

  var json: JSON {
    let place: KeyValuePairs<String, JSON?> = [
      "record": .string(topic == ServiceTopics.commands ? "command" : "event"), "cluster": cluster.map { JSON.text($0) },
      "partition": .number(partition), "offset": .number(offset.value), "time": .string(timestamp.iso8601), "type": .string(type),
      "summary": .string(summary),
    ]
    guard case .object(let members) = JSON.object(place) else { return .null }
    let rest: JSON =
      switch content {
      case .event(let event): Self.json(event)
      case .command(let command): Self.json(command)
      case .unreadable: .object([JSON.Member]())
      }
    guard case .object(let more) = rest else { return .null }
    return .object(members + more)
  }

  private static func json(_ event: Event) -> JSON {
    let correlation: JSON? = event.correlation.isEmpty ? nil : JSON.string(event.correlation)
    let offset: JSON? = event.causation.offset.map { JSON.number($0.value) }
    let slot: JSON? = event.causation.slot.map { JSON.number($0.number) }
    return .object([
      "producer": .text(event.producer), "incarnation": .number(event.incarnation.number), "sequence": .number(event.sequence),
      "correlation": correlation, "critical": .bool(event.isCritical), "causedByOffset": offset, "causedBySlot": slot,
      "data": event.body.json,
    ])
  }

  private static func json(_ command: Command) -> JSON {
    let correlation: JSON? = command.correlation.isEmpty ? nil : JSON.string(command.correlation)
    return .object([
      "slot": .number(command.slot.number), "target": .string(command.target.words), "reason": .string(command.reason),
      "correlation": correlation, "decidedAtOffset": .number(command.decision.offset.value),
      "decisionIndex": .number(command.decision.index), "expiry": .string(command.expiry.iso8601),
      "stateHash": .string(String(command.stateHash, radix: 16)),
    ])
  }
}

extension Event.Causation {
  var offset: Offset? { if case .event(let offset) = self { offset } else { nil } }
  var slot: Slot? { if case .command(let slot) = self { slot } else { nil } }
}

extension Event.Body {
  /// What the event says, field by field.
  var json: JSON {
    switch self {
    case .clusterRegistered(let cluster), .clusterDeleted(let cluster): .object(["cluster": .text(cluster)])
    case .clusterApplied(let spec): ClusterDescription.json(spec)
    case .agentStarted(let agent):
      .object([
        "host": .text(agent.host), "cores": .number(agent.cores), "runtimePorts": .number(agent.runtimePorts),
        "switchPorts": .number(agent.switchPorts),
      ])
    case .agentHeartbeat(let host): .object(["host": .text(host)])
    case .processExited(let exited):
      .object([
        "host": .text(exited.host), "node": .number(exited.node.number), "incarnation": .number(exited.incarnation.number),
        "code": exited.code.map { JSON.number($0) }, "signal": exited.signal.map { JSON.number($0) },
      ])
    case .nodeStarted(let started):
      .object([
        "node": .number(started.node.number), "kind": .text(started.kind), "host": .text(started.host),
        "processId": .number(started.processID), "startupMilliseconds": .number(started.startup),
        "inputAddress": .text(started.ports.input), "outputAddress": .text(started.ports.output),
        "controlAddress": .text(started.ports.control),
      ])
    case .heartbeat(let heartbeat):
      .object([
        "node": .number(heartbeat.node.number), "workerLoops": .number(heartbeat.workerLoops),
        "busyLoops": .number(heartbeat.busyLoops),
      ])
    case .workload(let load): .object(["node": .number(load.node.number), "workload": NodeListing.json(load)])
    case .nodeStopping(let node): .object(["node": .number(node.number)])
    case .commandAcknowledged(let acknowledgement):
      .object([
        "slot": .number(acknowledgement.slot.number), "by": .string(acknowledgement.by.summary),
        "outcome": .string(acknowledgement.outcome.summary),
      ])
    case .peerSilent(let silent):
      .object([
        "node": .number(silent.node.number), "incarnation": .number(silent.incarnation.number), "by": .number(silent.by.number),
      ])
    case .rulesActivated(let version): .object(["rules": .number(version)])
    case .policyActivated(let policy): .object(["policy": .string(policy.name), "summary": .string(summary)])
    case .moveRequested(let move):
      .object(["source": .number(move.source.number), "target": .number(move.target.number), "flows": .number(move.flows)])
    case .drainRequested(let drain):
      .object(["node": .number(drain.node.number), "afterwards": .string("\(drain.afterwards)")])
    case .migrationFinished(let end): MigrationListing.json(end)
    case .functionLog(let log):
      .object(["node": .number(log.node.number), "lost": .number(log.lost), "entries": .array(log.entries.map(\.json))])
    case .backendChanged(let change):
      .object([
        "node": .number(change.node.number), "service": .string(change.service), "backend": .string(change.backend),
        "up": .bool(change.isUp), "reason": .string(change.reason),
      ])
    case .recoveryFinished(let end): RecoveryListing.json(end)
    case .beacon(let beacon):
      .object([
        "position": beacon.position.map { JSON.number($0.value) }, "stateHash": .string(String(beacon.stateHash, radix: 16)),
        "logHash": .string(String(beacon.logHash, radix: 16)), "rules": .number(beacon.rules),
      ])
    case .tick: .object([JSON.Member]())
    case .unknown(let body): .object(["tag": .number(body.tag)])
    }
  }
}

extension FunctionLog.Entry {
  fileprivate var json: JSON {
    let what: JSON =
      switch kind {
      case .alert(let gid, let sid, let revision, let priority, let isDropped):
        .object([
          "kind": .string("alert"), "gid": .number(gid), "sid": .number(sid), "revision": .number(revision),
          "priority": .number(priority), "dropped": .bool(isDropped),
        ])
      case .ruling(let rule, let isAllowed):
        .object(["kind": .string("ruling"), "rule": .number(rule), "allowed": .bool(isAllowed)])
      case .mapping(let event, let vlan):
        .object(["kind": .string("mapping"), "event": .string("\(event)"), "vlan": .number(vlan)])
      }
    let packet: KeyValuePairs<String, JSON?> = [
      "time": .string(time.iso8601), "protocol": .number(protocolNumber), "source": .string(source),
      "sourcePort": .number(sourcePort), "destination": .string(destination), "destinationPort": .number(destinationPort),
    ]
    guard case .object(let first) = JSON.object(packet), case .object(let second) = what else { return .null }
    return .object(first + second)
  }
}

extension ProcessExited {
  fileprivate var code: UInt32? { if case .code(let code) = ending { code } else { nil } }
  fileprivate var signal: UInt32? { if case .signal(let signal) = ending { signal } else { nil } }
}
