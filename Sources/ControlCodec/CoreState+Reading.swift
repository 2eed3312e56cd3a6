import CSchemas
import ControlMessages
import ControlPlane

// The other half of `CoreState+Codec.swift`: C messages to a core, believing nothing.

extension MessageReader {
  /// Lists are believed up to what the core itself would ever hold.
  private static let most = 8_192

  func core(_ message: Nfvactor__V1__CoreState) throws(CodecError) -> ClusterCore {
    guard message.format == RecordCodec.coreFormat else { throw .unsupportedVersion(message.format) }
    guard (DecisionRules.first...DecisionRules.newest).contains(message.rules) else {
      throw .invalid(field: "rules", reason: "are \(message.rules); this program follows rules up to \(DecisionRules.newest)")
    }
    var state = ClusterState(cluster: try cluster(message.cluster, "cluster"))
    state.rules = message.rules
    if let known = message.spec { state.spec = try spec(known.pointee) }
    if let known = message.pending_spec { state.pendingSpec = try spec(known.pointee) }
    state.pendingChanges = try texts(message.pending_changes, count: message.n_pending_changes, atMost: 64, "pending_changes")
    state.isDeleted = message.deleted != 0
    state.correlation = try text(message.correlation, "correlation")
    state.scaling = try scaling(required(message.scaling, "scaling"))
    state.requests = try values(
      message.requests, count: message.n_requests, atMost: ClusterState.maximumRequests, "requests", request)
    state.clock = LogClock(
      now: Timestamp(milliseconds: message.now), elapsed: message.elapsed, stalled: message.stalled, lastStall: message.last_stall
    )
    state.hosts = try values(message.hosts, count: message.n_hosts, atMost: Self.most, "hosts", host)
    state.nodes = try values(message.nodes, count: message.n_nodes, atMost: Self.most, "nodes", node)
    state.abandoned = try values(message.abandoned, count: message.n_abandoned, atMost: Self.most, "abandoned", abandoned)
    state.replicas = try values(message.replicas, count: message.n_replicas, atMost: 64, "replicas") {
      replica throws(CodecError) in
      ClusterState.Replica(
        producer: try producer(replica.producer, "replicas.producer"), lastHeard: replica.last_heard, rules: replica.rules)
    }
    state.deaths = try values(message.deaths, count: message.n_deaths, atMost: 64, "deaths") { death throws(CodecError) in
      let (node, incarnation) = try life(required(death.life, "deaths.life"), "deaths.life")
      return ClusterState.Death(
        node: node, incarnation: incarnation, timestamp: Timestamp(milliseconds: death.timestamp), silence: death.silence,
        evidence: try text(death.evidence, "deaths.evidence"))
    }
    state.lastDeclared = message.last_declared
    if message.mass_silence_case == NFVACTOR__V1__CORE_STATE__MASS_SILENCE_MANY_SILENT_SINCE {
      state.manySilentSince = message.many_silent_since
    }
    state.lostLives = try values(message.lost_lives, count: message.n_lost_lives, atMost: Self.most, "lost_lives", lost)
    if message.stillness_case == NFVACTOR__V1__CORE_STATE__STILLNESS_STILL_SINCE { state.stillSince = Slot(message.still_since) }
    state.unansweredMoves = try values(
      message.unanswered_moves, count: message.n_unanswered_moves, atMost: Self.most, "unanswered_moves"
    ) { move throws(CodecError) in
      ClusterState.UnansweredMove(
        source: try nodeLife(required(move.source, "unanswered_moves.source"), "unanswered_moves.source"),
        slot: Slot(move.slot))
    }
    state.lastSlot = Slot(message.last_slot)
    state.table = try table(required(message.table, "table"))
    state.tableSent = message.table_sent
    state.nextNode = message.next_node
    state.seen = SeenEvents(
      entries: try values(message.seen, count: message.n_seen, atMost: Self.most, "seen") { entry throws(CodecError) in
        SeenEvents.Entry(
          producer: try producer(entry.producer, "seen.producer"), incarnation: Incarnation(entry.incarnation),
          facts: entry.facts,
          signals: entry.signals, lastOffset: Offset(entry.last_offset))
      })
    state.ignored = ClusterState.Ignored(
      repeated: message.repeated_events, unknown: message.unknown_events, misdirected: message.misdirected_events)
    state.settingsVersion = message.settings_version
    state.settingsTold = message.settings_told
    state.settingsSlot = Slot(message.settings_slot)
    if let body = message.needs_newer_version?.pointee {
      state.needsNewerVersion = UnknownBody(
        tag: body.tag, record: binary(body.record), neededRelease: try text(body.needed_release, "needs_newer_version"))
    }
    return ClusterCore(
      state: state, hash: StateHash(value: message.state_hash), logHash: LogHash(value: message.log_hash),
      position: Offset(message.position))
  }

  private func host(_ message: Nfvactor__V1__HostState) throws(CodecError) -> ClusterState.Host {
    var host = ClusterState.Host(
      id: try host(message.host, "hosts.host"), cores: message.cores, runtimePorts: message.runtime_ports,
      switchPorts: message.switch_ports, agentIncarnation: Incarnation(message.agent_incarnation), lastHeard: message.last_heard)
    host.isSilent = message.silent != 0
    host.runtimeRefusedUntil = message.runtime_refused_until
    host.switchRefusedUntil = message.switch_refused_until
    host.refusal = try text(message.refusal, "hosts.refusal")
    return host
  }

