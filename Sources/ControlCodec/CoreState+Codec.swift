import CSchemas
import ControlMessages
import ControlPlane

// A core's whole state as bytes: what the parts of a snapshot hold together. Whoever folds on from the decoded core
// comes to the same commands and the same hash as whoever folded from the beginning.

extension RecordCodec {
  /// A reader that does not know the format starts from the log's beginning instead.
  static let coreFormat: UInt32 = 1
  /// A thousand hosts, four thousand producers and a spec of a megabyte fit well.
  static let maximumCoreSize = 16_000_000

  public static func encode(_ core: ClusterCore) -> [UInt8] {
    let writer = MessageWriter()
    return writer.pack(writer.core(core), nfvactor__v1__core_state__get_packed_size, nfvactor__v1__core_state__pack)
  }

  public static func decodeCore(_ bytes: [UInt8]) throws(CodecError) -> ClusterCore {
    guard bytes.count <= maximumCoreSize else { throw .tooLarge(bytes: bytes.count) }
    let arena = MessageArena(limit: MessageReader.memoryLimit(recordSize: bytes.count))
    guard let message = arena.unpack(bytes, with: nfvactor__v1__core_state__unpack) else { throw .malformed }
    defer { withExtendedLifetime(arena) {} }
    return try MessageReader(arena: arena).core(message.pointee)
  }
}

extension MessageWriter {
  func core(_ core: ClusterCore) -> UnsafeMutablePointer<Nfvactor__V1__CoreState> {
    let state = core.state
    return make(nfvactor__v1__core_state__init) {
      $0.format = RecordCodec.coreFormat
      $0.cluster = text(state.cluster.name)
      $0.position = core.position?.value ?? 0
      $0.state_hash = core.hash.value
      $0.log_hash = core.logHash.value
      $0.rules = state.rules
      if let known = state.spec { $0.spec = spec(known) }
      if let known = state.pendingSpec { $0.pending_spec = spec(known) }
      $0.n_pending_changes = state.pendingChanges.count
      $0.pending_changes = texts(state.pendingChanges)
      $0.deleted = state.isDeleted ? 1 : 0
      $0.correlation = text(state.correlation)
      $0.scaling = scaling(state.scaling)
      $0.now = state.clock.now.milliseconds
      $0.elapsed = state.clock.elapsed
      $0.stalled = state.clock.stalled
      $0.last_stall = state.clock.lastStall
      $0.n_hosts = state.hosts.count
      $0.hosts = list(state.hosts, host)
      $0.n_nodes = state.nodes.count
      $0.nodes = list(state.nodes, node)
      $0.n_abandoned = state.abandoned.count
      $0.abandoned = list(state.abandoned, abandoned)
      $0.n_replicas = state.replicas.count
      $0.replicas = list(state.replicas) { replica in
        make(nfvactor__v1__replica_state__init) {
          $0.producer = text(replica.producer.name)
          $0.last_heard = replica.lastHeard
          $0.rules = replica.rules
        }
      }
      $0.n_deaths = state.deaths.count
      $0.deaths = list(state.deaths) { death in
        make(nfvactor__v1__death_declared__init) {
          $0.life = life(death.node, death.incarnation)
          $0.timestamp = death.timestamp.milliseconds
          $0.silence = death.silence
          $0.evidence = text(death.evidence)
        }
      }
      $0.last_declared = state.lastDeclared
      if let since = state.manySilentSince {
        $0.mass_silence_case = NFVACTOR__V1__CORE_STATE__MASS_SILENCE_MANY_SILENT_SINCE
        $0.many_silent_since = since
      }
      $0.last_slot = state.lastSlot.number
      $0.table = table(state.table)
      $0.table_sent = state.tableSent
      $0.next_node = state.nextNode
      $0.n_seen = state.seen.entries.count
      $0.seen = list(state.seen.entries) { entry in
        make(nfvactor__v1__seen_producer__init) {
          $0.producer = text(entry.producer.name)
          $0.incarnation = entry.incarnation.number
          $0.facts = entry.facts
          $0.signals = entry.signals
          $0.last_offset = entry.lastOffset.value
        }
      }
      $0.repeated_events = state.ignored.repeated
      $0.unknown_events = state.ignored.unknown
      $0.misdirected_events = state.ignored.misdirected
      if let body = state.needsNewerVersion {
        $0.needs_newer_version = make(nfvactor__v1__newer_body__init) {
          $0.tag = body.tag
          $0.record = binary(body.record)
        }
      }
    }
  }

