import CSchemas
import ControlMessages

extension RecordCodec {
  public static func encode(_ event: Event) -> [UInt8] {
    if case .unknown(let body) = event.body { return body.record }
    let writer = MessageWriter()
    return writer.pack(writer.event(event), nfvactor__v1__event__get_packed_size, nfvactor__v1__event__pack)
  }

  public static func decodeEvent(_ record: [UInt8]) throws(CodecError) -> Event {
    let result = record.withUnsafeBytes { bytes in Result { () throws(CodecError) in try decodeEvent(bytes) } }
    return try result.get()
  }

  /// The same of bytes that lie somewhere, as in a mapped file.
  public static func decodeEvent(_ record: UnsafeRawBufferPointer) throws(CodecError) -> Event {
    guard record.count <= maximumRecordSize else { throw .tooLarge(bytes: record.count) }
    if let heartbeat = heartbeat(record) { return heartbeat }
    return try decodeEventInFull(record)
  }

  /// The general reader.
  static func decodeEventInFull(_ record: UnsafeRawBufferPointer) throws(CodecError) -> Event {
    let arena = MessageArena(limit: MessageReader.memoryLimit(recordSize: record.count))
    guard let message = arena.unpack(record, with: nfvactor__v1__event__unpack) else { throw .malformed }
    defer { withExtendedLifetime(arena) {} }
    return try MessageReader(arena: arena).event(message.pointee, record)
  }
}

extension MessageWriter {
  func event(_ event: Event) -> UnsafeMutablePointer<Nfvactor__V1__Event> {
    make(nfvactor__v1__event__init) {
      $0.version = RecordCodec.version
      $0.producer = text(event.producer.name)
      $0.incarnation = event.incarnation.number
      $0.sequence = event.sequence
      if !event.correlation.isEmpty { $0.correlation = text(event.correlation) }
      switch event.causation {
      case .none: break
      case .event(let offset):
        $0.causation_case = NFVACTOR__V1__EVENT__CAUSATION_CAUSED_BY_EVENT
        $0.caused_by_event = offset.value
      case .command(let slot):
        $0.causation_case = NFVACTOR__V1__EVENT__CAUSATION_CAUSED_BY_COMMAND
        $0.caused_by_command = slot.number
      }
      $0.critical = event.isCritical ? 1 : 0
      if !event.neededRelease.isEmpty { $0.needed_release = text(event.neededRelease) }
      body(event.body, of: &$0)
    }
  }