  private func request(_ message: Nfvactor__V1__StopRequest) -> ClusterState.StopRequest {
    ClusterState.StopRequest(slot: Slot(message.slot), retryAt: message.retry_at, attempts: message.attempts)
  }

  private func node(_ message: Nfvactor__V1__NodeState) throws(CodecError) -> ClusterState.Node {
    var node = ClusterState.Node(
      id: try self.node(message.node, "nodes.node"), kind: try kind(message.kind, "nodes.kind"), waitingUntil: 0)
    switch message.phase_case {
    case NFVACTOR__V1__NODE_STATE__PHASE_WAITING:
      node.phase = .waiting(until: try required(message.waiting, "nodes.waiting").until)
    case NFVACTOR__V1__NODE_STATE__PHASE_LAUNCHING:
      let launching = try required(message.launching, "nodes.launching")
      node.phase = .launching(slot: Slot(launching.slot), deadline: launching.deadline)
    case NFVACTOR__V1__NODE_STATE__PHASE_SERVING:
      node.phase = .serving(since: try required(message.serving, "nodes.serving").since)
    case NFVACTOR__V1__NODE_STATE__PHASE_STOPPING:
      node.phase = .stopping(try required(message.stopping, "nodes.stopping").request.map { request($0.pointee) })
    default: throw .missing(field: "nodes.phase")
    }
    node.incarnation = Incarnation(message.incarnation)
    if case let name = try text(message.host, "nodes.host"), !name.isEmpty { node.host = try host(message.host, "nodes.host") }
    if message.share_case == NFVACTOR__V1__NODE_STATE__SHARE_POOL_SHARE { node.poolShare = message.pool_share }
    if let known = message.ports { node.ports = ports(known.pointee) }
    node.processID = message.process_id
    node.startup = message.startup
    node.lastHeard = message.last_heard
    node.isSilent = message.silent != 0
    node.isLeaving = message.leaving != 0
    node.workerLoops = message.worker_loops
    node.loopsMovedAt = message.loops_moved_at
    if let load = message.workload { node.workload = try workload(load.pointee) }
    node.acknowledged = Slot(message.acknowledged)
    node.failures = message.failures
    node.lastProblem = try text(message.last_problem, "nodes.last_problem")
    node.canMigrate = message.can_migrate != 0
    if let drain = message.draining?.pointee {
      node.drain = ClusterState.Drain(since: drain.since, deadline: drain.deadline, isKept: drain.kept != 0)
    }
    node.settingsVersion = message.settings_version
    node.settingsProblem = try text(message.settings_problem, "nodes.settings_problem")
    node.backends = try values(
      message.backends, count: message.n_backends, atMost: ClusterState.maximumBackends, "nodes.backends"
    ) { backend throws(CodecError) in
      ClusterState.Backend(
        service: try text(backend.service, "nodes.backends.service"), backend: try text(backend.backend, "nodes.backends.backend"),
        isUp: backend.up != 0, reason: try text(backend.reason, "nodes.backends.reason"),
        since: Timestamp(milliseconds: backend.since))
    }
    if let known = message.peer_witness { node.peerWitness = try witness(known.pointee) }
    node.canReplicate = message.can_replicate != 0
    if let known = message.protection { node.protection = try protection(known.pointee) }
    node.unheardBy = try values(message.unheard_by, count: message.n_unheard_by, atMost: Self.most, "nodes.unheard_by", witness)
    return node
  }

  private func witness(_ message: Nfvactor__V1__PeerWitness) throws(CodecError) -> ClusterState.PeerWitness {
    ClusterState.PeerWitness(by: try node(message.by, "nodes.peer_witness"), at: message.at, since: message.since)
  }

  private func abandoned(_ message: Nfvactor__V1__AbandonedLife) throws(CodecError) -> ClusterState.AbandonedLife {
    let (node, incarnation) = try life(required(message.life, "abandoned.life"), "abandoned.life")
    return ClusterState.AbandonedLife(
      node: node, kind: try kind(message.kind, "abandoned.kind"), incarnation: incarnation,
      host: try host(message.host, "abandoned.host"),
      poolShare: message.share_case == NFVACTOR__V1__ABANDONED_LIFE__SHARE_POOL_SHARE ? message.pool_share : nil,
      stop: message.stop.map { request($0.pointee) }, isDeclaredDead: message.declared_dead != 0)
  }

  private func scaling(_ message: Nfvactor__V1__ScalingState) throws(CodecError) -> ClusterState.Scaling {
    var scaling = ClusterState.Scaling()
    if let known = message.policy { scaling.policy = try policy(known.pointee) }
    scaling.version = Offset(message.version)
    if message.wanted_case == NFVACTOR__V1__SCALING_STATE__WANTED_TARGET { scaling.target = message.target }
    scaling.lastAction = message.last_action
    if message.idle_case == NFVACTOR__V1__SCALING_STATE__IDLE_IDLE_SINCE { scaling.idleSince = message.idle_since }
    if message.overload_case == NFVACTOR__V1__SCALING_STATE__OVERLOAD_OVERLOADED_SINCE {
      scaling.overloadedSince = message.overloaded_since
    }
    scaling.moves = try values(message.moves, count: message.n_moves, atMost: 1_024, "scaling.moves", move)
    return scaling
  }

  private func producer(_ pointer: UnsafeMutablePointer<CChar>?, _ field: String) throws(CodecError) -> ProducerID {
    guard let producer = ProducerID(try text(pointer, field)) else {
      throw .invalid(field: field, reason: "is empty or too long")
    }
    return producer
  }
}