  private func host(_ host: ClusterState.Host) -> UnsafeMutablePointer<Nfvactor__V1__HostState> {
    make(nfvactor__v1__host_state__init) {
      $0.host = text(host.id.name)
      $0.cores = host.cores
      $0.runtime_ports = host.runtimePorts
      $0.switch_ports = host.switchPorts
      $0.agent_incarnation = host.agentIncarnation.number
      $0.last_heard = host.lastHeard
      $0.silent = host.isSilent ? 1 : 0
      $0.runtime_refused_until = host.runtimeRefusedUntil
      $0.switch_refused_until = host.switchRefusedUntil
      $0.refusal = text(host.refusal)
    }
  }

  private func request(_ stop: ClusterState.StopRequest) -> UnsafeMutablePointer<Nfvactor__V1__StopRequest> {
    make(nfvactor__v1__stop_request__init) {
      $0.slot = stop.slot.number
      $0.retry_at = stop.retryAt
      $0.attempts = stop.attempts
    }
  }

  private func node(_ node: ClusterState.Node) -> UnsafeMutablePointer<Nfvactor__V1__NodeState> {
    make(nfvactor__v1__node_state__init) {
      $0.node = node.id.number
      $0.kind = kind(node.kind)
      switch node.phase {
      case .waiting(let until):
        $0.phase_case = NFVACTOR__V1__NODE_STATE__PHASE_WAITING
        $0.waiting = make(nfvactor__v1__node_state__waiting__init) { $0.until = until }
      case .launching(let slot, let deadline):
        $0.phase_case = NFVACTOR__V1__NODE_STATE__PHASE_LAUNCHING
        $0.launching = make(nfvactor__v1__node_state__launching__init) {
          $0.slot = slot.number
          $0.deadline = deadline
        }
      case .serving(let since):
        $0.phase_case = NFVACTOR__V1__NODE_STATE__PHASE_SERVING
        $0.serving = make(nfvactor__v1__node_state__serving__init) { $0.since = since }
      case .stopping(let stop):
        $0.phase_case = NFVACTOR__V1__NODE_STATE__PHASE_STOPPING
        $0.stopping = make(nfvactor__v1__node_state__stopping__init) { if let stop { $0.request = request(stop) } }
      }
      $0.incarnation = node.incarnation.number
      $0.host = text(node.host?.name ?? "")
      if let share = node.poolShare {
        $0.share_case = NFVACTOR__V1__NODE_STATE__SHARE_POOL_SHARE
        $0.pool_share = share
      }
      if let known = node.ports { $0.ports = ports(known) }
      $0.process_id = node.processID
      $0.startup = node.startup
      $0.last_heard = node.lastHeard
      $0.silent = node.isSilent ? 1 : 0
      $0.leaving = node.isLeaving ? 1 : 0
      $0.worker_loops = node.workerLoops
      $0.loops_moved_at = node.loopsMovedAt
      if let load = node.workload { $0.workload = workload(load) }
      $0.acknowledged = node.acknowledged.number
      $0.failures = node.failures
      $0.last_problem = text(node.lastProblem)
      $0.can_migrate = node.canMigrate ? 1 : 0
      if let drain = node.drain {
        $0.draining = make(nfvactor__v1__node_state__draining__init) {
          $0.since = drain.since
          $0.deadline = drain.deadline
        }
      }
      if let witness = node.peerWitness {
        $0.peer_witness = make(nfvactor__v1__peer_witness__init) {
          $0.by = witness.by.number
          $0.at = witness.at
        }
      }
    }
  }

  private func abandoned(_ abandoned: ClusterState.AbandonedLife) -> UnsafeMutablePointer<Nfvactor__V1__AbandonedLife> {
    make(nfvactor__v1__abandoned_life__init) {
      $0.life = life(abandoned.node, abandoned.incarnation)
      $0.kind = kind(abandoned.kind)
      $0.host = text(abandoned.host.name)
      if let share = abandoned.poolShare {
        $0.share_case = NFVACTOR__V1__ABANDONED_LIFE__SHARE_POOL_SHARE
        $0.pool_share = share
      }
      if let stop = abandoned.stop { $0.stop = request(stop) }
      $0.declared_dead = abandoned.isDeclaredDead ? 1 : 0
    }
  }