  private func body(_ body: Event.Body, of message: inout Nfvactor__V1__Event) {
    switch body {
    case .tick:
      message.body_case = NFVACTOR__V1__EVENT__BODY_TICK
      message.tick = make(nfvactor__v1__tick__init)
    case .heartbeat(let heartbeat):
      message.body_case = NFVACTOR__V1__EVENT__BODY_HEARTBEAT
      message.heartbeat = make(nfvactor__v1__heartbeat__init) {
        $0.node = heartbeat.node.number
        $0.worker_loops = heartbeat.workerLoops
        $0.busy_loops = heartbeat.busyLoops
      }
    case .workload(let load):
      message.body_case = NFVACTOR__V1__EVENT__BODY_WORKLOAD
      message.workload = workload(load)
    case .nodeStarted(let started):
      message.body_case = NFVACTOR__V1__EVENT__BODY_NODE_STARTED
      message.node_started = make(nfvactor__v1__node_started__init) {
        $0.node = started.node.number
        $0.kind = kind(started.kind)
        $0.host = text(started.host.name)
        $0.process_id = started.processID
        $0.ports = ports(started.ports)
        $0.startup = started.startup
        $0.can_migrate = started.canMigrate ? 1 : 0
        $0.can_replicate = started.canReplicate ? 1 : 0
      }
    case .nodeStopping(let node):
      message.body_case = NFVACTOR__V1__EVENT__BODY_NODE_STOPPING
      message.node_stopping = make(nfvactor__v1__node_stopping__init) { $0.node = node.number }
    case .commandAcknowledged(let acknowledgement):
      message.body_case = NFVACTOR__V1__EVENT__BODY_COMMAND_ACKNOWLEDGED
      message.command_acknowledged = acknowledged(acknowledgement)
    case .agentStarted(let agent):
      message.body_case = NFVACTOR__V1__EVENT__BODY_AGENT_STARTED
      message.agent_started = make(nfvactor__v1__agent_started__init) {
        $0.host = text(agent.host.name)
        $0.cores = agent.cores
        $0.runtime_ports = agent.runtimePorts
        $0.switch_ports = agent.switchPorts
      }
    case .agentHeartbeat(let host):
      message.body_case = NFVACTOR__V1__EVENT__BODY_AGENT_HEARTBEAT
      message.agent_heartbeat = make(nfvactor__v1__agent_heartbeat__init) { $0.host = text(host.name) }
    case .processExited(let exited):
      message.body_case = NFVACTOR__V1__EVENT__BODY_PROCESS_EXITED
      message.process_exited = make(nfvactor__v1__process_exited__init) {
        $0.host = text(exited.host.name)
        $0.life = life(exited.node, exited.incarnation)
        switch exited.ending {
        case .code(let code):
          $0.ending_case = NFVACTOR__V1__PROCESS_EXITED__ENDING_CODE
          $0.code = code
        case .signal(let signal):
          $0.ending_case = NFVACTOR__V1__PROCESS_EXITED__ENDING_SIGNAL
          $0.signal = signal
        }
      }
    case .clusterRegistered(let cluster):
      message.body_case = NFVACTOR__V1__EVENT__BODY_CLUSTER_REGISTERED
      message.cluster_registered = make(nfvactor__v1__cluster_registered__init) { $0.cluster = text(cluster.name) }
    case .clusterApplied(let applied):
      message.body_case = NFVACTOR__V1__EVENT__BODY_CLUSTER_APPLIED
      message.cluster_applied = make(nfvactor__v1__cluster_applied__init) { $0.spec = spec(applied) }
    case .clusterDeleted(let cluster):
      message.body_case = NFVACTOR__V1__EVENT__BODY_CLUSTER_DELETED
      message.cluster_deleted = make(nfvactor__v1__cluster_deleted__init) { $0.cluster = text(cluster.name) }
    case .beacon(let beacon):
      message.body_case = NFVACTOR__V1__EVENT__BODY_BEACON
      message.beacon = make(nfvactor__v1__beacon__init) {
        if let position = beacon.position {
          $0.progress_case = NFVACTOR__V1__BEACON__PROGRESS_POSITION
          $0.position = position.value
        }
        $0.state_hash = beacon.stateHash
        $0.log_hash = beacon.logHash
        $0.rules = beacon.rules
      }
    case .peerSilent(let silent):
      message.body_case = NFVACTOR__V1__EVENT__BODY_PEER_SILENT
      message.peer_silent = make(nfvactor__v1__peer_silent__init) {
        $0.by = silent.by.number
        $0.life = life(silent.node, silent.incarnation)
      }
    case .rulesActivated(let version):
      message.body_case = NFVACTOR__V1__EVENT__BODY_RULES_ACTIVATED
      message.rules_activated = make(nfvactor__v1__rules_activated__init) { $0.version = version }
    case .policyActivated(let activated):
      message.body_case = NFVACTOR__V1__EVENT__BODY_POLICY_ACTIVATED
      message.policy_activated = policy(activated)
    case .moveRequested(let request):
      message.body_case = NFVACTOR__V1__EVENT__BODY_MOVE_REQUESTED
      message.move_requested = move(request)
    case .drainRequested(let request):
      message.body_case = NFVACTOR__V1__EVENT__BODY_DRAIN_REQUESTED
      message.drain_requested = drain(request)
    case .functionLog(let log):
      message.body_case = NFVACTOR__V1__EVENT__BODY_FUNCTION_LOG
      message.function_log = functionLog(log)
    case .backendChanged(let change):
      message.body_case = NFVACTOR__V1__EVENT__BODY_BACKEND_CHANGED
      message.backend_changed = make(nfvactor__v1__backend_changed__init) {
        $0.node = change.node.number
        $0.service = text(change.service)
        $0.backend = text(change.backend)
        $0.up = change.isUp ? 1 : 0
        $0.reason = text(change.reason)
      }
    case .migrationFinished(let end):
      message.body_case = NFVACTOR__V1__EVENT__BODY_MIGRATION_FINISHED
      message.migration_finished = finished(end)
    case .recoveryFinished(let end):
      message.body_case = NFVACTOR__V1__EVENT__BODY_RECOVERY_FINISHED
      message.recovery_finished = recovered(end)
    case .unknown:
      break  // `encode` has written its record as it was.
    }
  }

  func workload(_ load: NodeWorkload) -> UnsafeMutablePointer<Nfvactor__V1__Workload> {
    make(nfvactor__v1__workload__init) {
      $0.node = load.node.number
      $0.interval = load.interval
      $0.received_packets = load.receivedPackets
      $0.forwarded_packets = load.forwardedPackets
      $0.dropped_packets = load.droppedPackets
      $0.n_drops = load.drops.count
      $0.drops = list(load.drops) { drops in
        make(nfvactor__v1__workload__drops__init) {
          $0.reason = text(drops.reason)
          $0.packets = drops.packets
        }
      }
      $0.received_bytes = load.receivedBytes
      $0.forwarded_bytes = load.forwardedBytes
      $0.active_flows = load.activeFlows
      $0.flows_created = load.flowsCreated
      $0.flows_expired = load.flowsExpired
      $0.busy_share = load.busyShare
      $0.capacity = load.capacity
      $0.unprotected_flows = load.unprotectedFlows
      $0.replicas_held = load.replicasHeld
      $0.packets_replicated = load.packetsReplicated
      $0.packets_released = load.packetsReleased
      $0.n_borrowed = load.borrowed.count
      $0.borrowed = list(load.borrowed) { borrowed in
        make(nfvactor__v1__workload__borrowed__init) {
          $0.share = borrowed.share
          $0.flows = borrowed.flows
        }
      }
      $0.last_slot = load.lastSlot.number
    }
  }

  private func recovered(_ end: RecoveryFinished) -> UnsafeMutablePointer<Nfvactor__V1__RecoveryFinished> {
    make(nfvactor__v1__recovery_finished__init) {
      $0.slot = end.slot.number
      $0.node = end.node.number
      $0.lost = life(end.lost)
      $0.recovered = end.recovered
      $0.on_demand = end.onDemand
      $0.refused = end.refused
      $0.microseconds = end.microseconds
    }
  }

  private func acknowledged(
    _ acknowledgement: CommandAcknowledgement
  ) -> UnsafeMutablePointer<Nfvactor__V1__CommandAcknowledged> {
    make(nfvactor__v1__command_acknowledged__init) {
      $0.slot = acknowledgement.slot.number
      switch acknowledgement.by {
      case .host(let host):
        $0.by_case = NFVACTOR__V1__COMMAND_ACKNOWLEDGED__BY_HOST
        $0.host = text(host.name)
      case .node(let node):
        $0.by_case = NFVACTOR__V1__COMMAND_ACKNOWLEDGED__BY_NODE
        $0.node = node.number
      }
      switch acknowledgement.outcome {
      case .received:
        $0.outcome_case = NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_RECEIVED
        $0.received = make(nfvactor__v1__command_acknowledged__received__init)
      case .applied:
        $0.outcome_case = NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_APPLIED
        $0.applied = make(nfvactor__v1__command_acknowledged__applied__init)
      case .rejected(let reason):
        $0.outcome_case = NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_REJECTED
        $0.rejected = make(nfvactor__v1__command_acknowledged__rejected__init) { $0.reason = text(reason) }
      case .progress(let done, let all):
        $0.outcome_case = NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_PROGRESS
        $0.progress = make(nfvactor__v1__command_acknowledged__progress__init) {
          $0.done = done
          $0.of = all
        }
      case .completed:
        $0.outcome_case = NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_COMPLETED
        $0.completed = make(nfvactor__v1__command_acknowledged__completed__init)
      }
    }
  }
}

extension MessageReader {
  func event(_ message: Nfvactor__V1__Event, _ record: UnsafeRawBufferPointer) throws(CodecError) -> Event {
    try check(version: message.version)
    guard let producer = ProducerID(try text(message.producer, "producer")) else {
      throw .invalid(field: "producer", reason: "is empty or too long")
    }
    guard message.sequence != 0 else { throw .missing(field: "sequence") }
    let causation: Event.Causation =
      switch message.causation_case {
      case NFVACTOR__V1__EVENT__CAUSATION_CAUSED_BY_EVENT: .event(Offset(message.caused_by_event))
      case NFVACTOR__V1__EVENT__CAUSATION_CAUSED_BY_COMMAND: .command(Slot(message.caused_by_command))
      default: .none
      }
    return Event(
      producer: producer, incarnation: Incarnation(message.incarnation), sequence: message.sequence,
      correlation: try text(message.correlation, "correlation"), causation: causation, isCritical: message.critical != 0,
      neededRelease: try text(message.needed_release, "needed_release"), body: try body(message, record))
  }