  private func scaling(_ scaling: ClusterState.Scaling) -> UnsafeMutablePointer<Nfvactor__V1__ScalingState> {
    make(nfvactor__v1__scaling_state__init) {
      if let known = scaling.policy { $0.policy = policy(known) }
      $0.version = scaling.version.value
      if let target = scaling.target {
        $0.wanted_case = NFVACTOR__V1__SCALING_STATE__WANTED_TARGET
        $0.target = target
      }
      $0.last_action = scaling.lastAction
      if let since = scaling.idleSince {
        $0.idle_case = NFVACTOR__V1__SCALING_STATE__IDLE_IDLE_SINCE
        $0.idle_since = since
      }
      if let since = scaling.overloadedSince {
        $0.overload_case = NFVACTOR__V1__SCALING_STATE__OVERLOAD_OVERLOADED_SINCE
        $0.overloaded_since = since
      }
      $0.n_moves = scaling.moves.count
      $0.moves = list(scaling.moves) { move in
        make(nfvactor__v1__move_state__init) {
          $0.source = life(move.source, move.sourceIncarnation)
          $0.target = life(move.target, move.targetIncarnation)
          $0.goal = move.goal
          $0.asked = move.asked
          $0.slot = move.slot.number
          $0.deadline = move.deadline
        }
      }
    }
  }
}

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
    state.clock = LogClock(
      now: Timestamp(milliseconds: message.now), elapsed: message.elapsed, stalled: message.stalled, lastStall: message.last_stall)
    state.hosts = try values(message.hosts, count: message.n_hosts, atMost: Self.most, "hosts", host)
    state.nodes = try values(message.nodes, count: message.n_nodes, atMost: Self.most, "nodes", node)
    state.abandoned = try values(message.abandoned, count: message.n_abandoned, atMost: Self.most, "abandoned", abandoned)
    state.replicas = try values(message.replicas, count: message.n_replicas, atMost: 64, "replicas") { replica throws(CodecError) in
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
    state.lastSlot = Slot(message.last_slot)
    state.table = try table(required(message.table, "table"))
    state.tableSent = message.table_sent
    state.nextNode = message.next_node
    state.seen = SeenEvents(
      entries: try values(message.seen, count: message.n_seen, atMost: Self.most, "seen") { entry throws(CodecError) in
        SeenEvents.Entry(
          producer: try producer(entry.producer, "seen.producer"), incarnation: Incarnation(entry.incarnation), facts: entry.facts,
          signals: entry.signals, lastOffset: Offset(entry.last_offset))
      })
    state.ignored = ClusterState.Ignored(
      repeated: message.repeated_events, unknown: message.unknown_events, misdirected: message.misdirected_events)
    if let body = message.needs_newer_version?.pointee {
      state.needsNewerVersion = UnknownBody(tag: body.tag, record: binary(body.record))
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
    if let drain = message.draining?.pointee { node.drain = ClusterState.Drain(since: drain.since, deadline: drain.deadline) }
    if let witness = message.peer_witness?.pointee {
      node.peerWitness = ClusterState.PeerWitness(by: try self.node(witness.by, "nodes.peer_witness"), at: witness.at)
    }
    return node
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
    scaling.moves = try values(message.moves, count: message.n_moves, atMost: 1_024, "scaling.moves") { move throws(CodecError) in
      let (source, sourceLife) = try life(required(move.source, "scaling.moves.source"), "scaling.moves.source")
      let (target, targetLife) = try life(required(move.target, "scaling.moves.target"), "scaling.moves.target")
      var value = ClusterState.Move(
        source: source, sourceIncarnation: sourceLife, target: target, targetIncarnation: targetLife, goal: move.goal)
      value.asked = move.asked
      value.slot = Slot(move.slot)
      value.deadline = move.deadline
      return value
    }
    return scaling
  }

  private func producer(_ pointer: UnsafeMutablePointer<CChar>?, _ field: String) throws(CodecError) -> ProducerID {
    guard let producer = ProducerID(try text(pointer, field)) else { throw .invalid(field: field, reason: "is empty or too long") }
    return producer
  }
}