  private func body(_ message: Nfvactor__V1__Event, _ record: UnsafeRawBufferPointer) throws(CodecError) -> Event.Body {
    switch message.body_case {
    case NFVACTOR__V1__EVENT__BODY_TICK:
      return .tick
    case NFVACTOR__V1__EVENT__BODY_HEARTBEAT:
      let body = try required(message.heartbeat, "heartbeat")
      return .heartbeat(
        Heartbeat(node: try node(body.node, "heartbeat.node"), workerLoops: body.worker_loops, busyLoops: body.busy_loops))
    case NFVACTOR__V1__EVENT__BODY_WORKLOAD:
      return .workload(try workload(required(message.workload, "workload")))
    case NFVACTOR__V1__EVENT__BODY_NODE_STARTED:
      let body = try required(message.node_started, "node_started")
      return .nodeStarted(
        NodeStarted(
          node: try node(body.node, "node_started.node"), kind: try kind(body.kind, "node_started.kind"),
          host: try host(body.host, "node_started.host"), processID: body.process_id,
          ports: ports(try required(body.ports, "node_started.ports")), startup: body.startup, canMigrate: body.can_migrate != 0,
          canReplicate: body.can_replicate != 0))
    case NFVACTOR__V1__EVENT__BODY_NODE_STOPPING:
      return .nodeStopping(try node(required(message.node_stopping, "node_stopping").node, "node_stopping.node"))
    case NFVACTOR__V1__EVENT__BODY_COMMAND_ACKNOWLEDGED:
      return .commandAcknowledged(try acknowledged(required(message.command_acknowledged, "command_acknowledged")))
    case NFVACTOR__V1__EVENT__BODY_AGENT_STARTED:
      let body = try required(message.agent_started, "agent_started")
      return .agentStarted(
        AgentStarted(
          host: try host(body.host, "agent_started.host"), cores: body.cores, runtimePorts: body.runtime_ports,
          switchPorts: body.switch_ports))
    case NFVACTOR__V1__EVENT__BODY_AGENT_HEARTBEAT:
      return .agentHeartbeat(try host(required(message.agent_heartbeat, "agent_heartbeat").host, "agent_heartbeat.host"))
    case NFVACTOR__V1__EVENT__BODY_PROCESS_EXITED:
      let body = try required(message.process_exited, "process_exited")
      let (node, incarnation) = try life(required(body.life, "process_exited.life"), "process_exited.life")
      let ending: ProcessExited.Ending
      switch body.ending_case {
      case NFVACTOR__V1__PROCESS_EXITED__ENDING_CODE: ending = .code(body.code)
      case NFVACTOR__V1__PROCESS_EXITED__ENDING_SIGNAL: ending = .signal(body.signal)
      default: throw .missing(field: "process_exited.ending")
      }
      return .processExited(
        ProcessExited(host: try host(body.host, "process_exited.host"), node: node, incarnation: incarnation, ending: ending))
    case NFVACTOR__V1__EVENT__BODY_CLUSTER_REGISTERED:
      return .clusterRegistered(try cluster(required(message.cluster_registered, "cluster_registered").cluster, "cluster_registered"))
    case NFVACTOR__V1__EVENT__BODY_CLUSTER_APPLIED:
      let body = try required(message.cluster_applied, "cluster_applied")
      return .clusterApplied(try spec(required(body.spec, "cluster_applied.spec")))
    case NFVACTOR__V1__EVENT__BODY_CLUSTER_DELETED:
      return .clusterDeleted(try cluster(required(message.cluster_deleted, "cluster_deleted").cluster, "cluster_deleted"))
    case NFVACTOR__V1__EVENT__BODY_BEACON:
      let body = try required(message.beacon, "beacon")
      let isUnderWay = body.progress_case == NFVACTOR__V1__BEACON__PROGRESS_POSITION
      return .beacon(
        Beacon(
          position: isUnderWay ? Offset(body.position) : nil, stateHash: body.state_hash, logHash: body.log_hash, rules: body.rules))
    case NFVACTOR__V1__EVENT__BODY_PEER_SILENT:
      let body = try required(message.peer_silent, "peer_silent")
      let (node, incarnation) = try life(required(body.life, "peer_silent.life"), "peer_silent.life")
      return .peerSilent(PeerSilent(by: try self.node(body.by, "peer_silent.by"), node: node, incarnation: incarnation))
    case NFVACTOR__V1__EVENT__BODY_RULES_ACTIVATED:
      return .rulesActivated(try required(message.rules_activated, "rules_activated").version)
    case NFVACTOR__V1__EVENT__BODY_POLICY_ACTIVATED:
      return .policyActivated(try policy(required(message.policy_activated, "policy_activated")))
    case NFVACTOR__V1__EVENT__BODY_MOVE_REQUESTED:
      return .moveRequested(try move(required(message.move_requested, "move_requested")))
    case NFVACTOR__V1__EVENT__BODY_DRAIN_REQUESTED:
      return .drainRequested(try drain(required(message.drain_requested, "drain_requested")))
    case NFVACTOR__V1__EVENT__BODY_FUNCTION_LOG:
      return .functionLog(try functionLog(required(message.function_log, "function_log")))
    case NFVACTOR__V1__EVENT__BODY_BACKEND_CHANGED:
      let body = try required(message.backend_changed, "backend_changed")
      return .backendChanged(
        BackendChanged(
          node: try node(body.node, "backend_changed.node"), service: try text(body.service, "backend_changed.service"),
          backend: try text(body.backend, "backend_changed.backend"), isUp: body.up != 0,
          reason: try text(body.reason, "backend_changed.reason")))
    case NFVACTOR__V1__EVENT__BODY_MIGRATION_FINISHED:
      return .migrationFinished(try finished(required(message.migration_finished, "migration_finished")))
    case NFVACTOR__V1__EVENT__BODY_RECOVERY_FINISHED:
      return .recoveryFinished(try recovered(required(message.recovery_finished, "recovery_finished")))
    default:
      return .unknown(
        try unknownBody(message.base, record: Array(record), neededRelease: try text(message.needed_release, "needed_release")))
    }
  }

  func workload(_ message: Nfvactor__V1__Workload) throws(CodecError) -> NodeWorkload {
    var load = NodeWorkload(node: try node(message.node, "workload.node"), interval: message.interval)
    load.receivedPackets = message.received_packets
    load.forwardedPackets = message.forwarded_packets
    load.droppedPackets = message.dropped_packets
    load.drops = try values(message.drops, count: message.n_drops, atMost: 256, "workload.drops") {
      drops throws(CodecError) in
      NodeWorkload.Drops(reason: try text(drops.reason, "workload.drops.reason"), packets: drops.packets)
    }
    load.receivedBytes = message.received_bytes
    load.forwardedBytes = message.forwarded_bytes
    load.activeFlows = message.active_flows
    load.flowsCreated = message.flows_created
    load.flowsExpired = message.flows_expired
    load.busyShare = message.busy_share
    load.capacity = message.capacity
    load.unprotectedFlows = message.unprotected_flows
    load.replicasHeld = message.replicas_held
    load.packetsReplicated = message.packets_replicated
    load.packetsReleased = message.packets_released
    load.borrowed = try values(
      message.borrowed, count: message.n_borrowed, atMost: Int(ClusterSpec.maximumPoolShares), "workload.borrowed"
    ) { NodeWorkload.Borrowed(share: $0.share, flows: $0.flows) }
    load.lastSlot = Slot(message.last_slot)
    return load
  }

  private func recovered(_ message: Nfvactor__V1__RecoveryFinished) throws(CodecError) -> RecoveryFinished {
    guard message.slot != 0 else { throw .missing(field: "recovery_finished.slot") }
    var end = RecoveryFinished(
      slot: Slot(message.slot), node: try node(message.node, "recovery_finished.node"),
      lost: try nodeLife(required(message.lost, "recovery_finished.lost"), "recovery_finished.lost"))
    end.recovered = message.recovered
    end.onDemand = message.on_demand
    end.refused = message.refused
    end.microseconds = message.microseconds
    return end
  }

  private func acknowledged(_ message: Nfvactor__V1__CommandAcknowledged) throws(CodecError) -> CommandAcknowledgement {
    guard message.slot != 0 else { throw .missing(field: "command_acknowledged.slot") }
    let by: CommandAcknowledgement.Acknowledger
    switch message.by_case {
    case NFVACTOR__V1__COMMAND_ACKNOWLEDGED__BY_HOST: by = .host(try host(message.host, "command_acknowledged.host"))
    case NFVACTOR__V1__COMMAND_ACKNOWLEDGED__BY_NODE: by = .node(try node(message.node, "command_acknowledged.node"))
    default: throw .missing(field: "command_acknowledged.by")
    }
    let outcome: CommandAcknowledgement.Outcome
    switch message.outcome_case {
    case NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_RECEIVED: outcome = .received
    case NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_APPLIED: outcome = .applied
    case NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_REJECTED:
      let rejected = try required(message.rejected, "command_acknowledged.rejected")
      outcome = .rejected(reason: try text(rejected.reason, "command_acknowledged.rejected.reason"))
    case NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_PROGRESS:
      let progress = try required(message.progress, "command_acknowledged.progress")
      outcome = .progress(done: progress.done, of: progress.of)
    case NFVACTOR__V1__COMMAND_ACKNOWLEDGED__OUTCOME_COMPLETED: outcome = .completed
    default: throw .missing(field: "command_acknowledged.outcome")
    }
    return CommandAcknowledgement(slot: Slot(message.slot), by: by, outcome: outcome)
  }
}
